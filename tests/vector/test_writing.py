"""A GeoPackage is complete or not there; it opens elsewhere as it was meant."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from pyogrio import raw, read_info

from geothresh.errors import OutputError, UsageError
from geothresh.vector import spill
from geothresh.vector.formats import check_layer_name, layer_name_from
from geothresh.vector.outputs import Existing, check_vector_output
from tests.support.geopackages import names_in, squares, write


def test_a_gis_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "roads.gpkg"
    means = np.array([0.25, np.nan, 1.0])
    attributes = {"area_m2": np.array([1.0, 2.0, 3.0]), "confidence_mean": means}
    assert write(path, attributes=attributes, metadata={"made_by": "a test"}) == "Polygon"
    frame = geopandas.read_file(path, layer="roads")
    assert frame.crs.to_epsg() == 32633
    assert frame.area_m2.tolist() == [1.0, 2.0, 3.0]
    assert frame.confidence_mean.isna().tolist() == [False, True, False]
    assert shapely.equals(frame.geometry.to_numpy(), squares(3)).all()
    info = read_info(path, layer="roads")
    assert info["geometry_type"] == "Polygon"
    assert info["layer_metadata"] == {"made_by": "a test"}
    assert info["capabilities"]["fast_spatial_filter"]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM rtree_roads_geom").fetchone() == (3,)
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert names_in(tmp_path) == ["roads.gpkg"]


def test_no_features_leave_a_layer_with_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "none.gpkg"
    assert write(path, 0) == "Polygon"
    frame = geopandas.read_file(path, layer="roads")
    assert len(frame) == 0
    assert list(frame.columns) == ["area_m2", "geometry"]
    assert frame.crs.to_epsg() == 32633
    assert read_info(path)["geometry_type"] == "Polygon"


def test_one_multipolygon_makes_a_layer_of_them(tmp_path: Path) -> None:
    path = tmp_path / "multi.gpkg"
    geometry = np.array([*squares(2), shapely.multipolygons(squares(2))], dtype=object)
    assert write(path, geometry=geometry) == "MultiPolygon"
    assert set(geopandas.read_file(path).geom_type) == {"MultiPolygon"}
    assert read_info(path)["geometry_type"] == "MultiPolygon"


def test_no_crs_is_written_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "plain.gpkg", crs=None)
    assert read_info(tmp_path / "plain.gpkg")["crs"] is None


def test_writing_and_reading_back_go_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "_POINTS", 20)  # four squares of five points
    write(tmp_path / "many.gpkg", 11)
    assert len(geopandas.read_file(tmp_path / "many.gpkg")) == 11

    def move_one(target: str, *, geometry: Any, append: bool, **rest: Any) -> None:
        moved = geometry.copy()
        if append:
            moved[-1] = moved[0]
        real(target, geometry=moved, append=append, **rest)

    real = raw.write
    monkeypatch.setattr(raw, "write", move_one)
    with pytest.raises(OutputError, match=r"feature \d+ of 11 has other corners"):
        write(tmp_path / "bad.gpkg", 11)
    assert names_in(tmp_path) == ["many.gpkg"]


def test_the_old_file_stays_until_the_new_one_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roads.gpkg"
    write(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write(path, 5)

    def forget_one(target: str, *, geometry: Any, field_data: Any, **rest: Any) -> None:
        real(target, geometry=geometry[:-1], field_data=[one[:-1] for one in field_data], **rest)

    def interrupt(*args: Any, **rest: Any) -> None:
        real(*args, **rest)
        raise KeyboardInterrupt

    real = raw.write
    for fake, error in ((forget_one, OutputError), (interrupt, KeyboardInterrupt)):
        monkeypatch.setattr(raw, "write", fake)
        with pytest.raises(error):
            write(path, 5, existing=Existing.REPLACE)
        assert path.read_bytes() == before
        assert names_in(tmp_path) == ["roads.gpkg"]
    monkeypatch.setattr(raw, "write", real)
    write(path, 5, existing=Existing.REPLACE)
    assert len(geopandas.read_file(path)) == 5


_LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import tests.vector.test_writing as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from geothresh.errors import OutputError
path = Path({path!r})
for limit in (0, 1000, 50_000, 100_000, 150_000, {size} - 4096, {size} - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        t.write(path, 2000, existing=t.Existing.REPLACE)
    except OutputError as error:
        assert "\\n" not in str(error), error
        continue
    print("written at", limit)
"""


def test_a_full_disk_is_noticed_whenever_it_fills_up(tmp_path: Path) -> None:
    path = tmp_path / "roads.gpkg"
    write(path, 2000)
    before = path.read_bytes()
    code = _LIMITED.format(root=str(Path(__file__).parents[2]), path=str(path), size=len(before))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["roads.gpkg"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        write(tmp_path / "roads.gpkg")
    finally:
        os.umask(old)
    assert (tmp_path / "roads.gpkg").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
def test_a_file_that_another_program_has_open_is_left_alone(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "roads.gpkg"
    write(path)
    path.with_name(path.name + ending).touch()
    with pytest.raises(OutputError, match="has it open or died"):
        check_vector_output(path, existing=Existing.REPLACE)


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    mask = tmp_path / "mask.tif"
    mask.touch()
    (tmp_path / "folder.gpkg").mkdir()
    (tmp_path / "link.gpkg").symlink_to(mask)
    for name, error, words in (
        ("roads.kml", UsageError, "tells no format"),
        ("roads", UsageError, "tells no format"),
        ("missing/roads.gpkg", OutputError, "does not exist"),
        ("folder.gpkg", OutputError, "is a directory"),
        ("link.gpkg", UsageError, "is the input"),
    ):
        with pytest.raises(error, match=words):
            check_vector_output(tmp_path / name, existing=Existing.REPLACE, inputs=[mask])
    assert (
        check_vector_output(tmp_path / "UPPER.GPKG", existing=Existing.REFUSE)
        == tmp_path / "UPPER.GPKG"
    )


def test_awkward_file_names(tmp_path: Path) -> None:
    for stem in ("straße 道路", 'it\'s "quoted"', "-dash", "a?b#c%20d", "n" * 204):
        write(tmp_path / f"{stem}.gpkg")
        assert len(geopandas.read_file(tmp_path / f"{stem}.gpkg")) == 3
    assert len(names_in(tmp_path)) == 5


@pytest.mark.parametrize("name", ["roads", "_", "R2", "a" * 63])
def test_good_layer_names(name: str, tmp_path: Path) -> None:
    assert check_layer_name(name) == name
    write(tmp_path / "named.gpkg", name=name)
    assert len(geopandas.read_file(tmp_path / "named.gpkg", layer=name)) == 3


@pytest.mark.parametrize(
    "name",
    ["", "2020", "a b", "a-b", 'roads"; DROP TABLE x;--', "a" * 64, "a" * 1000, "straße", "roads\n",
     "gpkg_contents", "GPKG_contents", "rtree_x", "sqlite_x"],
)  # fmt: skip
def test_bad_layer_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_layer_name(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("stem", "name"),
    [("scene_mask", "scene_mask"), ("S2 2024-05 mask", "S2_2024_05_mask"), ("2024", "layer_2024"),
     ("карта", "polygons"), ("", "polygons"), ("sqlite_x", "layer_sqlite_x"), ("x" * 90, "x" * 63)],
)  # fmt: skip
def test_layer_names_from_files(stem: str, name: str) -> None:
    assert layer_name_from(stem) == name
