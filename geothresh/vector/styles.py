"""How layers look when QGIS opens them: its default styles, kept in the GeoPackage beside them.

QGIS looks for the style of a layer in the table ``layer_styles`` of the file, and draws the layer
by the row that is marked as default.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from geothresh.vector.layers import Layer

# As QGIS makes it, and as files of its have it.
_CREATE = """
CREATE TABLE IF NOT EXISTS layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
  f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT CURRENT_TIMESTAMP
)
"""
_REGISTER = """
INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier, srs_id)
VALUES ('layer_styles', 'attributes', 'layer_styles', 0)
"""
_INSERT = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column,
  styleName, styleQML, styleSLD, useAsDefault, description, owner)
VALUES ('', '', ?, 'geom', ?, ?, '', 1, 'geothresh', '')
"""

_AREA = {
    "color": "225,120,50,110", "style": "solid", "joinstyle": "round",
    "outline_color": "120,50,10,255", "outline_style": "solid", "outline_width": "0.3",
    "outline_width_unit": "MM",
}  # fmt: skip
_LINE = {
    "line_color": "201,60,20,255", "line_style": "solid", "line_width": "0.7",
    "line_width_unit": "MM", "capstyle": "round", "joinstyle": "round",
}  # fmt: skip
_BRIDGE = {"line_color": "90,90,90,255", "line_style": "dot"}
_NODE = {
    "name": "circle", "color": "60,20,10,255", "outline_style": "no", "size": "1.4",
    "size_unit": "MM",
}  # fmt: skip


def write_styles(file: sqlite3.Connection, layers: Iterable[Layer]) -> None:
    """Put the default styles of layers into a GeoPackage, in place of those that they have."""
    file.execute(_CREATE)
    file.execute(_REGISTER)
    for layer in layers:
        file.execute("DELETE FROM layer_styles WHERE f_table_name = ?", (layer.name,))
        file.execute(_INSERT, (layer.name, layer.name, style_of(layer)))
    file.commit()


def style_of(layer: Layer) -> str:
    """The style of a layer as QGIS keeps it (QML)."""
    if layer.kind == "Polygon":
        return _qml(_single(_symbol("fill", "SimpleFill", _AREA)), geometry=2)
    if layer.kind == "Point":
        return _qml(_single(_symbol("marker", "SimpleMarker", _NODE)), geometry=0)
    road = _symbol("line", "SimpleLine", _LINE)
    if "bridged" not in layer.attributes:
        return _qml(_single(road), geometry=1)
    bridge = _symbol("line", "SimpleLine", _LINE | _BRIDGE, number=1)
    categories = "".join(
        f'<category value="{value}" type="bool" symbol="{k}" label="{label}" render="true"/>'
        for k, (value, label) in enumerate((("false", "road"), ("true", "gap bridged")))
    )
    return _qml(
        '<renderer-v2 type="categorizedSymbol" attr="bridged" symbollevels="0" '
        f'enableorderby="0"><categories>{categories}</categories>'
        f"<symbols>{road}{bridge}</symbols></renderer-v2>",
        geometry=1,
    )


def _qml(renderer: str, *, geometry: int) -> str:
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="3.22" styleCategories="Symbology">{renderer}'
        f"<layerGeometryType>{geometry}</layerGeometryType></qgis>\n"
    )


def _single(symbol: str) -> str:
    return (
        '<renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0">'
        f"<symbols>{symbol}</symbols></renderer-v2>"
    )


def _symbol(kind: str, drawn: str, options: Mapping[str, str], *, number: int = 0) -> str:
    items = "".join(
        f'<Option name="{key}" value="{value}" type="QString"/>' for key, value in options.items()
    )
    return (
        f'<symbol type="{kind}" name="{number}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="{drawn}" enabled="1" locked="0" pass="0">'
        f'<Option type="Map">{items}</Option></layer></symbol>'
    )
