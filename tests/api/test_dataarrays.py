"""DataArrays in and out: as `refine` of the same pixels, lazily, with all that they say kept."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from numpy.typing import NDArray
from rasterio.transform import Affine

import geothresh.xarray  # noqa: F401 - registers the accessor
from geothresh import (
    Compute,
    GeothreshWarning,
    InputError,
    Outputs,
    Reading,
    Refining,
    Tiling,
    UsageError,
    refine,
    refine_array,
    refine_dataarray,
)
from geothresh.mosaic import mosaic_array
from geothresh.raster.dataarray import Plane
from geothresh.raster.dataset import evenly_spread
from geothresh.raster.pixelsize import pixel_size
from geothresh.types import Float32Array
from tests.support.fakes import UnevenRefiner
from tests.support.rasters import NORTH_UP, coordinate_array, write_raster

# rioxarray's own affair.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

SMALL = Tiling(tile_size=32, overlap=16)
LARGER = Tiling(tile_size=64, overlap=16)


# -- as `refine` ---------------------------------------------------------------------------------


def road_confidence(height: int, width: int) -> Float32Array:
    """Blurred stripes across each other."""
    rows, cols = np.mgrid[:height, :width]
    seen = np.maximum(np.cos(rows / 9), np.cos((rows + 3 * cols) / 31))
    return np.clip(0.5 + seen / 2, 0, 1).astype(np.float32) ** 2


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Path]:
    """Writes a GeoTIFF of confidences with a hole, as uint8 if asked for."""

    def write(dtype: str, nodata: float, *, transform: Affine = NORTH_UP) -> Path:
        values = road_confidence(100, 150)
        if dtype == "uint8":
            values = np.rint(values * 254)
        values[20:60, 70:] = nodata
        values = values.astype(dtype)
        return write_raster(tmp_path / "scene.tif", values, nodata=nodata, transform=transform)

    return write


def by_refine(path: Path, model: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Mask and confidence as files hold them."""
    folder = path.parent
    result = refine(
        path, folder / "mask.tif", model=model, tiling=LARGER,
        outputs=Outputs(confidence=folder / "confidence.tif"),
        refining=Refining(keep_threshold=0.45),
    )  # fmt: skip
    assert result.confidence is not None
    with rasterio.open(result.mask) as mask, rasterio.open(result.confidence) as confidence:
        return mask.read(1), confidence.read(1)


def in_steps(confidence: xr.DataArray) -> NDArray[np.uint8]:
    """Confidences as `refine` stores them."""
    steps = confidence.to_numpy() * np.float32(254) + np.float32(0.5)
    return np.where(np.isnan(steps), 255, steps).astype(np.uint8)


@pytest.mark.parametrize(
    ("dtype", "nodata", "masked", "chunks"),
    [
        ("uint8", 255, False, None),
        ("uint8", 255, True, {"x": 50, "y": 47}),
        ("float32", -9999, False, {"x": 200, "y": 20}),
        ("float32", -9999, True, None),
    ],
)
def test_each_pixel_is_as_refine_writes_it(
    scene: Callable[..., Path],
    tiny_model: Path,
    dtype: str,
    nodata: float,
    masked: bool,
    chunks: dict[str, int] | None,
) -> None:
    path = scene(dtype, nodata)
    mask, confidence = by_refine(path, tiny_model)
    array = rioxarray.open_rasterio(path, chunks=chunks, masked=masked)
    made = refine_dataarray(array, model=tiny_model, tiling=LARGER)
    assert (made.chunks is None) == (chunks is None)
    np.testing.assert_array_equal(in_steps(made)[0], confidence)
    cut = array.geothresh.refine(
        model=tiny_model, tiling=LARGER, layer="mask", refining=Refining(keep_threshold=0.45)
    )
    np.testing.assert_array_equal(cut[0], mask)


