"""Checks of layer names, and of file names that GDAL and pyogrio would read as addresses."""

from __future__ import annotations

import re
from pathlib import Path

from geothresh.errors import UsageError

#: Characters of a layer name, at most.
MOST = 63
_LAYER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
#: The table of a GeoPackage in which QGIS looks for styles.
STYLES = "layer_styles"
# Tables of the GeoPackage standard and of SQLite itself; SQLite does not tell case apart.
_RESERVED = ("gpkg_", "rtree_", "sqlite_")


# pyogrio takes what it is given for an address: it cuts off what follows a semicolon, looks for the
# rest of a name inside an archive, and drops line breaks.
_OF_ADDRESSES = re.compile(r"[;!\t\r\n]|\.zip$", re.I)


def ogr_path(path: Path) -> str:
    """A path as it may be handed to pyogrio and GDAL, which both look for more than files.

    Raises:
        UsageError: they would open another file than the one of that name.
    """
    # A relative one could begin with what is a protocol to pyogrio, or a database to GDAL.
    absolute = str(path.absolute())
    if _OF_ADDRESSES.search(absolute):
        raise UsageError(
            f"{path}: the libraries that read and write vectors take a name with ;, ! or a "
            "line break in it, or one that ends in .zip, for the address of another file; rename it"
        )
    return absolute


def check_layer_name(name: str) -> str:
    """Return `name` if a layer may be called so.

    Letters, digits and underscores only: such a name needs no quotes in SQL, in whatever program
    the layer is opened.

    Raises:
        UsageError: it may not.
    """
    if not _LAYER.fullmatch(name):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise UsageError(
            f"layer name {shown!r}: use 1 to 63 letters, digits and underscores, "
            "the first not a digit"
        )
    if name.lower() == STYLES:
        raise UsageError(f"layer name {name!r}: QGIS keeps its styles there; choose another")
    if name.lower().startswith(_RESERVED):
        raise UsageError(
            f"layer name {name!r}: names that begin with {', '.join(_RESERVED)} belong to "
            "GeoPackage and SQLite; choose another"
        )
    return name


def layer_name_from(stem: str, fallback: str = "polygons", *, longest: int = MOST) -> str:
    """A layer name as close to a file's stem as the rules allow.

    Args:
        stem: any text, such as ``S2 2024-05 mask``.
        fallback: the name where nothing of the stem can be kept.
        longest: characters at most.
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_")
    if not name:
        return fallback
    if name[0].isdigit() or name.lower().startswith((*_RESERVED, STYLES)):
        name = f"layer_{name}"
    return check_layer_name(name[:longest])
