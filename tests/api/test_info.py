"""What is told of a scene, from Python as from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import geothresh
from geothresh.cli import main
from geothresh.raster.scene import open_scene
from geothresh.vector.tile_index import IndexedRaster, write_tile_index
from tests.support.cli_runner import runner
from tests.support.rasters import NORTH_UP, coordinate_array, write_raster


def test_info_returns_what_the_command_prints(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", coordinate_array(30, 40), nodata=float("nan"))
    facts = geothresh.info(path)
    assert isinstance(facts, geothresh.SceneInfo)
    assert (facts.height, facts.width, facts.dtype) == (30, 40, "float32")
    assert facts.pixel_size == pytest.approx((2, 2), rel=1e-3)
    printed = runner().invoke(main, ["info", str(path), "--json"])
    assert json.loads(printed.stdout) == json.loads(json.dumps(facts.as_dict()))
    read_otherwise = geothresh.info(path, reading=geothresh.Reading(scale="logit"))
    assert read_otherwise.scaling == "logistic function of the value"


def beside(folder: Path, name: str, columns: float, **options: Any) -> Path:
    """A scene of 30 x 40 pixels, moved to the right by some columns."""
    place = {"transform": NORTH_UP @ NORTH_UP.translation(columns, 0)}
    return write_raster(folder / f"{name}.tif", coordinate_array(30, 40), **place | options)


def test_of_many_each_is_told_as_by_itself(tmp_path: Path) -> None:
    paths = [beside(tmp_path, name, 40 * k) for k, name in enumerate("abc")]
    found = geothresh.info([str(path) for path in paths])
    assert isinstance(found, geothresh.ManyInfo)
    assert found.files == tuple(geothresh.info(str(path)) for path in paths)
    assert (found.bad, found.pixels, found.grids, found.unplaced) == ((), 3600, 1, 0)
    (tmp_path / "list.txt").write_text("a.tif\nb.tif\nc.tif\n")
    assert geothresh.info(tmp_path) == geothresh.info(f"@{tmp_path / 'list.txt'}") == found
    assert geothresh.info([paths[0]]).files == found.files[:1]


def test_each_file_is_reported_when_it_is_examined_and_when_it_is_looked_at(tmp_path: Path) -> None:
    for column in range(3):
        beside(tmp_path, f"{column}.tif", column * 40)
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    told: list[tuple[int, int]] = []
    geothresh.info(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_tile_index_is_what_it_names(tmp_path: Path) -> None:
    paths = [beside(tmp_path, name, 40 * k) for k, name in enumerate("ab")]
    rasters = []
    for path in paths:
        with open_scene(path) as scene:
            rasters.append(IndexedRaster(location=path.name, box=scene.box))
    index = tmp_path / "all.gti.gpkg"
    write_tile_index(index, rasters, whole=rasters[0].box, dtype="float32", nodata=255)
    assert geothresh.info(index) == geothresh.info(paths)


@settings(max_examples=6)
@given(st.lists(st.sampled_from([0, 40, 0.25, 0.5]), min_size=1, max_size=5))
def test_grids_are_counted_as_files_are_shifted(
    tmp_path_factory: pytest.TempPathFactory, columns: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("grids")
    for k, start in enumerate(columns):
        beside(folder, f"s{k}", start)
    assert geothresh.info(folder).grids == len({start % 1 for start in columns})


def test_one_crs_in_two_spellings_is_one_grid(tmp_path: Path) -> None:
    beside(tmp_path, "a", 0)
    beside(tmp_path, "b", 40, crs="+proj=utm +zone=32 +datum=WGS84 +units=m +no_defs")
    beside(tmp_path, "c", 80, crs="EPSG:32633")
    assert geothresh.info(tmp_path).grids == 2


def test_what_cannot_be_used_is_named_and_hides_nothing_else(tmp_path: Path) -> None:
    values = coordinate_array(30, 40)
    beside(tmp_path, "a", 0)
    write_raster(tmp_path / "percent.tif", 100 * values)
    write_raster(tmp_path / "three.tif", np.stack([values] * 3))
    (tmp_path / "text.tif").write_bytes(b"no raster")
    damaged = beside(tmp_path, "damaged", 40, compress="deflate", blockysize=10)
    content = bytearray(damaged.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    damaged.write_bytes(content)
    beside(tmp_path, "z", 80)
    found = geothresh.info([tmp_path, str(tmp_path / "no.tiff")])
    assert [Path(one.path).stem for one in found.files] == ["a", "z"]
    reasons = {Path(one.name).stem: one.reason for one in found.bad}
    assert reasons.keys() == {"percent", "three", "text", "damaged", "no"}
    assert "`scale=100`" in reasons["percent"] and "holds 3 bands" in reasons["three"]
    assert all(Path(one.name).name in one.reason for one in found.bad)
    with pytest.raises(geothresh.InputError, match="3 bands"):
        geothresh.info(tmp_path / "three.tif")


def test_values_of_all_decide_how_each_is_read(tmp_path: Path) -> None:
    """As `refine_many` reads them: zeros and ones among values up to 255 are 1/255."""
    few = np.zeros((30, 40), np.uint8)
    few[10:20] = 1
    write_raster(tmp_path / "few.tif", few)
    write_raster(tmp_path / "more.tif", few * 200)
    assert {one.scaling for one in geothresh.info(tmp_path).files} == {"uint8 / 255"}
    with pytest.warns(geothresh.GeothreshWarning, match="only 0 and 1"):
        assert "only 0 and 1" in geothresh.info(str(tmp_path / "few.tif")).scaling


def test_a_scene_without_georeference_is_on_no_grid(tmp_path: Path) -> None:
    beside(tmp_path, "a", 0)
    write_raster(tmp_path / "b.tif", coordinate_array(30, 40), crs=None, transform=None)
    with pytest.warns(geothresh.GeothreshWarning, match="no georeference"):
        found = geothresh.info(tmp_path)
    assert (len(found.files), found.grids, found.unplaced) == (2, 1, 1)


def test_nothing_and_twice_the_same_are_refused(tmp_path: Path) -> None:
    path = str(beside(tmp_path, "a", 0))
    with pytest.raises(geothresh.UsageError, match="no scene is named"):
        geothresh.info([])
    with pytest.raises(geothresh.UsageError, match="given twice"):
        geothresh.info([path, path])
