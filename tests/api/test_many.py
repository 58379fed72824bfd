"""Many files as one surface: the same pixels as one run over all, whatever the cut."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geothresh import Many, RefineManyResult, refine
from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError
from geothresh.geobox import GeoBox
from geothresh.options import Outputs
from geothresh.tiling import TileGrid
from geothresh.windows import PixelWindow, RasterSize
from tests.support.fakes import Recognisable
from tests.support.flat import grouped
from tests.support.many import (
    TILES,
    VALUES,
    WINDOWS,
    read,
    run,
    scene_values,
    write_part,
    write_tiles,
)
from tests.support.rasters import NORTH_UP, write_raster

LAYERS = ("mask", "confidence", "changes")


def run_whole(values: NDArray[Any], folder: Path, **options: Any) -> dict[str, NDArray[Any]]:
    """The layers of one run over an array."""
    scene = write_raster(folder / "whole.tif", values)
    outputs = Outputs(confidence=folder / "whole_confidence.tif", changes=folder / "w_changes.tif")
    result = refine(
        scene, folder / "whole_mask.tif", model=Recognisable(), outputs=outputs,
        **grouped(**TILES | options),
    )  # fmt: skip
    paths = (result.mask, result.confidence, result.changes)
    return {layer: read(path) for layer, path in zip(LAYERS, paths, strict=True) if path}


def cut(sides: Sequence[int], total: int) -> list[tuple[int, int]]:
    """Stretches of a side, cut after so many pixels each."""
    ends = [*np.cumsum(sides)[np.cumsum(sides) < total].tolist(), total]
    return list(zip([0, *ends[:-1]], ends, strict=True))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, list[PixelWindow], list[bool]]:
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    side = st.lists(st.integers(1, 90), min_size=1, max_size=4)
    windows = [
        PixelWindow.between(top, bottom, left, right)
        for top, bottom in cut(draw(side), height)
        for left, right in cut(draw(side), width)
    ]
    there = draw(st.lists(st.booleans(), min_size=len(windows), max_size=len(windows)))
    if not any(there):
        there[0] = True
    return height, width, windows, there


@settings(max_examples=6)
@given(cuts())
def test_any_cut_gives_the_pixels_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[int, int, list[PixelWindow], list[bool]],
) -> None:
    """Uneven rows of files of uneven widths, and gaps where one is not there."""
    require_law(tmp_path_factory.mktemp("cut"), *drawn)


@pytest.mark.slow
@given(cuts())
def test_many_cuts_give_the_pixels_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[int, int, list[PixelWindow], list[bool]],
) -> None:
    require_law(tmp_path_factory.mktemp("cut"), *drawn)


def require_law(
    folder: Path, height: int, width: int, windows: list[PixelWindow], there: list[bool]
) -> None:
    values = scene_values(height, width)
    values[height // 3 : height // 2, width // 4 : width // 2] = np.nan
    files = {}
    seen = np.zeros((height, width), bool)
    for k, window in enumerate(windows):
        if there[k]:
            files[f"p{k}"] = window
            seen[window.slices()] = True
    # The union of those that are there may be smaller than the array.
    rows, cols = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    box = PixelWindow.between(rows[0], rows[-1] + 1, cols[0], cols[-1] + 1)
    paths = [write_part(folder / f"{name}.tif", values, files[name]) for name in files]
    whole = run_whole(np.where(seen, values, np.nan)[box.slices()], folder)
    result = run(paths, folder / "out", many=Many(layers="mask,confidence"))
    assert {part.name for part in result.parts} == set(files)
    for part in result.parts:
        window = files[part.name].seen_from(box)
        for layer, path in part.outputs.items():
            np.testing.assert_array_equal(read(path), whole[layer][window.slices()])
    valid = sum(part.valid_pixels for part in result.parts)
    assert result.valid_pixels == valid == int((whole["mask"] != 255).sum())


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    """The layers of one run over the scene."""
    return run_whole(VALUES, tmp_path_factory.mktemp("whole"))


def require_whole(result: RefineManyResult, whole: dict[str, NDArray[Any]]) -> None:
    for part in result.parts:
        for layer, path in part.outputs.items():
            expected = whole[layer][WINDOWS[part.name].slices()]
            np.testing.assert_array_equal(read(path), expected)


def contents(folder: Path) -> dict[str, bytes]:
    """The rasters of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tif"))}


