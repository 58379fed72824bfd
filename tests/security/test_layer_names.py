"""Names of layers and fields that would be SQL: refused before anything is written, or harmless."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

from geothresh.cli import main
from geothresh.errors import InputError, UsageError
from geothresh.vector.formats import check_layer_name, layer_name_from
from geothresh.vector.reading import find_layer, read_geometries, read_numbers
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

NAMES = [
    'roads"; DROP TABLE x;--',
    "roads'; DROP TABLE x;--",
    "x]; DROP TABLE x;--",
    "x`; DROP TABLE x;--",
    "roads; ATTACH DATABASE '/tmp/x' AS y",
    "",
    " ",
    "1st",
    "a b",
    "a-b",
    "a.b",
    "main.x",
    "a\0b",
    "a\nb",
    "a\n",
    "x" * 64,
    "x" * 1000,
    "straße",
    "ｘ",
    "gpkg_contents",
    "GPKG_contents",
    "rtree_x",
    "sqlite_master",
    "SQLITE_x",
    "layer_styles",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mask, and a GeoPackage with the layer x."""
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:10, 5:10] = 1
    write_raster(tmp_path / "m.tif", mask)
    made = runner().invoke(main, ["vectorize", "m.tif", "-o", "old.gpkg", "--layer", "x"])
    assert made.exit_code == 0, made.stderr
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_word_is_refused(name: str, place: Path) -> None:
    before = (place / "old.gpkg").read_bytes()
    with pytest.raises(UsageError):
        check_layer_name(name)
    for target in ("new.gpkg", "old.gpkg", "new.geojson", "new.fgb"):
        for mode in (["--append"], ["--overwrite-layer"], []):
            if mode and not target.endswith("gpkg"):
                continue
            result = runner().invoke(
                main, ["vectorize", "m.tif", "-o", target, "--layer", name, *mode]
            )
            assert result.exit_code == 2, result.output
            assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert (place / "old.gpkg").read_bytes() == before
    assert sorted(file.name for file in place.iterdir()) == ["m.tif", "old.gpkg"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_made_from_a_file_is_a_word(name: str) -> None:
    assert check_layer_name(layer_name_from(name))


def test_a_file_called_like_sql_makes_a_layer_like_any_other(place: Path) -> None:
    stem = 'roads" DROP TABLE x--'
    shutil.copy("m.tif", f"{stem}.tif")
    result = runner().invoke(main, ["vectorize", f"{stem}.tif", "-o", "old.gpkg", "--append"])
    assert result.exit_code == 0, result.stderr
    layers = {str(name) for name, kind in pyogrio.list_layers("old.gpkg") if kind is not None}
    assert layers == {"x", "roads_DROP_TABLE_x"}


@pytest.mark.parametrize("name", ['roads"; DROP TABLE x;--', "it's", "a]b", "x) UNION SELECT (1"])
def test_layers_and_fields_of_strangers_are_read_whatever_they_are_called(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.gpkg"
    shapes = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]))
    for layer in ("x", name):
        pyogrio.raw.write(
            path, shapes, [np.array([1.0, 2.0])], [name], layer=layer, driver="GPKG",
            geometry_type="Polygon", crs="EPSG:32632", append=path.exists(),
        )  # fmt: skip
    before = path.read_bytes()
    found = find_layer(path, name)
    assert len(read_geometries(found)[0]) == 2
    assert read_numbers(found, name).tolist() == [1.0, 2.0]
    with pytest.raises(UsageError, match="no layer"):
        find_layer(path, name + '"')
    assert path.read_bytes() == before


def test_a_table_of_another_file_inside_a_database_is_not_read(tmp_path: Path) -> None:
    """GDAL knows virtual tables that are any file of its: a GeoPackage may name them."""
    secret = tmp_path / "secret.csv"
    secret.write_text("id,WKT\n1,POINT (1 2)\n")
    path = tmp_path / "x.gpkg"
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)])), [], [], layer="x",
        driver="GPKG", geometry_type="Polygon", crs="EPSG:32632",
    )  # fmt: skip
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA writable_schema = ON")
        for name, module in (("y", "VirtualOGR"), ("z", "VirtualText"), ("w", "VirtualShape")):
            file.execute(
                "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) "
                "VALUES ('table', ?, ?, 0, ?)",
                (name, name, f"CREATE VIRTUAL TABLE {name} USING {module}('{secret}')"),
            )
        file.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) "
            "VALUES ('y', 'features', 'y', 0)"
        )
        file.execute("INSERT INTO gpkg_geometry_columns VALUES ('y', 'WKT', 'POINT', 0, 0, 0)")
        file.commit()
    for layer in ("x", "y", "z", "w"):
        try:
            found = read_geometries(find_layer(path, layer))[0]
        except (InputError, UsageError):
            continue
        assert layer == "x" and len(found) == 1
