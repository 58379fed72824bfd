"""From a mask on the disk to polygons: the laws, and naive twins over the whole array."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage

from geothresh import Foreground, Reading, vectorize
from geothresh.errors import GeothreshError, GeothreshWarning, InputError, UsageError
from geothresh.raster import mask as masks
from geothresh.raster.dataset import BlockLayout
from geothresh.raster.features import confidence_sums, mask_outlines
from geothresh.raster.gdal import gdal_environment
from geothresh.raster.mask import open_mask
from geothresh.raster.regions import RegionSums
from geothresh.raster.scene import open_scene
from geothresh.vector.polygons import (
    PolygonBatch,
    repaired,
)
from geothresh.vector.units import MapUnits
from geothresh.windows import RasterSize
from tests.support.polygons import TRANSFORMS, UTM, opened, polygons_of, random_mask, write
from tests.support.rasters import write_raster

CHECKERBOARD = (np.indices((9, 12)).sum(axis=0) % 2).astype(np.uint8)
RINGS = np.zeros((13, 13), np.uint8)
for _edge in range(0, 6, 2):
    RINGS[_edge : 13 - _edge, _edge : 13 - _edge] = 1
    RINGS[_edge + 1 : 12 - _edge, _edge + 1 : 12 - _edge] = 0
# A ring whose hole, and whose outside, touch it at one corner.
PINCHED = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]], np.uint8)
PINCHED_LOOP = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], np.uint8)


def burned(geometry: Any, shape: tuple[int, int], transform: Affine) -> NDArray[np.uint8]:
    if not len(geometry):
        return np.zeros(shape, np.uint8)
    return rasterize([(one, 1) for one in geometry], out_shape=shape, transform=transform)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("polygons")


@given(
    seed=st.integers(0, 2**20),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    density=st.floats(0, 1),
    transform=st.sampled_from(sorted(TRANSFORMS)),
)
def test_burning_the_polygons_gives_the_mask_back(
    folder: Path, seed: int, height: int, width: int, density: float, transform: str
) -> None:
    mask = random_mask(seed, height, width, density)
    path = write(folder / "law.tif", mask, transform=TRANSFORMS[transform])
    batch, grid = polygons_of(path)
    check_laws(mask, batch, grid)


@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
@pytest.mark.parametrize(
    "mask",
    [
        CHECKERBOARD, RINGS, PINCHED, PINCHED_LOOP,
        np.ones((40, 33), np.uint8), np.ones((1, 1), np.uint8), np.zeros((20, 20), np.uint8),
    ],
    ids=["checkerboard", "rings", "pinched", "pinched-loop", "all", "one-pixel", "none"],
)  # fmt: skip
def test_awkward_masks(tmp_path: Path, mask: NDArray[np.uint8], transform: str) -> None:
    path = write(tmp_path / "mask.tif", mask, transform=TRANSFORMS[transform])
    check_laws(mask, *polygons_of(path))


def check_laws(mask: NDArray[np.uint8], batch: PolygonBatch, transform: Affine) -> None:
    labels, count = ndimage.label(mask)
    assert len(batch.geometry) == count
    assert shapely.is_valid(batch.geometry).all()
    assert set(shapely.get_type_id(batch.geometry)) <= {3}
    np.testing.assert_array_equal(burned(batch.geometry, mask.shape, transform), mask)
    area = mask.sum() * abs(transform.determinant)
    assert batch.area.sum() == pytest.approx(area, rel=1e-12, abs=0)
    assert shapely.area(batch.geometry).sum() == pytest.approx(area, rel=1e-9, abs=0)
    np.testing.assert_allclose(batch.perimeter, shapely.length(batch.geometry))
    # In reading order of the first pixels, each of which is its own region's.
    firsts = [np.flatnonzero(labels == label)[0] for label in range(1, count + 1)]
    np.testing.assert_array_equal(batch.first_pixel, sorted(firsts))


@given(
    seed=st.integers(0, 2**20),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    density=st.floats(0, 1),
    cuts=st.lists(st.integers(1, 8), min_size=30, max_size=30),
)
def test_sums_over_strips_equal_sums_over_labels(
    seed: int, height: int, width: int, density: float, cuts: list[int]
) -> None:
    mask = random_mask(seed, height, width, density).astype(bool)
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), dtype=np.float32)
    valid = rng.random((height, width)) < 0.8
    sums = RegionSums(width)
    row = 0
    for cut in cuts:
        part = slice(row, row + cut)
        if row < height:
            sums.add(mask[part], values[part], valid[part])
        row += cut
    table = sums.finish()

    labels, count = ndimage.label(mask)
    regions = [labels == label for label in range(1, count + 1)]
    regions.sort(key=lambda region: int(np.flatnonzero(region)[0]))
    assert table.first.tolist() == [np.flatnonzero(region)[0] for region in regions]
    assert table.pixels.tolist() == [region.sum() for region in regions]
    assert table.measured.tolist() == [(region & valid).sum() for region in regions]
    inside = [values[region & valid].astype(np.float64) for region in regions]
    nan = np.nan
    np.testing.assert_allclose(table.mean, [v.mean() if v.size else nan for v in inside])
    np.testing.assert_array_equal(table.least, [v.min() if v.size else nan for v in inside])
    # In steps of 1 / 254, rounded: the least step that a tenth of the values do not exceed.
    steps = [np.rint(v.astype(np.float32) * 254) / 254 for v in inside]
    tenths = [np.quantile(v, 0.1, method="inverted_cdf") if v.size else nan for v in steps]
    np.testing.assert_allclose(table.tenth, tenths)


def test_sums_over_noise_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    mask, values = rng.random((512, 1024)) < 0.3, rng.random((512, 1024), dtype=np.float32)
    sums = RegionSums(1024)
    tracemalloc.start()
    try:
        sums.add(mask, values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * mask.size  # a table of 255 steps of each region would take more


def test_a_polygon_without_its_region_is_a_fault_of_ours() -> None:
    sums = RegionSums(4)
    sums.add(np.array([[True, False, False, True]]))
    table = sums.finish()
    assert np.isnan(table.mean[table.rows(np.array([3, 0]))]).all()
    for stranger in (1, 2, 9):
        with pytest.raises(GeothreshError, match="1 of 2 polygons"):
            table.rows(np.array([0, stranger]))


@pytest.mark.parametrize("stored", ["float32", "nan", "uint8", "refined", "none-valid"])
def test_confidence_means_equal_the_naive_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    monkeypatch.setattr(masks, "_STRIP_PIXELS", 61 * 7)  # strips of 7 rows, against blocks of 16
    rng = np.random.default_rng(5)
    mask = random_mask(4, 53, 61, 0.55)
    mask[20:30] = 0
    valid = np.ones(mask.shape, bool)
    options: dict[str, Any] = {}
    if stored == "float32":
        raw = rng.random(mask.shape, dtype=np.float32)
        real = raw.astype(float)
    elif stored == "uint8":
        raw = rng.integers(0, 256, mask.shape).astype(np.uint8)
        real = raw / 255
    elif stored == "refined":
        raw = rng.integers(0, 256, mask.shape).astype(np.uint8)
        real, options, valid = raw / 254, {"nodata": 255, "scale": 1 / 254}, raw != 255
    else:
        raw = rng.random(mask.shape, dtype=np.float32)
        raw[rng.random(mask.shape) < (2 if stored == "none-valid" else 0.3)] = np.nan
        real, options, valid = raw.astype(float), {}, ~np.isnan(raw)
    path = write(tmp_path / "mask.tif", mask)
    confidence = write(tmp_path / "confidence.tif", raw, **options)

    with opened(path) as opened_mask, open_scene(confidence) as scene:
        scene.box.require_same(opened_mask.box)
        table = confidence_sums(opened_mask, scene)
    batch, _ = polygons_of(path)
    found = table.mean[table.rows(batch.first_pixel)]

    labels, _ = ndimage.label(mask)
    names = labels.ravel()[batch.first_pixel]
    for mean, name in zip(found, names, strict=True):
        inside = real[(labels == name) & valid]
        assert mean == pytest.approx(
            inside.mean() if inside.size else np.nan, rel=1e-6, nan_ok=True
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transform": Affine(10.0, 0.0, 5e5 + 10, 0.0, -10.0, 6e6)}, ["lies 1 pixels off"]),
        ({"crs": "EPSG:32634"}, ["EPSG:32634", "EPSG:32633"]),
    ],
)
def test_another_grid_is_refused_with_both_numbers(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    path = write(tmp_path / "mask.tif", np.ones((20, 30), np.uint8))
    values = np.full((20, 30), 0.5, np.float32)
    other = write(tmp_path / "other.tif", values, **change)
    small = write(tmp_path / "small.tif", values[:, 1:])
    with open_mask(path) as mask, open_scene(other) as elsewhere, open_scene(small) as smaller:
        with pytest.raises(InputError) as caught:
            elsewhere.box.require_same(mask.box)
        assert all(word in str(caught.value) for word in words)
        with pytest.raises(InputError, match="29 x 20 pixels, and"):
            smaller.box.require_same(mask.box)


def test_how_confidences_are_stored_can_be_said(tmp_path: Path) -> None:
    levels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 10
    levels[0, 0] = 60_000
    file = write(tmp_path / "levels.tif", levels, nodata=None)
    expected = np.count_nonzero((levels >= 3000) & (levels < 60_000))
    reading = Reading(scale=6000.0, nodata=60_000.0)
    made = vectorize(
        file, tmp_path / "a.gpkg", foreground=Foreground(threshold=0.5), reading=reading
    )
    assert made.foreground_pixels == expected
    mask = write(tmp_path / "mask.tif", (levels >= 3000).astype(np.uint8))
    vectorize(mask, tmp_path / "b.gpkg", confidence=file, reading=reading)
    with pytest.raises(UsageError, match="add `threshold` or `confidence"):
        vectorize(mask, tmp_path / "c.gpkg", reading=Reading(scale=6000.0))


def test_long_edges_are_measured_along_the_parallel(tmp_path: Path) -> None:
    """The shortest way between their ends runs nearer to the pole."""
    units = MapUnits.of(CRS.from_epsg(4326).to_wkt())
    whole = np.array([shapely.box(0, 60, 10, 70)], object)
    strips = shapely.box(np.arange(0, 10, 0.1), 60, np.arange(0, 10, 0.1) + 0.1, 70)
    assert units.areas(whole)[0] == pytest.approx(units.areas(strips).sum(), rel=1e-6)
    edge = np.array([shapely.LineString([(0, 70), (10, 70)])], object)
    radius = (
        6378137 * np.cos(np.radians(70)) / np.sqrt(1 - 0.00669438 * np.sin(np.radians(70)) ** 2)
    )
    assert units.lengths(edge)[0] == pytest.approx(radius * np.radians(10), rel=1e-6)


def test_foreground_that_is_tagged_as_nodata_is_warned_of(tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.tif", random_mask(1, 20, 30, 0.5), nodata=1)
    with pytest.warns(GeothreshWarning, match="1 is tagged as nodata"):
        made = vectorize(mask, tmp_path / "a.gpkg")
    assert made.features == 0


@pytest.mark.parametrize("kind", ["uint8-untagged", "uint8-tagged", "int16", "mask-band", "alpha"])
def test_nodata_is_no_foreground(tmp_path: Path, kind: str) -> None:
    mask = random_mask(1, 40, 40, 0.5)
    hole = np.zeros(mask.shape, bool)
    hole[5:20, 10:35] = True
    expected = np.where(hole, 0, mask)
    path = tmp_path / "mask.tif"
    if kind.startswith("uint8"):
        tag = {"nodata": 255} if kind == "uint8-tagged" else {}
        write(path, np.where(hole, 255, mask).astype(np.uint8), **tag)
    elif kind == "int16":
        write(path, np.where(hole, np.int16(-7), mask.astype(np.int16)), nodata=-7)
    else:
        write_masked(path, mask, hole, alpha=kind == "alpha")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GeothreshWarning)
        batch, transform = polygons_of(path)
    assert any("255 occurs beside 1" in str(w.message) for w in caught) == (
        kind == "uint8-untagged"
    )
    np.testing.assert_array_equal(burned(batch.geometry, mask.shape, transform), expected)
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".tmp"] == []


def write_masked(path: Path, mask: NDArray[Any], hole: NDArray[np.bool_], *, alpha: bool) -> None:
    opaque = np.where(hole, 0, 255).astype(np.uint8)
    place: dict[str, Any] = {"crs": UTM, "transform": TRANSFORMS["north-up"]}
    if alpha:
        write_raster(path, np.stack([mask, opaque]), alpha="yes", **place)
    else:
        write_raster(path, mask, mask=opaque, **place)


@pytest.mark.parametrize("zeros", [True, False])
def test_untagged_255_is_foreground_where_there_is_no_1(tmp_path: Path, zeros: bool) -> None:
    mask = random_mask(1, 30, 20, 0.5) if zeros else np.ones((30, 20), np.uint8)
    path = write(tmp_path / "mask.tif", mask * np.uint8(255))
    with pytest.warns(GeothreshWarning, match="255 is taken as foreground"):
        batch, transform = polygons_of(path)
    np.testing.assert_array_equal(burned(batch.geometry, mask.shape, transform), mask)


def test_tagged_255_is_nodata(tmp_path: Path) -> None:
    path = write(tmp_path / "mask.tif", np.full((9, 9), 255, np.uint8), nodata=255)
    with pytest.warns(GeothreshWarning, match="no pixel is foreground"):
        assert len(polygons_of(path)[0].geometry) == 0


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.full((20, 20), 0.5, np.float32), {}, "the band is float32"),
        (np.full((20, 20), 7, np.uint8), {}, "the value 7 at row 0, column 0"),
        (np.ones((20, 20), np.uint8), {"scale": 1 / 254, "nodata": 255}, "a scale of 0.003937"),
    ],
)
def test_confidences_need_a_threshold(
    tmp_path: Path, values: NDArray[Any], options: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "confidence.tif", values, **options)
    with pytest.raises(InputError, match=words) as caught:
        polygons_of(path)
    assert "`threshold" in str(caught.value)


def test_threshold_cuts_at_or_above_it(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 30 * 21, dtype=np.float32).reshape(30, 21)
    values[4, 4] = np.float32(0.7)
    values[9:12, 3:9] = np.nan
    path = write(tmp_path / "confidence.tif", values)
    batch, transform = polygons_of(path, threshold=0.7)
    expected = np.nan_to_num(values) >= np.float32(0.7)
    assert expected[4, 4]
    np.testing.assert_array_equal(burned(batch.geometry, values.shape, transform), expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["confidence.tif"]
    with pytest.raises(UsageError, match="not in"):
        polygons_of(path, threshold=1.5)


def test_small_polygons_are_left_out_by_their_area_on_the_ground(tmp_path: Path) -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[2:4, 2:4] = mask[10:15, 10:15] = 1
    mask[20, 20] = 1
    path = write(tmp_path / "mask.tif", mask)
    batch, _ = polygons_of(path, min_area=400.0)
    assert batch.area.tolist() == [400.0, 2500.0]
    assert (batch.left_out, batch.pixels) == (1, 30)
    degrees = write(
        tmp_path / "degrees.tif", mask, crs="EPSG:4326", transform=Affine(1e-4, 0, 11, 0, -1e-4, 60)
    )
    # 1e-4 degrees are 11.1 m to the north, but half of that to the east.
    batch, _ = polygons_of(degrees, min_area=100.0)
    assert batch.left_out == 1
    np.testing.assert_allclose(batch.area, [4 * 11.14 * 5.58, 25 * 11.14 * 5.58], rtol=5e-3)


def test_areas_and_perimeters_on_the_ellipsoid_are_those_of_pyproj(tmp_path: Path) -> None:
    mask = RINGS.repeat(3, axis=0).repeat(3, axis=1)
    for epsg, south in ((4326, 60.0), (4326, -33.0), (4258, 0.0)):
        transform = Affine(2e-4, 0, 11, 0, -1e-4, south)
        path = write(tmp_path / "mask.tif", mask, crs=f"EPSG:{epsg}", transform=transform)
        batch, _ = polygons_of(path)
        geod = CRS.from_epsg(epsg).get_geod()
        for polygon, area, perimeter in zip(
            batch.geometry, batch.area, batch.perimeter, strict=True
        ):
            # pyproj subtracts holes that run the other way round, and leaves their length out.
            expected, outer = geod.geometry_area_perimeter(shapely.geometry.polygon.orient(polygon))
            inner = np.sum([geod.geometry_length(ring) for ring in polygon.interiors])
            assert area == pytest.approx(expected, rel=1e-9)
            assert perimeter == pytest.approx(outer + inner, rel=1e-9)


@pytest.mark.parametrize(
    ("epsg", "metre"), [(32633, 1.0), (2263, 1200 / 3937), (2225, 1200 / 3937), (27700, 1.0)]
)
def test_projected_units_become_metres(tmp_path: Path, epsg: int, metre: float) -> None:
    mask = random_mask(3, 20, 20, 0.6)
    path = write(tmp_path / "mask.tif", mask, crs=f"EPSG:{epsg}")
    batch, _ = polygons_of(path)
    assert batch.area.sum() == pytest.approx(mask.sum() * (10 * metre) ** 2, rel=1e-9)
    np.testing.assert_allclose(batch.perimeter, shapely.length(batch.geometry) * metre)


def test_names_say_the_unit() -> None:
    utm = MapUnits.of(CRS.from_epsg(32633).to_wkt())
    assert (utm.area_field, utm.perimeter_field) == ("area_m2", "perimeter_m")
    with pytest.warns(GeothreshWarning, match="no CRS"):
        unknown = MapUnits.of(None)
    assert (unknown.area_field, unknown.perimeter_field) == ("area_units2", "perimeter_units")
    pixels = MapUnits.of(None, pixels=True)
    assert (pixels.area_field, pixels.perimeter_field) == ("area_px2", "perimeter_px")
    with pytest.warns(GeothreshWarning, match="grow away from the equator"):
        MapUnits.of(CRS.from_epsg(3857).to_wkt())
    with pytest.warns(GeothreshWarning, match="grow away from the equator"):
        MapUnits.of(CRS.from_user_input("EPSG:3857+5773").to_wkt())  # with heights
    with pytest.raises(InputError, match="cannot be read"):
        MapUnits.of("no CRS at all")
    with pytest.raises(InputError, match="geocentric"):
        MapUnits.of(CRS.from_epsg(4978).to_wkt())


def test_a_repair_keeps_the_area_and_nothing_but_areas() -> None:
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    spike = shapely.Polygon([(0, 0), (4, 0), (4, 4), (4, 0), (4, 4), (0, 4)])
    flat = shapely.Polygon([(0, 0), (1, 1), (0, 0)])
    good = shapely.box(0, 0, 1, 1)
    mended = repaired(np.array([bow_tie, spike, flat, good], dtype=object))
    assert shapely.is_valid(mended).all()
    assert shapely.area(mended).tolist() == [2.0, 16.0, 0.0, 1.0]
    assert shapely.get_type_id(mended).tolist() == [6, 3, 3, 3]
    assert mended[3] is good


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the bytes read are Linux's to tell")
def test_each_block_is_read_once_for_all_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of blocks that did not fit in the cache was decoded again and again.

    Once for each strip, by the pass that counts and by the one that outlines.
    """
    monkeypatch.setattr(masks, "_STRIP_PIXELS", 32 * 8192)
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    values = np.zeros((512, 8192), np.uint8)
    values[100:400:7] = 1
    path = write_raster(tmp_path / "wide.tif", values, **blocks)
    before = _bytes_read()
    with gdal_environment(cache_bytes=1 << 20), open_mask(path) as mask:
        count = sum(len(some.polygons) - 1 for some in mask_outlines(mask))
    assert count == 43
    assert _bytes_read() - before < 4 * values.nbytes


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_claim_of_any_width_takes_a_bounded_cache() -> None:
    size = RasterSize(height=10, width=2_000_000_000)
    layout = BlockLayout(size=size, part_height=512, part_width=512)
    assert layout.row_cache(np.dtype(np.uint8)) == 512 << 20