def test_each_file_has_outputs_of_its_own_grid(
    tiles: Path, whole: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    layers = Many(layers="mask,confidence,changes")
    result = run([tiles], tmp_path / "out", many=layers, progress=lambda *at: told.append(at))
    assert [part.name for part in result.parts] == list(WINDOWS)
    require_whole(result, whole)
    for part in result.parts:
        with (
            rasterio.open(tiles / f"{part.name}.tif") as mine,
            rasterio.open(part.outputs["mask"]) as made,
        ):
            assert (made.transform, made.crs, made.shape) == (mine.transform, mine.crs, mine.shape)
    assert told == sorted(told) and told[-1][0] == told[-1][1] > 0
    assert json.dumps(result.as_dict(), allow_nan=False)
    assert result.scenes == 6 and result.surfaces == 1 and not result.bad


@pytest.mark.parametrize("ending", ["vrt", "gti.gpkg"])
def test_an_index_opens_as_one_raster(
    tiles: Path, whole: dict[str, NDArray[Any]], tmp_path: Path, ending: str
) -> None:
    result = run([tiles], tmp_path / "out")
    index = tmp_path / "out" / f"mask.{ending}"
    assert index in result.indexes
    with rasterio.Env() as env:
        if ending != "vrt" and "GTI" not in env.drivers():
            pytest.skip("this GDAL, older than 3.9, has no driver of tile indexes")
    with rasterio.open(index) as dataset:
        np.testing.assert_array_equal(dataset.read(1), whole["mask"])
        assert dataset.nodata == 255 and tuple(dataset.transform) == tuple(NORTH_UP)
        assert dataset.crs.to_epsg() == 32632


def test_tiles_of_small_files_are_refined_once(
    whole: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    """Each of them is seen by many files; here it was refined for each of these."""
    folder = tmp_path / "small"
    folder.mkdir()
    windows = {
        f"s{row:02d}_{col:02d}": PixelWindow(row=row * 20, col=col * 20, height=20, width=20)
        for row in range(5)
        for col in range(15)
    }
    for name, window in windows.items():
        write_part(folder / f"{name}.tif", VALUES, window)
    model = Recognisable()
    result = run([folder], tmp_path / "out", model=model, many=Many(layers="mask,confidence"))
    grid = TileGrid(size=RasterSize(height=100, width=300), tile=64, overlap=32, patch=16)
    assert model.tiles == grid.n_tiles == 27
    assert result.tiles_refined > 4 * grid.n_tiles
    assert [part.name for part in result.parts] == list(windows)
    for part in result.parts:
        for layer, path in part.outputs.items():
            np.testing.assert_array_equal(read(path), whole[layer][windows[part.name].slices()])


def test_where_files_overlap_their_own_data_comes_first(tmp_path: Path) -> None:
    """Two files of other values: what a tile sees of the common stretch is its own file's."""
    values = scene_values(100, 140)
    values[40:60, 60:75] = np.nan
    left, right = values[:, :90], 1 - values[:, 60:]
    right[10:20, 5:15] = np.nan  # where the other has data
    box = PixelWindow.between(0, 100, 60, 140)
    one = write_part(tmp_path / "a.tif", values, PixelWindow.between(0, 100, 0, 90))
    other = write_raster(
        tmp_path / "b.tif", right, transform=NORTH_UP @ NORTH_UP.translation(60, 0)
    )
    result = run([one, other], tmp_path / "out")
    seen = np.full((100, 140), np.nan, np.float32)
    seen[:, 60:], seen[:, :90] = right, np.where(np.isnan(left), seen[:, :90], left)
    mosaic = left
    first = seen.copy()
    first[:, :90] = np.where(np.isnan(mosaic), seen[:, :90], mosaic)
    (tmp_path / "first").mkdir()
    mask = run_whole(first, tmp_path / "first")["mask"][:, :90]
    mask[np.isnan(left)] = 255
    np.testing.assert_array_equal(read(result.parts[0].outputs["mask"]), mask)
    second = np.full((100, 140), np.nan, np.float32)
    second[:, :90] = left
    second[box.slices()] = np.where(np.isnan(right), second[box.slices()], right)
    (tmp_path / "second").mkdir()
    mask = run_whole(second, tmp_path / "second")["mask"][box.slices()]
    mask[np.isnan(right)] = 255
    np.testing.assert_array_equal(read(result.parts[1].outputs["mask"]), mask)


def test_pieces_of_one_file_are_the_file(whole: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "huge.tif", VALUES)
    many = Many(layers="mask,confidence,changes,thresholds", piece=64)
    result = run([scene], tmp_path / "out", many=many)
    assert [part.name for part in result.parts] == [
        f"huge_r{row}_c{col}" for row in range(2) for col in range(5)
    ]
    for layer in LAYERS:
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{layer}.vrt"), whole[layer])
    alone = refine(
        scene, tmp_path / "a.tif", model=Recognisable(),
        outputs=Outputs(thresholds=tmp_path / "t.tif"), **grouped(**TILES),
    )  # fmt: skip
    assert alone.thresholds is not None
    np.testing.assert_array_equal(read(tmp_path / "out/thresholds.vrt"), read(alone.thresholds))


def test_layers_are_those_that_are_asked_for(tiles: Path, tmp_path: Path) -> None:
    result = run([tiles], tmp_path / "out", many=Many(layers="changes"))
    assert list(result.parts[0].outputs) == ["mask", "changes"]
    with pytest.raises(UsageError, match="`layers=mask,roads`: 'roads' is none; name some of mask"):
        Many(layers="mask,roads")


def test_separately_each_file_is_refined_for_itself(tiles: Path, tmp_path: Path) -> None:
    result = run([tiles], tmp_path / "out", many=Many(separately=True))
    alone = refine(tiles / "p11.tif", tmp_path / "a.tif", model=Recognisable(), **grouped(**TILES))
    made = {part.name: part.outputs["mask"] for part in result.parts}
    np.testing.assert_array_equal(read(made["p11"]), read(alone.mask))
    assert result.surfaces == 6 and result.indexes == ()


def test_separately_each_file_says_itself_how_it_is_read(tmp_path: Path) -> None:
    rows, cols = np.mgrid[:50, :100]
    wave = 0.5 + 0.45 * np.sin(rows / 7) * np.cos(cols / 9)
    values = {
        "bytes": np.round(wave * 255).astype(np.uint8), "zero_one": (wave > 0.5).astype(np.uint8),
        "floats": wave.astype(np.float32),
    }  # fmt: skip
    files = [write_raster(tmp_path / f"{name}.tif", one) for name, one in values.items()]
    result = run(files, tmp_path / "out", many=Many(separately=True))
    for part in result.parts:
        mask = tmp_path / f"{part.name}_alone.tif"
        refine(part.scene, mask, model=Recognisable(), **grouped(**TILES))
        np.testing.assert_array_equal(read(part.outputs["mask"]), read(mask))
    together = run(files[:2], tmp_path / "together")
    found = {part.name: part.foreground_before for part in together.parts}
    assert found["bytes"] > 0 and found["zero_one"] == 0


def test_separately_a_file_without_confidences_is_skipped_alone(tmp_path: Path) -> None:
    good = write_raster(tmp_path / "good.tif", scene_values(50, 60))
    bad = write_raster(tmp_path / "bad.tif", np.full((50, 60), -7000, np.int16))
    result = run([good, bad], tmp_path / "out", many=Many(separately=True, skip_bad=True))
    assert [part.name for part in result.parts] == ["good"]
    assert [one.name for one in result.bad] == [str(bad)]


@pytest.mark.parametrize("how", ["list", "index"])
def test_files_are_named_in_a_list_or_an_index(tiles: Path, tmp_path: Path, how: str) -> None:
    expected = contents(Path(run([tiles], tmp_path / "expected").output_dir))
    if how == "list":
        text = "# scenes\n\n" + "".join(f"tiles/{name}.tif\n" for name in WINDOWS)
        (tmp_path / "list.txt").write_text(text)
        named = f"@{tmp_path / 'list.txt'}"
    else:
        write_index(tmp_path / "scenes.gti.gpkg", [f"tiles/{name}.tif" for name in WINDOWS])
        named = str(tmp_path / "scenes.gti.gpkg")
    assert contents(Path(run([named], tmp_path / "out").output_dir)) == expected


@pytest.mark.parametrize("name", ["https://example.com/a.tif", "/vsicurl/http://a/b.tif"])
def test_an_index_does_not_send_the_reader_out_on_the_network(tmp_path: Path, name: str) -> None:
    write_index(tmp_path / "scenes.gti.gpkg", [name])
    with pytest.raises(InputError, match=r"names .*, which is not a local file"):
        run([tmp_path / "scenes.gti.gpkg"], tmp_path / "out")


def write_index(path: Path, locations: Sequence[str]) -> None:
    from geothresh.vector.tile_index import IndexedRaster, write_tile_index

    box = GeoBox(size=PixelWindow.between(0, 9, 0, 9).size, transform=tuple(NORTH_UP)[:6],
                 crs=rasterio.CRS.from_epsg(32632).to_wkt())  # fmt: skip
    rasters = [IndexedRaster(location=one, box=box) for one in locations]
    write_tile_index(path, rasters, whole=box, dtype="uint8", nodata=255)


@pytest.mark.parametrize("stop_at", [1, 5])
def test_an_interrupted_run_goes_on(tiles: Path, tmp_path: Path, stop_at: int) -> None:
    expected = contents(Path(run([tiles], tmp_path / "expected").output_dir))
    with pytest.raises(KeyboardInterrupt) as stopped:
        run([tiles], tmp_path / "out", model=Recognisable(stop_at))
    made = len(list((tmp_path / "out").glob("*_mask.tif")))
    notes = getattr(stopped.value, "__notes__", [])
    assert any("outputs are finished" in note for note in notes) == (made > 0)
    result = run([tiles], tmp_path / "out")
    assert result.kept == made < 6
    assert contents(tmp_path / "out") == expected
    assert not list((tmp_path / "out").glob(".*.geothresh"))
    again = run([tiles], tmp_path / "out")
    assert again.kept == 6 and again.tiles_refined == 0
    assert again.changed_pixels == result.changed_pixels > 0


def test_what_the_record_has_lost_is_known_by_its_tag(tiles: Path, tmp_path: Path) -> None:
    """A run that is killed between the rename and the record."""
    run([tiles], tmp_path / "out")
    expected = contents(tmp_path / "out")
    record = tmp_path / "out" / ".geothresh.jsonl"
    record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:-5]))
    assert run([tiles], tmp_path / "out").kept == 4
    assert contents(tmp_path / "out") == expected
    record.unlink()
    (tmp_path / "out/p00_mask.tif").write_bytes((tmp_path / "out/p01_mask.tif").read_bytes())
    with pytest.raises(OutputError, match="p00_mask.tif: exists already, and is not as a run"):
        run([tiles], tmp_path / "out")