@pytest.mark.parametrize("chunks", [None, 64])
def test_what_the_array_says_is_kept(
    scene: Callable[..., Path], tmp_path: Path, chunks: int | None
) -> None:
    path = scene("float32", -9999)
    array = rioxarray.open_rasterio(path, chunks=chunks).rename("roads")
    array.attrs |= {"long_name": "how likely", "units": "%", "STATISTICS_MEAN": 0.3}
    model = UnevenRefiner()
    for layer, dtype, nodata in (("confidence", "float32", -9999), ("mask", "uint8", 255)):
        made = refine_dataarray(array, model=model, tiling=SMALL, layer=layer)
        assert made.dims == array.dims
        assert made.name == "roads"
        xr.testing.assert_identical(made.coords.to_dataset(), array.coords.to_dataset())
        assert made.attrs["long_name"] == "how likely"
        assert made.attrs["GEOTHRESH_MODEL"] == "uneven"
        assert {"units", "STATISTICS_MEAN"}.isdisjoint(made.attrs)
        file = tmp_path / f"{layer}.tif"
        made.rio.to_raster(file)
        with rasterio.open(file) as written, rasterio.open(path) as source:
            assert written.crs == source.crs
            assert written.transform == source.transform
            assert (written.nodata, written.dtypes) == (nodata, (dtype,))
            missing = source.read(1) == -9999
            np.testing.assert_array_equal(written.read(1) == nodata, missing)
    assert array.attrs["_FillValue"] == -9999, "the input is as it was"


def test_dimensions_in_any_order_and_of_any_name() -> None:
    values = coordinate_array(40, 50)
    expected = mosaic_array(values, UnevenRefiner(), tile=32, overlap=16)
    for dims in (("y", "x"), ("lat", "lon"), ("north", "east"), ("Y", "X")):
        made = refine_dataarray(
            xr.DataArray(values, dims=dims), model=UnevenRefiner(), tiling=SMALL
        )
        np.testing.assert_array_equal(made, expected)
    turned = xr.DataArray(values.T[..., None], dims=("x", "y", "time"))
    made = refine_dataarray(turned, model=UnevenRefiner(), tiling=SMALL)
    assert made.dims == turned.dims
    np.testing.assert_array_equal(made[..., 0], expected.T)
    marked = turned.rename(x="a", y="b").assign_coords(a=("a", np.arange(50), {"axis": "X"}))
    marked = marked.assign_coords(b=("b", np.arange(40), {"axis": "Y"}))
    made = refine_dataarray(marked, model=UnevenRefiner(), tiling=SMALL)
    np.testing.assert_array_equal(made[..., 0], expected.T)


def test_the_size_of_pixels_is_told_by_crs_and_coordinates(scene: Callable[..., Path]) -> None:
    def metres(array: xr.DataArray) -> float | None:
        size = pixel_size(Plane.of(array).box())
        return None if size is None else size.mean

    array = rioxarray.open_rasterio(scene("uint8", 255))
    assert metres(array) == pytest.approx(2, rel=1e-3)
    assert metres(array[:, ::2, ::2]) == pytest.approx(4, rel=1e-3), "not as the file has it"
    assert metres(array[:, :1, :1]) == pytest.approx(2, rel=1e-3), "as the file has it"
    assert metres(array.drop_vars(["x", "y"])) == pytest.approx(2, rel=1e-3)
    assert metres(array.drop_vars("spatial_ref")) is None
    uneven = array.assign_coords(x=np.square(np.arange(150.0)))
    uneven["spatial_ref"].attrs.pop("GeoTransform")
    assert metres(uneven) is None
    turned = rioxarray.open_rasterio(
        scene("uint8", 255, transform=Affine.rotation(33) @ Affine.scale(3, -3))
    )
    assert metres(turned) == pytest.approx(3, abs=1e-2)
    named = xr.DataArray(
        np.zeros((9, 9)),
        dims=("lat", "lon"),
        coords={
            "lat": 60 - np.arange(9) * 1e-5,
            "lon": np.arange(9) * 1e-5,
            "crs": ((), 0, {"crs_wkt": rasterio.crs.CRS.from_epsg(4326).to_wkt()}),
        },
        attrs={"grid_mapping": "crs"},
    )
    assert metres(named) == pytest.approx(0.788, abs=1e-2)


