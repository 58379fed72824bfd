"""Styles in a GeoPackage: ours in each layer, and those of the user, which stay."""

from __future__ import annotations

import re
import sqlite3
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import shapely

from geothresh.errors import UsageError
from geothresh.sidecars import is_ours
from geothresh.vector.layers import Layer
from geothresh.vector.outputs import Existing
from geothresh.vector.styles import style_of
from geothresh.vector.writing import write_geopackage
from tests.support.geopackages import UTM, layers_of, squares, write


def styles(path: Path) -> dict[str, ElementTree.Element]:
    """The default style of each layer, as QGIS looks for it."""
    with closing(sqlite3.connect(path)) as file:
        rows = file.execute(
            "SELECT f_table_name, styleQML FROM layer_styles WHERE useAsDefault = 1 "
            "AND f_table_catalog = '' AND f_table_schema = '' AND f_geometry_column = 'geom'"
        ).fetchall()
        (kind,) = file.execute(
            "SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'"
        ).fetchone()
    assert kind == "attributes" and len(rows) == len({name for name, _ in rows})
    return {name: ElementTree.fromstring(text) for name, text in rows}


def test_layers_carry_their_style(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    lines = np.array([shapely.LineString([(0, 0), (9, 9)])] * 2)
    marks = {"bridged": np.array([True, False])}
    layers = [
        Layer(name="areas", kind="Polygon", geometry=squares(2), attributes={}),
        Layer(name="lines", kind="LineString", geometry=lines, attributes={}),
        Layer(name="gaps", kind="LineString", geometry=lines, attributes=marks),
        Layer(name="nodes", kind="Point", geometry=shapely.points([[0, 0]]), attributes={}),
    ]
    write_geopackage(path, layers, crs=UTM)
    found = styles(path)
    renderers = {name: style.find("renderer-v2") for name, style in found.items()}
    assert {name: one.get("type") for name, one in renderers.items()} == {
        "areas": "singleSymbol", "lines": "singleSymbol", "gaps": "categorizedSymbol",
        "nodes": "singleSymbol",
    }  # fmt: skip
    kinds = {name: one.find("symbols/symbol").get("type") for name, one in renderers.items()}
    assert kinds == {"areas": "fill", "lines": "line", "gaps": "line", "nodes": "marker"}
    values = [one.get("value") for one in renderers["gaps"].findall("categories/category")]
    assert values == ["false", "true"]
    numbers = [one.get("name") for one in renderers["gaps"].findall("symbols/symbol")]
    assert numbers == ["0", "1"]


def rows(path: Path) -> list[tuple[str, str, int]]:
    """Name, style and default of all that is kept, in order."""
    with closing(sqlite3.connect(path)) as file:
        found = file.execute(
            "SELECT styleName, styleQML, useAsDefault FROM layer_styles ORDER BY id"
        ).fetchall()
    return [
        (name, "ours" if is_ours(style, "vector") else style, use) for name, style, use in found
    ]


@pytest.mark.parametrize("existing", [Existing.REPLACE_LAYER, Existing.REPLACE])
def test_styles_that_the_user_saved_stay(tmp_path: Path, existing: Existing) -> None:
    path = tmp_path / "all.gpkg"
    write(path)
    write(path, name="slides", existing=Existing.ADD)
    assert rows(path) == [("roads", "ours", 1), ("slides", "ours", 1)]
    with closing(sqlite3.connect(path)) as file:  # as QGIS saves another one, as default
        file.execute('ALTER TABLE layer_styles ADD COLUMN "a ""note"" of ours" TEXT')
        file.execute("UPDATE layer_styles SET useAsDefault = 0 WHERE f_table_name = 'roads'")
        file.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, useAsDefault, description, update_time) "
            "VALUES ('', '', 'roads', 'geom', 'mine', '<qgis>mine</qgis>', 1, 'of March', 'then')"
        )
        file.commit()
    for _ in range(2):
        write(path, existing=existing)
        kept = [row for row in rows(path) if row[0] in ("mine", "roads")]
        assert sorted(kept) == [("mine", "<qgis>mine</qgis>", 1), ("roads", "ours", 0)]
    assert styles(path)["roads"].text == "mine"
    with closing(sqlite3.connect(path)) as file:
        (time,) = file.execute(
            "SELECT update_time FROM layer_styles WHERE styleName = 'mine'"
        ).fetchone()
    assert time == "then"


def test_a_style_of_ours_that_was_changed_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE layer_styles SET styleQML = replace(styleQML, 'solid', 'dash')")
        file.commit()
    write(path, existing=Existing.REPLACE_LAYER)
    assert [(kind == "ours", use) for _, kind, use in rows(path)] == [(False, 1), (True, 0)]


def test_those_of_earlier_versions_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path)
    with closing(sqlite3.connect(path)) as file:
        former = '<qgis version="3.22" styleCategories="Symbology">red</qgis>'
        file.execute("UPDATE layer_styles SET styleQML = ?", (former,))
        file.commit()
    write(path, existing=Existing.REPLACE_LAYER)
    assert rows(path) == [("roads", "ours", 1)]


def test_no_styles(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    for _ in range(2):
        layers = [Layer(name="roads", kind="Polygon", geometry=squares(2), attributes={})]
        write_geopackage(path, layers, crs=UTM, existing=Existing.REPLACE_LAYER, style=False)
        assert layers_of(path) == ["roads"]
    write(path, existing=Existing.REPLACE_LAYER)
    write_geopackage(path, layers, crs=UTM, existing=Existing.REPLACE_LAYER, style=False)
    assert rows(path) == []


def test_styles_conform_to_the_standard(tmp_path: Path) -> None:
    path = tmp_path / "all.gpkg"
    write(path, name="a" * 60)
    with closing(sqlite3.connect(path)) as file:
        name, time = file.execute("SELECT styleName, update_time FROM layer_styles").fetchone()
    assert len(name) == 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # GDAL warned of the time whenever the file was read
        geopandas.read_file(path, layer="layer_styles")
    with pytest.raises(UsageError, match="layer_styles"):
        write(path, name="layer_styles", existing=Existing.ADD)


def test_the_legend_of_lines_says_what_they_are(tmp_path: Path) -> None:
    lines = np.array([shapely.LineString([(0, 0), (9, 9)])])
    layer = Layer(
        name="slips", kind="LineString", geometry=lines,
        attributes={"bridged": np.array([False])}, metadata={"geothresh_theme": "landslides"},
    )  # fmt: skip
    style = ElementTree.fromstring(style_of(layer))
    labels = [one.get("label") for one in style.iter("category")]
    assert labels == ["landslides", "gap bridged"]
    unknown = replace(layer, metadata={})
    assert 'label="foreground"' in style_of(unknown)