def test_what_killed_runs_have_left_is_removed(tiles: Path, tmp_path: Path) -> None:
    """Of files that no later run writes: all outputs are finished, and the index is there."""
    run([tiles], tmp_path / "out")
    expected = sorted(os.listdir(tmp_path / "out"))
    for name in ("p00_mask.qml", "mask.vrt", "mask.gti.gpkg", "gone_mask.tif"):
        left = tmp_path / "out" / f".{name}.{'0' * 16}.tmp"
        left.mkdir()
        (left / "file.tmp").write_text("half")
    assert run([tiles], tmp_path / "out").kept == 6
    assert sorted(os.listdir(tmp_path / "out")) == expected


def test_polygons_are_those_of_all_masks_as_one(tiles: Path, tmp_path: Path) -> None:
    """Whole across files; drawn anew where a part has changed, and only then."""
    scene = write_raster(tmp_path / "whole.tif", VALUES)
    outputs = Outputs(vector=tmp_path / "whole.gpkg", confidence=tmp_path / "c.tif")
    refine(scene, tmp_path / "m.tif", model=Recognisable(), outputs=outputs, **grouped(**TILES))
    vector = tmp_path / "roads.gpkg"
    many = Many(layers="mask,confidence", vector=vector)
    result = run([tiles], tmp_path / "out", many=many)
    expected, found = (pyogrio.read_dataframe(path) for path in (tmp_path / "whole.gpkg", vector))
    assert result.vector == vector and result.features == len(expected) > 0
    assert found.geometry.to_wkb().tolist() == expected.geometry.to_wkb().tolist()
    assert found.confidence_mean.tolist() == expected.confidence_mean.tolist()
    drawn = vector.stat()
    again = run([tiles], tmp_path / "out", many=many)
    assert again.features == result.features
    assert vector.stat().st_ino == drawn.st_ino
    change(tiles)
    run([tiles], tmp_path / "out", many=replace(many, update=True))
    assert vector.stat().st_ino != drawn.st_ino
    with vector.open("ab") as file:
        file.write(b"another's")
    with pytest.raises(OutputError, match="roads.gpkg: exists already"):
        run([tiles], tmp_path / "out", many=many)


