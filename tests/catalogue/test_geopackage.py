"""92-98: polygons to a GeoPackage, through the command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from rasterio.transform import Affine

from geothresh.vector import outputs
from tests.catalogue.bench import Bench
from tests.support.rasters import write_raster

MASK = (np.random.default_rng(3).random((40, 50)) < 0.5).astype(np.uint8)
# Pixels of 10 m.
GRID = Affine(10, 0, 5e5, 0, -10, 6e6)


def mask(path: str = "m.tif", values: Any = MASK, **options: Any) -> None:
    write_raster(Path(path), values, nodata=255, **{"transform": GRID, **options})


def drawn(bench: Bench, *arguments: Any) -> None:
    result = bench.run("vectorize", *arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.catalogue(92)
def test_a_locked_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outputs._PATIENCE <= 30
    monkeypatch.setattr(outputs, "_PATIENCE", 0.2)
    mask()
    drawn(bench, "m.tif", "-o", "v.gpkg", "--layer", "roads")
    with closing(sqlite3.connect("v.gpkg")) as held:
        held.execute("BEGIN EXCLUSIVE")
        bench.refused(
            4, "database is locked", "vectorize", "m.tif", "-o", "v.gpkg", "--append",
            "--layer", "more",
        )  # fmt: skip
        held.rollback()


@pytest.mark.catalogue(93)
def test_a_layer_that_exists(bench: Bench) -> None:
    mask()
    mask("one.tif", np.eye(9, dtype=np.uint8))
    drawn(bench, "m.tif", "-o", "v.gpkg", "--layer", "roads")
    drawn(bench, "m.tif", "-o", "v.gpkg", "--layer", "other", "--append")
    bench.refused(
        4, "--overwrite-layer", "vectorize", "one.tif", "-o", "v.gpkg", "--layer", "roads",
        "--append",
    )  # fmt: skip
    before = geopandas.read_file("v.gpkg", layer="other")
    drawn(bench, "one.tif", "-o", "v.gpkg", "--layer", "roads", "--overwrite-layer")
    assert len(geopandas.read_file("v.gpkg", layer="roads")) == 9
    assert geopandas.read_file("v.gpkg", layer="other").equals(before)


@pytest.mark.catalogue(94)
@pytest.mark.parametrize("kind", ["text", "empty", "cut", "another database"])
def test_no_geopackage_there(bench: Bench, kind: str) -> None:
    mask()
    path = Path("v.gpkg")
    if kind == "another database":
        with closing(sqlite3.connect(path)) as file:
            file.execute("CREATE TABLE notes (text TEXT)")
            file.commit()
    else:
        drawn(bench, "m.tif", "-o", "v.gpkg")
        whole = path.read_bytes()
        path.write_bytes({"text": b"no database\n" * 900, "empty": b""}.get(kind, whole[:30_000]))
    bench.refused(4, "v.gpkg: ", "vectorize", "m.tif", "-o", "v.gpkg", "--append", "--layer", "a")
    bench.refused(4, "exists already", "vectorize", "m.tif", "-o", "v.gpkg")
    drawn(bench, "m.tif", "-o", "v.gpkg", "--overwrite")
    assert len(geopandas.read_file("v.gpkg"))


@pytest.mark.catalogue(95)
@pytest.mark.parametrize(
    "name",
    ['roads"; DROP TABLE x;--', "n" * 1000, "", "gpkg_contents", "rtree_x", "sqlite_x", "a\nb"],
)
def test_names_of_layers(bench: Bench, name: str) -> None:
    mask()
    bench.refused(2, "name", "vectorize", "m.tif", f"--layer={name}")


CHECKERBOARD = (np.indices((30, 40)).sum(axis=0) % 2).astype(np.uint8)
RINGS = np.zeros((41, 41), np.uint8)
for _edge in range(0, 20, 2):
    RINGS[_edge : 41 - _edge, _edge : 41 - _edge] = 1
    RINGS[_edge + 1 : 40 - _edge, _edge + 1 : 40 - _edge] = 0


@pytest.mark.catalogue(96)
@pytest.mark.parametrize(
    "values",
    [np.eye(30, dtype=np.uint8), CHECKERBOARD, RINGS, MASK],
    ids=["diagonal", "checkerboard", "rings", "noise"],
)
def test_polygons_are_valid_and_cover_the_mask(bench: Bench, values: Any) -> None:
    mask(values=values)
    drawn(bench, "m.tif", "-o", "v.gpkg")
    frame = geopandas.read_file("v.gpkg")
    assert shapely.is_valid(frame.geometry.to_numpy()).all()
    assert frame.area.sum() == pytest.approx(values.sum() * 100.0, rel=1e-9)
    assert frame.area_m2.sum() == pytest.approx(values.sum() * 100.0, rel=1e-9)


@pytest.mark.catalogue(97)
def test_no_features(bench: Bench) -> None:
    mask(values=MASK * 0)
    drawn(bench, "m.tif", "-o", "v.gpkg", "--layer", "roads")
    frame = geopandas.read_file("v.gpkg", layer="roads")
    assert len(frame) == 0 and "area_m2" in frame.columns and frame.crs.to_epsg() == 32632


@pytest.mark.catalogue(98)
def test_blocks_leave_no_seams(bench: Bench) -> None:
    mask("whole.tif")
    mask("blocks.tif", tiled=True, blockxsize=16, blockysize=16)
    mask("rows.tif", blockysize=1)
    found = []
    for name in ("whole", "blocks", "rows"):
        drawn(bench, f"{name}.tif", "-o", f"{name}.gpkg")
        frame = geopandas.read_file(f"{name}.gpkg")
        found.append(sorted(shapely.to_wkb(shapely.normalize(frame.geometry.to_numpy()))))
    assert found[0] == found[1] == found[2]
