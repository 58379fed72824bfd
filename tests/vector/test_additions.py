"""Layers added to a GeoPackage: to a copy, which takes its place."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import pytest
from pyogrio import raw
from pyproj import CRS

from geothresh.durability.locking import only_run
from geothresh.errors import OutputError
from geothresh.vector import outputs
from geothresh.vector.ogr import write_layer
from geothresh.vector.outputs import Existing
from tests.support.geopackages import layers_of, names_in, write


def test_layers_are_added_to_a_copy_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path, 3)
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE notes (text TEXT)")
        file.execute("INSERT INTO notes VALUES ('of somebody else')")
        file.commit()
    assert write(path, 5, name="slides", existing=Existing.ADD) == "Polygon"
    assert [len(geopandas.read_file(path, layer=n)) for n in ("roads", "slides")] == [3, 5]
    before = path.read_bytes()
    for name in ("roads", "SLIDES"):
        with pytest.raises(OutputError, match=f"has a layer {name} already.*`overwrite_layer"):
            write(path, 2, name=name, existing=Existing.ADD)
    assert path.read_bytes() == before
    write(path, 2, existing=Existing.REPLACE_LAYER, crs=CRS.from_epsg(4326).to_wkt())
    roads, slides = (geopandas.read_file(path, layer=n) for n in ("roads", "slides"))
    assert (len(roads), len(slides)) == (2, 5)
    assert (roads.crs.to_epsg(), slides.crs.to_epsg()) == (4326, 32633)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT text FROM notes").fetchone() == ("of somebody else",)
    assert names_in(tmp_path) == ["all.gpkg"]
    # Where there is no file yet, there is nothing to keep.
    write(tmp_path / "new.gpkg", 4, existing=Existing.ADD)
    assert len(geopandas.read_file(tmp_path / "new.gpkg")) == 4


def test_two_additions_at_once_lose_no_layer(tmp_path: Path) -> None:
    path = tmp_path / "roads.gpkg"
    write(path, name="first")
    with only_run(path), pytest.raises(OutputError, match="another run is making it"):
        write(path, name="second", existing=Existing.ADD)
    assert "first" in layers_of(path) and "second" not in layers_of(path)


def test_what_another_program_writes_meanwhile_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roads.gpkg"
    write(path, name="first")

    def edited(*given: Any, **options: Any) -> None:
        write_layer(*given, **options)
        with closing(sqlite3.connect(path)) as file:
            file.execute("CREATE TABLE noted (what TEXT)")
            file.commit()

    monkeypatch.setattr("geothresh.vector.writing.write_layer", edited)
    with pytest.raises(OutputError, match="another program has written to it meanwhile"):
        write(path, name="second", existing=Existing.ADD)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM noted").fetchone() == (0,)
    assert "first" in layers_of(path) and "second" not in layers_of(path)
    assert os.listdir(tmp_path) == ["roads.gpkg"]


def test_a_failed_addition_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "all.gpkg"
    write(path, 3)
    before = path.read_bytes()

    def fail(*args: Any, **rest: Any) -> None:
        real(*args, **rest)
        raise OSError(28, "No space left on device")

    real = raw.write
    monkeypatch.setattr(raw, "write", fail)
    with pytest.raises(OutputError, match="nothing was left behind"):
        write(path, 5, name="more", existing=Existing.ADD)
    assert path.read_bytes() == before and names_in(tmp_path) == ["all.gpkg"]


def test_only_a_sound_geopackage_is_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "_PATIENCE", 0.2)
    path = tmp_path / "roads.gpkg"
    write(path, 200)
    whole = path.read_bytes()
    cases = {
        "text": b"not a database at all, but long enough to be looked at " * 40,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
    }
    for name, content in cases.items():
        other = tmp_path / f"{name}.gpkg"
        other.write_bytes(content)
        with pytest.raises(OutputError, match=r"no layer can be added|is damaged"):
            write(other, 2, name="more", existing=Existing.ADD)
        assert other.read_bytes() == content
    with closing(sqlite3.connect(path)) as held:
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="database is locked"):
            write(path, 2, name="more", existing=Existing.ADD)
        held.rollback()
    assert path.read_bytes() == whole
