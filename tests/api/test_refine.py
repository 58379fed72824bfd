"""`refine` and `refine_array` with refiners that need no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

import geothresh
from geothresh.errors import GeothreshWarning, InputError
from geothresh.mosaic import ArrayReader
from geothresh.options import Compute, Outputs, Refining, Tiling, Writing
from geothresh.raster.georeference import Georeference
from geothresh.run.changes import ThresholdedInput
from geothresh.windows import PixelWindow
from tests.support.fakes import FakeSource, IdentityRefiner, UnevenRefiner
from tests.support.flat import grouped
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster
from tests.support.refining import SMALL, InvertingRefiner, pixels, refine, smooth
from tests.support.thresholds import naive_best

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_other_rasters_say_what_changed_and_which_threshold_does_most_of_it(
    tmp_path: Path, workers: int
) -> None:
    values = smooth(530, 700)
    values[300:340, 200:500] = np.nan
    scene = write_raster(tmp_path / "scene.tif", values)
    done = refine(
        scene,
        model=FakeSource(kind="uneven"),
        outputs=Outputs(changes=tmp_path / "d.tif", thresholds=tmp_path / "t.tif"),
        compute=Compute(workers=workers),
        writing=Writing(creation_options={"BLOCKXSIZE": "48", "BLOCKYSIZE": "80"}),
    )
    mask, changes, thresholds = map(pixels, (done.mask, done.changes, done.thresholds))
    valid, before = np.isfinite(values), values >= 0.5
    expected = np.select([~valid, (mask == 1) & ~before, (mask == 0) & before], [255, 1, 2], 0)
    np.testing.assert_array_equal(changes, expected)
    for row in range(0, 530, 64):
        for col in range(0, 700, 64):
            cell = np.s_[row : row + 64, col : col + 64]
            inside = valid[cell]
            best = naive_best(values[cell][inside], mask[cell][inside] == 1)
            assert (thresholds[cell][inside] == round(100 * float(best))).all()
            assert (thresholds[cell][~inside] == 255).all()
    with rasterio.open(done.thresholds) as dataset:
        assert dataset.scales == (0.01,) and dataset.nodata == 255
    assert without_sides(tmp_path) == [
        "d.tif", "scene.tif", "scene_mask.manifest.json", "scene_mask.tif", "t.tif",
    ]  # fmt: skip


@settings(max_examples=25)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    overlap=st.sampled_from([0, 16, 32, 48]),
    blend=st.sampled_from(["hann", "gaussian", "linear", "crop"]),
    batch_size=st.sampled_from(["auto", 1, 3]),
    dtype=st.sampled_from(["uint8", "float32"]),
    turn=st.sampled_from([0.0, 33.0]),
    south_up=st.booleans(),
    crs=st.sampled_from([None, "EPSG:32632"]),
    block=st.sampled_from([16, 48, 512]),
)
def test_coordinates_come_back_unmoved(  # noqa: PLR0913 - one for each that hypothesis draws
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    overlap: int,
    blend: Any,
    batch_size: Any,
    dtype: str,
    turn: float,
    south_up: bool,
    crs: str | None,
    block: int,
) -> None:
    """Each pixel encodes its place; an identity refiner must leave all of them where they are."""
    folder = tmp_path_factory.mktemp("unmoved")
    place = np.arange(height * width).reshape(height, width)
    if dtype == "uint8":
        values = (place * 37 % 256).astype(np.uint8)
        confidence = values / np.float32(255)
    else:
        values = confidence = (place / (height * width)).astype(np.float32)
    transform = (
        Affine.translation(431_234.5, 5_812_345.25)
        @ Affine.rotation(turn)
        @ Affine.scale(0.5, 0.7 if south_up else -0.7)
    )
    scene = write_raster(folder / "scene.tif", values, crs=crs, transform=transform)
    result = refine(
        scene,
        outputs=Outputs(confidence=folder / "c.tif"),
        tiling=Tiling(tile_size=64, overlap=overlap, blend=blend),
        compute=Compute(batch_size=batch_size),
        writing=Writing(creation_options={"BLOCKXSIZE": str(block), "BLOCKYSIZE": str(block)}),
    )
    found = pixels(result.confidence)
    assert np.abs(found / 254 - confidence).max() <= 0.5 / 254 + 1e-6
    mask = pixels(result.mask)
    # The identity itself is exact to 2**-23 only, so that pixels at the threshold may fall.
    clear = np.abs(confidence - 0.5) > 1e-6
    np.testing.assert_array_equal(mask[clear], confidence[clear] >= 0.5)
    with rasterio.open(scene) as dataset:
        box = Georeference.of(dataset)
    for path in (result.mask, result.confidence):
        with rasterio.open(path) as dataset:
            assert Georeference.of(dataset) == box
    assert without_sides(folder) == [
        "c.tif",
        "scene.tif",
        "scene_mask.manifest.json",
        "scene_mask.tif",
    ]


def test_the_result_tells_what_was_done(tmp_path: Path) -> None:
    values = smooth(100, 140)
    values[:, 130:] = np.nan
    scene = write_raster(tmp_path / "a.b.tif", values)
    seen: list[tuple[int, int]] = []
    result = refine(
        scene,
        model=InvertingRefiner(16),
        progress=lambda done, total: seen.append((done, total)),
        refining=Refining(threshold=0.7),
    )
    before = values[:, :130] >= 0.7
    after = 1 - values[:, :130] >= np.float32(0.7)
    assert result.mask == tmp_path / "a.b_mask.tif"
    np.testing.assert_array_equal(pixels(result.mask)[:, :130], after)
    assert (pixels(result.mask)[:, 130:] == 255).all()
    assert result.confidence is None and result.vector is None and result.features is None
    assert (result.height, result.width, result.pixels) == (100, 140, 14_000)
    assert result.valid_pixels == 13_000
    assert result.foreground_before == before.sum()
    assert result.foreground_after == after.sum()
    assert result.changed_pixels == (before != after).sum()
    assert result.tiles == result.tiles_refined + result.tiles_skipped == 6
    assert seen[-1] == (6, 6)
    assert result.model == "inverting" and result.threshold == 0.7
    facts = result.as_dict()
    assert facts["mask"] == str(result.mask) and facts["scaling"] == result.scaling


def test_tags_tell_how_the_files_were_made(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20), nodata=-1)
    result = refine(
        scene,
        outputs=Outputs(confidence=tmp_path / "c.tif"),
        refining=Refining(threshold=0.25),
        tiling=Tiling(tile_size=64, overlap=16, blend="linear"),
    )
    for path in (result.mask, result.confidence):
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
        assert tags["GEOTHRESH_VERSION"] == geothresh.__version__
        assert tags["GEOTHRESH_MODEL"] == "identity"
        assert tags["GEOTHRESH_THRESHOLD"] == "0.25"
        assert tags["GEOTHRESH_BLEND"] == "linear"
        assert tags["GEOTHRESH_TILE_SIZE"] == "64" and tags["GEOTHRESH_OVERLAP"] == "16"
        assert tags["GEOTHRESH_NODATA"] == "-1"
        assert tags["GEOTHRESH_SCALING"] == result.scaling


def test_the_size_of_an_output_depends_on_neither_overlap_nor_cache(tmp_path: Path) -> None:
    # Blocks that are written in parts leave their earlier forms in the file.
    scene = write_raster(tmp_path / "x.tif", smooth(1300, 2600))
    sizes = set()
    for overlap, cache in ((0, 64), (64, 64), (128, 64), (128, 1), (128, 512)):
        with rasterio.Env(GDAL_CACHEMAX=cache * 2**20):
            mask = refine(
                scene,
                tmp_path / "y.tif",
                tiling=Tiling(tile_size=256, overlap=overlap),
                writing=Writing(
                    overwrite=True, creation_options={"BLOCKXSIZE": "320", "BLOCKYSIZE": "320"}
                ),
            ).mask
        with rasterio.open(mask) as dataset:
            blocks = [
                [
                    int(dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1))
                    for what in ("OFFSET", "SIZE")
                ]
                for (row, column), _ in dataset.block_windows(1)
            ]
        # Tags, of which one tells the overlap, lie before and after; GDAL frames each block.
        taken = max(map(sum, blocks)) - blocks[0][0]
        sizes.add(taken)
        assert taken < sum(size for _, size in blocks) + 16 * len(blocks)
    assert len(sizes) == 1


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(150, 90))
    for name, batch in (("a.tif", 1), ("b.tif", 1)):
        refine(scene, tmp_path / name, model=UnevenRefiner(16), compute=Compute(batch_size=batch))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.catalogue(63)
def test_what_stands_under_a_hole_changes_nothing(tmp_path: Path) -> None:
    hole = np.zeros((120, 150), bool)
    hole[30:80, 40:120] = True
    hole[100, 3] = True
    found = []
    for number, (filler, nodata) in enumerate(
        [(-9999, -9999), (0, None), (1, None), (0.5, None), (np.nan, None), (np.inf, None)]
    ):
        values = smooth(120, 150)
        values[hole] = filler
        scene = write_raster(
            tmp_path / f"{number}.tif", values, nodata=nodata, mask=None if nodata else ~hole
        )
        result = refine(
            scene, model=UnevenRefiner(16), outputs=Outputs(confidence=tmp_path / f"{number}c.tif")
        )
        assert result.valid_pixels == (~hole).sum()
        found.append((pixels(result.mask), pixels(result.confidence)))
    for mask, confidence in found:
        assert ((mask == 255) == hole).all() and ((confidence == 255) == hole).all()
        np.testing.assert_array_equal(confidence, found[0][1])
        np.testing.assert_array_equal(mask, found[0][0])


def test_no_data_at_all(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", np.full((70, 80), np.nan, np.float32))
    refiner = IdentityRefiner(16)
    with pytest.warns(GeothreshWarning, match="no data at all"):
        result = geothresh.refine(scene, model=refiner, **grouped(**SMALL))
    assert refiner.tiles == 0 and result.tiles_refined == 0 and result.valid_pixels == 0
    assert (pixels(result.mask) == 255).all()


def test_warnings_are_shown_for_the_line_that_called(tmp_path: Path) -> None:
    values = np.full((70, 80), np.nan, np.float32)
    scene = write_raster(tmp_path / "x.tif", values, crs=None)
    with pytest.warns(GeothreshWarning) as caught:
        geothresh.refine(scene, model=IdentityRefiner(16), **grouped(**SMALL))
    told = [one for one in caught if issubclass(one.category, GeothreshWarning)]
    assert len(told) > 1
    assert {Path(one.filename) for one in told} == {Path(__file__)}


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_scenes(tmp_path: Path, value: float) -> None:
    scene = write_raster(tmp_path / "x.tif", np.full((70, 80), value, np.float32))
    assert (pixels(refine(scene, refining=Refining(threshold=0.4)).mask) == (value >= 0.4)).all()


def test_a_large_scene_of_many_chunks_is_counted_right(tmp_path: Path) -> None:
    values = DRAW.integers(0, 256, (1300, 900), dtype=np.uint8)
    scene = write_raster(tmp_path / "x.tif", values, tiled=True, compress="deflate")
    result = refine(scene, model=InvertingRefiner(16), tiling=Tiling(tile_size=256, overlap=64))
    before = values >= 127.5
    assert result.foreground_before == before.sum()
    assert result.foreground_after == (~before).sum()
    assert result.changed_pixels == values.size


def test_workers_give_the_same(tmp_path: Path) -> None:
    values = smooth(700, 100)
    values[:30] = np.nan
    scene = write_raster(tmp_path / "x.tif", values)
    local = refine(scene, tmp_path / "a.tif", model=FakeSource(kind="uneven"))
    remote = refine(
        scene, tmp_path / "b.tif", model=FakeSource(kind="uneven"), compute=Compute(workers=1)
    )
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    for name in ("valid_pixels", "foreground_before", "foreground_after", "changed_pixels"):
        assert getattr(local, name) == getattr(remote, name)


def test_an_open_dataset(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20))
    with rasterio.open(scene) as dataset:
        assert refine(dataset).mask == tmp_path / "x_mask.tif"


def test_the_mask_of_a_scene_named_by_its_url(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", smooth(20, 20))
    assert refine(scene.as_uri()).mask == tmp_path / "x_mask.tif"


def test_polygons_come_along(tmp_path: Path) -> None:
    values = np.zeros((40, 40), np.float32)
    values[5:10, 5:30] = values[20:30, 20:25] = 1
    scene = write_raster(tmp_path / "x.tif", values)
    result = refine(scene, outputs=Outputs(vector=tmp_path / "x.gpkg"))
    assert result.features == 2 and result.vector == tmp_path / "x.gpkg"
    assert without_sides(tmp_path) == ["x.gpkg", "x.tif", "x_mask.manifest.json", "x_mask.tif"]


def test_arrays(tmp_path: Path) -> None:
    values = smooth(90, 130)
    values[3, 4] = np.nan
    refined = geothresh.refine_array(values, model=IdentityRefiner(16), **grouped(**SMALL))
    assert refined.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(refined), np.isnan(values))
    assert np.nanmax(np.abs(refined - values)) < 1e-6
    masked = np.ma.masked_array(np.nan_to_num(values, nan=9.0), np.isnan(values))
    again = geothresh.refine_array(masked, model=IdentityRefiner(16), **grouped(**SMALL))
    np.testing.assert_array_equal(again, refined)
    assert masked.data[3, 4] == 9.0
    scene = write_raster(tmp_path / "x.tif", values)
    result = refine(scene, model=UnevenRefiner(16), outputs=Outputs(confidence=tmp_path / "c.tif"))
    array = geothresh.refine_array(values, model=UnevenRefiner(16), **grouped(**SMALL))
    valid = np.isfinite(array)
    found = pixels(result.confidence)
    assert np.abs(found[valid] / 254 - array[valid]).max() <= 0.5 / 254 + 1e-6
    with pytest.raises(InputError):
        geothresh.refine_array(values * 100, model=IdentityRefiner(16), **grouped(**SMALL))


@pytest.mark.parametrize(
    "given",
    [
        [["a", "b"], ["c", "d"]],
        [[None, 1.0], [0.2, 0.3]],
        [[1.0], [1.0, 0.5]],
        np.zeros((4, 4), complex),
        np.zeros((4, 4), np.uint8),
        0.5,
    ],
)
@pytest.mark.parametrize("model", ["roads-tiny", IdentityRefiner(16)])
def test_what_is_no_array_of_confidences_is_told(given: Any, model: Any) -> None:
    with pytest.raises(InputError, match="give"):
        geothresh.refine_array(given, model=model)


@given(st.data())
def test_the_thresholded_input_is_what_was_read(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    values = DRAW.random((height, width), np.float32)
    reader = ThresholdedInput(ArrayReader(values), 0.5)
    step = data.draw(st.integers(1, 15))
    windows = []
    for row in range(0, height, step):
        # In groups that overlap downwards, as the engine reads.
        start = 0
        while start < width:
            stop = data.draw(st.integers(start + 1, width))
            rows = min(2 * step, height - row)
            reader.read(PixelWindow(row=row, col=start, height=rows, width=stop - start))
            start = stop
        rows = min(step, height - row)
        middle = data.draw(st.integers(0, width - 1))
        for col, stop in ((0, middle), (middle, width)):
            if col < stop:
                windows.append(PixelWindow(row=row, col=col, height=rows, width=stop - col))
    # Several threads ask, so in any order.
    for window in data.draw(st.permutations(windows)):
        np.testing.assert_array_equal(reader.at(window), values[window.slices()] >= 0.5)
    assert not reader._seen, "all that was asked for is to be forgotten"