def test_the_model_reads_pixels_of_its_own_size(tiny_model: Path) -> None:
    values = road_confidence(96, 96)
    array = xr.DataArray(values, dims=("y", "x"))
    made = {
        metres: refine_dataarray(
            array, model=tiny_model, tiling=SMALL, ground_sample_distance=metres,
            refining=Refining(resolution=1.0),
        )
        for metres in (1.0, 0.5)
    }  # fmt: skip
    assert made[1.0].GEOTHRESH_RESAMPLING == "16/16"
    assert made[0.5].GEOTHRESH_RESAMPLING == "16/32"
    assert not np.array_equal(made[1.0], made[0.5])


# -- laziness ------------------------------------------------------------------------------------


class Watched:
    """Blocks of an array that remember which of them were computed."""

    def __init__(self, values: NDArray[Any], chunks: int) -> None:
        self.computed: list[Any] = []

        def look(block: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
            self.computed.append(block_info[0]["chunk-location"])
            return block

        array = da.from_array(values, chunks).map_blocks(look, dtype=values.dtype, meta=values[:0])
        self.array = xr.DataArray(array, dims=("y", "x"))


def test_nothing_is_computed_where_nothing_is_to_be_decided(tiny_model: Path) -> None:
    watched = Watched(road_confidence(96, 96), 32)
    refine_dataarray(watched.array, model=tiny_model, tiling=SMALL)
    assert watched.computed == []
    stored = Watched((road_confidence(96, 96) * 255).astype(np.uint8), 32)
    refine_dataarray(stored.array, model=tiny_model, tiling=SMALL, reading=Reading(scale=255))
    assert stored.computed == []


def test_uint8_is_looked_at_until_a_value_decides(tiny_model: Path) -> None:
    values = np.zeros((96, 96), np.uint8)
    values[:, 70:] = 200
    watched = Watched(values, 32)
    made = refine_dataarray(watched.array, model=tiny_model, tiling=SMALL)
    assert made.GEOTHRESH_SCALING == "uint8 / 255"
    assert 1 <= len(watched.computed) < 9
    binary = Watched((values > 0).astype(np.uint8), 32)
    with pytest.warns(GeothreshWarning, match="holds only 0 and 1"):
        refine_dataarray(binary.array, model=tiny_model, tiling=SMALL)
    assert len(binary.computed) == 9


def test_a_value_against_the_scaling_is_an_error_of_the_computation(tiny_model: Path) -> None:
    values = np.full((96, 96), 0.5, np.float32)
    values[90, 3] = 7
    array = xr.DataArray(da.from_array(values, 32), dims=("y", "x"), name="roads")
    made = refine_dataarray(array, model=tiny_model, tiling=SMALL)
    with pytest.raises(InputError, match="'roads': the value 7 at row 90, column 3 .*scale=100"):
        made.compute(scheduler="sync")
    with pytest.raises(InputError, match="'roads': no confidences in"):
        refine_dataarray(array.compute(), model=tiny_model, tiling=SMALL)


def test_a_width_is_measured_in_one_computation_where_pixels_have_no_size() -> None:
    values = road_confidence(700, 700)
    array = xr.DataArray(da.from_array(values, 350), dims=("y", "x"))
    watched = Watched(values, 350)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lazy = refine_dataarray(watched.array)
        eager_patch = refine_dataarray(array, refining=Refining(resolution="auto"))
    assert sorted(watched.computed) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert lazy.GEOTHRESH_RESAMPLING == eager_patch.GEOTHRESH_RESAMPLING


# -- values on a template ------------------------------------------------------------------------


@pytest.fixture
def template(tmp_path: Path) -> Callable[..., xr.DataArray]:
    """Opens an image of integers as rioxarray does, with missing values as NaN."""

    def open_image(dtype: str, chunks: dict[str, int] | None) -> xr.DataArray:
        image = np.random.default_rng(0).integers(0, 200, (96, 96)).astype(dtype)
        path = write_raster(tmp_path / "image.tif", image, nodata=255)
        found = rioxarray.open_rasterio(path, masked=True, chunks=chunks)
        assert isinstance(found, xr.DataArray) and found.encoding
        return found

    return open_image


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("chunks", [None, {"x": 40, "y": 32}])
def test_probabilities_on_a_template_are_what_they_are(
    template: Callable[..., xr.DataArray],
    tiny_model: Path,
    dtype: str,
    chunks: dict[str, int] | None,
) -> None:
    values = road_confidence(96, 96)
    values[5:9, 5:9] = np.nan
    image = template(dtype, chunks)
    data = values[None] if chunks is None else da.from_array(values[None], (1, 32, 40))
    made = refine_dataarray(image.copy(data=data), model=tiny_model, tiling=SMALL)
    plain = refine_dataarray(
        image.drop_encoding().copy(data=values[None]), model=tiny_model, tiling=SMALL
    )
    assert made.GEOTHRESH_SCALING == plain.GEOTHRESH_SCALING == "float32 in [0, 1], as it is"
    assert (made.chunks is None) == (chunks is None)
    np.testing.assert_array_equal(made, plain)


def test_the_whole_numbers_of_a_file_keep_its_type(
    template: Callable[..., xr.DataArray], tiny_model: Path
) -> None:
    image = template("uint8", None)
    for chunks in (None, 32):
        made = refine_dataarray(
            image if chunks is None else image.chunk(chunks), model=tiny_model, tiling=SMALL
        )
        assert made.GEOTHRESH_SCALING == "uint8 / 255"
    with pytest.raises(InputError, match=r"the band is uint16 .*scale=255"):
        refine_dataarray(template("uint16", None), model=tiny_model, tiling=SMALL)
    # 0 and 255 among others are no mask that was cut.
    with warnings.catch_warnings():
        warnings.simplefilter("error", GeothreshWarning)
        wide = image.copy(data=np.linspace(0, 255, 96 * 96).round().reshape(1, 96, 96))
        refine_dataarray(wide, model=tiny_model, tiling=SMALL)


def test_percent_on_a_template_is_no_uint8(
    template: Callable[..., xr.DataArray], tiny_model: Path
) -> None:
    percent = template("uint8", None).copy(data=road_confidence(96, 96)[None] * 100)
    with pytest.raises(InputError, match=r"no confidences in \[0, 1\].*scale=100"):
        refine_dataarray(percent, model=tiny_model, tiling=SMALL)
    made = refine_dataarray(percent, model=tiny_model, tiling=SMALL, reading=Reading(scale=100))
    assert made.GEOTHRESH_SCALING == "value / 100, as asked"


def test_probabilities_that_no_sample_met_are_an_error_of_the_computation(
    template: Callable[..., xr.DataArray], tiny_model: Path
) -> None:
    values = np.zeros((1, 96, 96), np.float32)
    # Of 24 chunks of 4 rows, 16 are sampled.
    unseen = min(set(range(24)) - set(evenly_spread(24, 16).tolist()))
    values[0, 4 * unseen, 50] = 0.5
    lazy = template("uint8", None).copy(data=da.from_array(values, (1, 4, 96)))
    made = refine_dataarray(lazy, model=tiny_model, tiling=SMALL)
    assert made.GEOTHRESH_SCALING == "uint8 / 255"
    with pytest.raises(InputError, match=r"not whole numbers of uint8 .*clear the encoding"):
        made.compute(scheduler="sync")


# -- what is refused -----------------------------------------------------------------------------

PLAIN = xr.DataArray(coordinate_array(40, 40), dims=("y", "x"))


def mapped(transform: Any) -> xr.DataArray:
    about = {"crs_wkt": rasterio.CRS.from_epsg(32632).to_wkt(), "GeoTransform": transform}
    return PLAIN.assign_coords(spatial_ref=xr.DataArray(0, attrs=about))


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_the_numbers_of_a_grid_mapping_may_be_a_list(kind: Callable[..., Any]) -> None:
    numbers = [500_000.0, 2.0, 0.0, 5_600_000.0, 0.0, -2.0]
    text = " ".join(map(str, numbers))
    assert Plane.of(mapped(kind(numbers))).box() == Plane.of(mapped(text)).box()


@pytest.mark.parametrize(
    ("array", "options", "error", "message"),
    [
        (PLAIN.to_numpy(), {}, InputError, "ndarray is no xarray.DataArray.*refine_array"),
        (PLAIN[0], {}, InputError, r"shape \(40,\); give rows x columns"),
        (PLAIN[:0], {}, InputError, "at least 1 x 1"),
        (PLAIN > 0, {}, InputError, "of dtype bool; give numbers"),
        (PLAIN.expand_dims(band=3), {}, InputError, r"3 layers along 'band'.*isel\(band=0\)"),
        (PLAIN, {"layer": "changes"}, UsageError, "`layer` changes: give confidence or mask"),
        (PLAIN, {"reading": Reading(bidx=1)}, UsageError, "`bidx` is for files"),
        (PLAIN, {"refining": Refining(threshold=0.4)}, UsageError, '`threshold`.*layer="mask"'),
        (PLAIN, {"compute": Compute(workers=2)}, UsageError, "`workers` is for files"),
        (PLAIN, {"ground_sample_distance": -1.0}, UsageError, "give a number above 0"),
        (PLAIN, {"threshold": 0.4}, UsageError, r"in a class: refining=Refining\(threshold="),
        (PLAIN, {"reading": Reading(scale=0.5)}, InputError, "DataArray: `scale=0.5` does not fit"),
        (PLAIN.chunk(20), {"progress": print}, UsageError, "ProgressBar"),
        (PLAIN.assign_attrs(_FillValue="none"), {}, InputError, "its attribute _FillValue holds"),
        (PLAIN.assign_attrs(missing_value=[1.0, 2.0]), {}, InputError, "missing_value holds"),
        (PLAIN.assign_attrs(scale_factor="x"), {}, InputError, "its attribute scale_factor holds"),
        (PLAIN.astype("complex64").assign_attrs(_FillValue=0), {}, InputError, "a real number"),
        (mapped("1, 2, 3"), {}, InputError, "its attribute GeoTransform holds '1,'"),
    ],
)
def test_what_is_refused(
    array: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        refine_dataarray(array, model=UnevenRefiner(), tiling=SMALL, **options)


def test_geothresh_does_without_xarray() -> None:
    code = """
import sys
sys.modules["xarray"] = None
import geothresh
assert geothresh.refine_dataarray
try:
    geothresh.refine_dataarray(None)
except geothresh.UsageError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (
        "xarray is not installed; install it with: pip install 'geothresh[xarray]'"
    )


def test_the_accessor_says_what_it_does() -> None:
    assert "Refine a DataArray" in (PLAIN.geothresh.refine.__doc__ or "")
    with dask.config.set(scheduler="sync"):
        made = PLAIN.chunk(20).geothresh.refine(model=UnevenRefiner(), tiling=SMALL)
        expected = mosaic_array(PLAIN.to_numpy(), UnevenRefiner(), tile=32, overlap=16)
        np.testing.assert_array_equal(made, expected)


def test_an_array_of_one_band_is_refused_with_advice() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 40, 40\).*confidence.squeeze\(0\)"):
        refine_array(PLAIN.to_numpy()[None], model=UnevenRefiner(), tiling=SMALL)


def test_the_examples_of_the_docs_run(
    scene: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scene("uint8", 255).parent
    monkeypatch.chdir(folder)
    text = (Path(geothresh.__file__).parents[1] / "docs" / "xarray.md").read_text("utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    with rasterio.open("mask.tif") as written, rasterio.open("scene.tif") as source:
        assert (written.transform, written.crs, written.nodata) == (
            source.transform, source.crs, 255,
        )  # fmt: skip
    assert names["part"].shape == (1, 100, 150)