def test_polygons_are_of_one_grid(tiles: Path, tmp_path: Path) -> None:
    off = NORTH_UP @ NORTH_UP.translation(200.5, 0)
    write_raster(tiles / "q.tif", VALUES, transform=off)
    with (
        pytest.warns(GeothreshWarning, match="on 2 pixel grids"),
        pytest.raises(InputError, match="q.tif: is not on the pixel grid"),
    ):
        run([tiles], tmp_path / "out", many=Many(vector=tmp_path / "v.gpkg"))
    assert not (tmp_path / "out").exists()


def change(tiles: Path) -> None:
    values = VALUES.copy()
    values[90:, :40] = 0.25
    write_part(tiles / "p10.tif", values, WINDOWS["p10"])


def remove(tiles: Path) -> None:
    (tiles / "p12.tif").unlink()


def add(tiles: Path) -> None:
    write_part(tiles / "q.tif", np.tile(VALUES, (1, 3)), PixelWindow.between(20, 90, 300, 400))


@pytest.mark.parametrize(("what", "kept"), [(change, 2), (remove, 2), (add, 4)])
def test_update_refines_what_is_touched_alone(
    tiles: Path, tmp_path: Path, what: Any, kept: int
) -> None:
    """The bytes are those of a run from nothing."""
    run([tiles], tmp_path / "out")
    what(tiles)
    with pytest.raises(UsageError, match="add `update=True`"):
        run([tiles], tmp_path / "out")
    update = Many(update=True)
    result = run([tiles], tmp_path / "out", many=update)
    fresh = run([tiles], tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert result.kept == kept and fresh.kept == 0
    assert result.removed == (("p12",) if what is remove else ())
    for index in fresh.indexes:
        if index.suffix == ".vrt":
            assert (tmp_path / "out" / index.name).read_bytes() == index.read_bytes()
    for name in os.listdir(tmp_path / "out"):
        assert (tmp_path / "fresh" / name).exists()


def test_other_options_are_told_and_made_anew_by_update(tiles: Path, tmp_path: Path) -> None:
    run([tiles], tmp_path / "out")
    with pytest.raises(UsageError, match=r"out: .*another threshold \(0.5, now 0.4\)"):
        run([tiles], tmp_path / "out", threshold=0.4)
    update = Many(update=True)
    assert run([tiles], tmp_path / "out", threshold=0.4, many=update).kept == 0


def test_overwrite_makes_all_anew_once_the_run_was_complete(tiles: Path, tmp_path: Path) -> None:
    run([tiles], tmp_path / "out")
    assert run([tiles], tmp_path / "out", overwrite=True).kept == 0
    with suppress(KeyboardInterrupt):
        run([tiles], tmp_path / "out", overwrite=True, threshold=0.4, model=Recognisable(6))
    assert 0 < run([tiles], tmp_path / "out", overwrite=True, threshold=0.4).kept < 6


def test_grids_are_told_and_grouped(tiles: Path, tmp_path: Path) -> None:
    """Another CRS, another pixel size, half a pixel off, turned: each a surface of its own."""
    others = {
        "crs": {"crs": "EPSG:32633"},
        "size": {"transform": NORTH_UP @ NORTH_UP.scale(2)},
        "off": {"transform": NORTH_UP @ NORTH_UP.translation(200.5, 0)},
        "turned": {"transform": NORTH_UP @ NORTH_UP.rotation(30)},
        "hair": {"transform": NORTH_UP @ NORTH_UP.translation(300.005, 0)},
    }
    for name, options in others.items():
        write_raster(tiles / f"{name}.tif", VALUES[:30, :30], **options)
    with pytest.warns(GeothreshWarning, match="the 11 scenes lie on 5 pixel grids"):
        result = run([tiles], tmp_path / "out", many=Many())
    assert result.surfaces == 5 and len(result.parts) == 11
    assert {path.name for path in result.indexes} >= {"mask_1.vrt", "mask_5.vrt"}
    assert result.bad == ()
