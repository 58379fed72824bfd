"""Write styles of vector layers for QGIS: to a table of the GeoPackage, or to a ``.qml`` file.

QGIS reads the styles of a layer from the table ``layer_styles`` of a GeoPackage, and applies the
row that is marked as the default. Rows that the user saved are kept, and so is the user's default.
Rows that geothresh wrote are replaced.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

# These functions write XML; none is parsed.
from xml.sax.saxutils import quoteattr  # nosec B406

from geothresh.colours import BRIDGE, FOREGROUND, OUTLINE, Rgb
from geothresh.errors import OutputError
from geothresh.sidecars import is_ours, put_style, signed_style, style_path
from geothresh.vector.formats import GEOPACKAGE, format_of
from geothresh.vector.layers import Layer
from geothresh.vector.outputs import connect

Row: TypeAlias = dict[str, Any]
"""A row of ``layer_styles``: values by column."""

# The format of times in a GeoPackage (requirement 5 of the standard), which GDAL reads without a
# warning.
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
# The table as QGIS creates it, except for the format of the time.
_CREATE = f"""
CREATE TABLE IF NOT EXISTS layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
  f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT ({_NOW})
)
"""
_REGISTER = """
INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier, srs_id)
VALUES ('layer_styles', 'attributes', 'layer_styles', 0)
"""
# No user input is formatted into this statement.
_INSERT = f"""
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column,
  styleName, styleQML, styleSLD, useAsDefault, description, owner, update_time)
