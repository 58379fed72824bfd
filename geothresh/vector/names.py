"""Names that a GeoPackage layer may carry."""

from __future__ import annotations

import re

from geothresh.errors import UsageError

#: Characters of a layer name, at most.
MOST = 63
_LAYER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
#: The table of a GeoPackage in which QGIS looks for styles.
STYLES = "layer_styles"
# Tables of the GeoPackage standard and of SQLite itself; SQLite does not tell case apart.
_RESERVED = ("gpkg_", "rtree_", "sqlite_")


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
