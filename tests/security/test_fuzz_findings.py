"""What `make fuzz` has found, made again by the byte."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.transform import Affine

from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster


def lines(path: Path, **options: object) -> Path:
    """A file with one line."""
    line = shapely.to_wkb(np.array([shapely.LineString([(500_000, 5_000_000), (500_100, 5e6)])]))
    arguments = {"layer": "x", "geometry_type": "LineString", "crs": "EPSG:32632", **options}
    pyogrio.raw.write(path, line, [], [], **arguments)
    return path


def refused(*arguments: str | Path, code: int, text: str) -> None:
    """The command said so in one line."""
    result = runner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == code, result.output + result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and text in last, last
    assert result.stderr.count("Error: ") == 1


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("corner", [[500_000, 5_000_000], [10, 91], [10, -1e300], [1e300, 1e300]])
def test_degrees_that_are_none(corner: list[float], place: Path) -> None:
    """Metres in a GeoJSON, which by its standard holds longitude and latitude."""
    geometry = {"type": "LineString", "coordinates": [corner, corner[::-1], corner]}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    (place / "x.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )
    lines(place / "truth.gpkg", driver="GPKG")
    for one, other in (("x.geojson", "truth.gpkg"), ("truth.gpkg", "x.geojson")):
        refused("evaluate", one, "--mask", other, code=3, text="geojson")


@pytest.mark.parametrize("start", [1.5e29, -4e17])
def test_pixels_that_fall_together_so_far_out(start: float, place: Path, tiny_model: Path) -> None:
    """The next number of 64 bits is more than a pixel away: polygons had no area."""
    values = np.zeros((20, 20), np.uint8)
    values[5:10, 5:10] = 1
    for transform in (Affine(2, 0, 5e5, 0, -2, start), Affine(2, 0, start, 0, -2, 5e6)):
        write_raster(place / "x.tif", values, transform=transform)
        for command in ("vectorize", "info"):
            refused(command, "x.tif", code=3, text="the same coordinates")
        refused("refine", "x.tif", "-m", tiny_model, code=3, text="the same coordinates")


@pytest.mark.parametrize("size", [2e236, -1e29])
def test_pixels_off_any_map(size: float, place: Path) -> None:
    """Their areas overflow, and GEOS made rings of them that did not close."""
    values = np.zeros((20, 20), np.uint8)
    values[5:10, 5:10] = 1
    for transform in (Affine(2, 0, 5e5, 0, size, 5e6), Affine(size, 0, 5e5, 0, -2, 5e6)):
        write_raster(place / "x.tif", values, transform=transform)
        for command in ("vectorize", "info"):
            refused(command, "x.tif", code=3, text="off any map")


def test_pixels_as_small_as_they_may_be_are_told_apart(place: Path) -> None:
    write_raster(
        place / "x.tif", np.zeros((20, 20), np.uint8), transform=Affine(1e-9, 0, 5e5, 0, -1e-9, 5e5)
    )
    assert runner().invoke(main, ["info", "x.tif"]).exit_code == 0


@pytest.mark.parametrize("mode", ["--append", "--overwrite-layer"])
def test_a_database_whose_complaint_is_no_text(mode: str, place: Path) -> None:
    """SQLite quotes what is broken, and that need not be UTF-8."""
    path = lines(place / "x.gpkg", driver="GPKG")
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA writable_schema = ON")
        file.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE gpkg_extensions (', "
                     "name = CAST(x'ffb1' AS TEXT) WHERE name = 'gpkg_extensions'")  # fmt: skip
        file.commit()
    before = path.read_bytes()
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 1
    write_raster(place / "m.tif", mask)
    refused(
        "vectorize", "m.tif", "-o", "x.gpkg", "--layer", "y", mode, code=4, text="no layer can be"
    )
    assert path.read_bytes() == before
    assert sorted(file.name for file in place.iterdir()) == ["m.tif", "x.gpkg"]


def test_a_crs_that_is_no_text(place: Path) -> None:
    """pyogrio falls over the .prj of a shapefile that is not UTF-8."""
    path = lines(place / "x.shp", driver="ESRI Shapefile")
    prj = path.with_suffix(".prj")
    prj.write_bytes(prj.read_bytes().replace(b"Greenwich", b"Green\xdfich"))
    lines(place / "truth.gpkg", driver="GPKG")
    refused("evaluate", "x.shp", "--mask", "truth.gpkg", code=3, text="x.shp: cannot be read")