VALUES ('', '', ?, 'geom', ?, ?, '', ?, 'geothresh', '', {_NOW})
"""  # nosec B608
_THERE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'layer_styles'"
_LONGEST_NAME = 30
"""Most characters of a ``styleName``."""
# The beginning of styles by earlier versions of geothresh, which had no digest.
_FORMER = '<qgis version="3.22" styleCategories="Symbology">'


def users_styles(database: Path, layers: Iterable[str]) -> list[Row]:
    """Read the styles of layers in a GeoPackage, except those that geothresh wrote.

    Args:
        database: an existing GeoPackage.
        layers: names of the layers.

    Returns:
        The rows of ``layer_styles``.

    Raises:
        sqlite3.Error: the file is not a database, or is damaged.
    """
    with closing(connect(database)) as file:
        if not file.execute(_THERE).fetchone()[0]:
            return []
        file.row_factory = sqlite3.Row
        rows = [dict(row) for row in file.execute("SELECT * FROM layer_styles")]
    # SQLite ignores case in names of tables.
    wanted = {name.lower() for name in layers}
    return [row for row in rows if str(row["f_table_name"]).lower() in wanted and not _is_ours(row)]


def _is_ours(row: Row) -> bool:
    style = str(row.get("styleQML") or "")
    return is_ours(style, "vector") or (row.get("description") == "geothresh" and _FORMER in style)


def write_styles(
    file: sqlite3.Connection, layers: Iterable[Layer], users: Sequence[Row], *, style: bool
) -> None:
    """Write the styles of layers to a GeoPackage; they replace all existing styles of these layers.

    Args:
        file: the database, open for writing.
        layers: the layers.
        users: styles of the user, which are written back. If one of them is the default of a layer,
            the style of geothresh is not.
        style: whether to write styles of geothresh.

    Raises:
        sqlite3.Error: the database cannot be written.
    """
    layers = list(layers)
    if style or users:
        file.execute(_CREATE)
        file.execute(_REGISTER)
    elif not file.execute(_THERE).fetchone()[0]:
        return
    for layer in layers:
        file.execute(
            "DELETE FROM layer_styles WHERE lower(f_table_name) = ?", (layer.name.lower(),)
        )
    restore_styles(file, users)
    defaults = {str(row["f_table_name"]).lower() for row in users if row.get("useAsDefault")}
    for layer in layers if style else ():
        values = (
            layer.name,
            layer.name[:_LONGEST_NAME],
            style_of(layer),
            layer.name.lower() not in defaults,
        )
        file.execute(_INSERT, values)
    file.commit()


def restore_styles(file: sqlite3.Connection, users: Sequence[Row]) -> None:
    """Write styles of the user back to the table, including which is the default.

    Args:
        file: the database, open for writing.
        users: rows of the table, from `users_styles`.
    """
    known = {row[1] for row in file.execute("PRAGMA table_info(layer_styles)")}
    for row in users:
        if row.get("useAsDefault"):
            file.execute(
                "UPDATE layer_styles SET useAsDefault = 0 WHERE lower(f_table_name) = ?",
                (str(row["f_table_name"]).lower(),),
            )
        # The ids are left out, as other rows may have them now.
        kept = {name: value for name, value in row.items() if name in known and name != "id"}
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in kept)
        marks = ", ".join("?" * len(kept))
        # Names are only those of existing columns of the table, and values are bound.
        file.execute(
            f"INSERT INTO layer_styles ({names}) VALUES ({marks})",  # nosec B608
            tuple(kept.values()),
        )


def take_over_styles(new: Path, old: Path, layer: str) -> None:
    """Move the style of a finished file to its target, before the file itself is moved.

    Styles that the user saved for the old file are kept: those in a GeoPackage are copied to the
    new file, and a ``.qml`` file that geothresh did not write is not replaced.

    Args:
        new: the finished file, in a temporary folder; its ``.qml`` file is moved to the target.
        old: the target, which may exist.
        layer: name of the layer.

    Raises:
        OutputError: a style cannot be written.
    """
    if format_of(new) is not GEOPACKAGE:
        path = style_path(new)
        style = path.read_text("utf-8") if path.exists() else None
        path.unlink(missing_ok=True)
        put_style(old, style, "vector")
        return
    users = styles_there(old, [layer])
    if not users:
        return
    try:
        with closing(sqlite3.connect(new)) as file:
            file.execute(_CREATE)
            file.execute(_REGISTER)
            restore_styles(file, users)
            file.commit()
    except sqlite3.Error as error:
        raise OutputError(f"{old}: its styles cannot be taken over ({error})") from error


def styles_there(old: Path, layers: Iterable[str]) -> list[Row]:
    """`users_styles` of a file that will be replaced; empty if it is not a sound GeoPackage."""
    if not old.is_file():
        return []
    try:
        return users_styles(old, layers)
    except (sqlite3.Error, UnicodeDecodeError, KeyError):
        return []  # damaged, or of another kind: no styles to keep


def style_of(layer: Layer) -> str:
    """The style of a layer as QML."""
    if layer.kind == "Polygon":
        area = _symbol("fill", _fill(FOREGROUND))
        return _qml(_single(area), geometry=2)
    if layer.kind == "Point":
        return _qml(_single(_symbol("marker", _marker())), geometry=0)
    road = _symbol("line", _stroke(OUTLINE, "1.1"), _stroke(FOREGROUND, "0.7"))
    if "bridged" not in layer.attributes:
        return _qml(_single(road), geometry=1)
    bridge = _symbol("line", _stroke(BRIDGE, "0.9", "dash"), number=1)
    return _qml(
        _categories(
            "bridged", "bool",
            (("false", layer.theme or "foreground", road), ("true", "gap bridged", bridge)),
        ),
        geometry=1,
    )  # fmt: skip


def _categories(attribute: str, kind: str, entries: Sequence[tuple[str, str, str]]) -> str:
    """The renderer with a symbol for each value of an attribute.

    Args:
        attribute: name of the attribute.
        kind: type of the attribute in QML.
        entries: (value, label, symbol) each; symbols are numbered in this order, from 0.
    """
    categories = "".join(
        f'<category value="{value}" type="{kind}" symbol="{k}" label={quoteattr(label)} '
        'render="true"/>'
        for k, (value, label, _) in enumerate(entries)
    )
    return (
        f'<renderer-v2 type="categorizedSymbol" attr="{attribute}" symbollevels="0" '
        f'enableorderby="0"><categories>{categories}</categories>'
        f"<symbols>{''.join(symbol for *_, symbol in entries)}</symbols></renderer-v2>"
    )


def _qml(renderer: str, *, geometry: int) -> str:
    return signed_style(
        f'<qgis version="3.22.0" styleCategories="Symbology">{renderer}'
        f"<layerGeometryType>{geometry}</layerGeometryType></qgis>\n",
        "vector",
    )


def _single(symbol: str) -> str:
    return (
        '<renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0">'
        f"<symbols>{symbol}</symbols></renderer-v2>"
    )


def _symbol(kind: str, *drawn: str, number: int = 0) -> str:
    """A symbol of one or more symbol layers, the lowest first."""
    return (
        f'<symbol type="{kind}" name="{number}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f"{''.join(drawn)}</symbol>"
    )


def _fill(colour: Rgb) -> str:
    return _layer("SimpleFill", {
        "color": _rgba(colour, 130), "style": "solid", "joinstyle": "round",
        "outline_color": _rgba(OUTLINE), "outline_style": "solid", "outline_width": "0.3",
        "outline_width_unit": "MM",
    })  # fmt: skip


def _stroke(colour: Rgb, millimetres: str, style: str = "solid") -> str:
    return _layer("SimpleLine", {
        "line_color": _rgba(colour), "line_style": style, "line_width": millimetres,
        "line_width_unit": "MM", "capstyle": "round", "joinstyle": "round",
    })  # fmt: skip


def _marker() -> str:
    return _layer("SimpleMarker", {
        "name": "circle", "color": _rgba(OUTLINE), "outline_style": "no", "size": "1.4",
        "size_unit": "MM",
    })  # fmt: skip


def _layer(drawn: str, options: Mapping[str, str]) -> str:
    items = "".join(
        f'<Option name="{key}" value="{value}" type="QString"/>' for key, value in options.items()
    )
    return (
        f'<layer class="{drawn}" enabled="1" locked="0" pass="0">'
        f'<Option type="Map">{items}</Option></layer>'
    )


def _rgba(colour: Rgb, opacity: int = 255) -> str:
    return ",".join(map(str, (*colour, opacity)))
