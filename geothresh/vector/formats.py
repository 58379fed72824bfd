"""Vector file formats, by name or by ending, and checks of the names of layers and files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from geothresh.errors import UsageError

#: Characters of a layer name, at most.
MOST = 63
_LAYER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
#: The table of a GeoPackage in which QGIS looks for styles.
STYLES = "layer_styles"
# Tables of the GeoPackage standard and of SQLite itself; SQLite does not tell case apart.
_RESERVED = ("gpkg_", "rtree_", "sqlite_")
# pyogrio parses paths as addresses: it cuts them at a semicolon, looks inside archives, and drops
# line breaks.
_OF_ADDRESSES = re.compile(r"[;!\t\r\n]|\.zip$", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFormat:
    """A format and what it can hold."""

    name: str
    """On the command line."""
    title: str
    """In messages."""
    driver: str
    """Of OGR; empty where OGR does not write it."""
    endings: tuple[str, ...]
    """Endings of its files, the default first."""
    part_endings: tuple[str, ...] = ()
    """Endings of further files of the same data set."""
    crs: str | None = None
    """The only CRS that it can hold; None = any."""
    index_endings: tuple[str, ...] = ()
    """Endings of index files of other programs, which are wrong once the file is replaced."""


GEOPACKAGE = VectorFormat(name="gpkg", title="GeoPackage", driver="GPKG", endings=(".gpkg",))
FORMATS = (
    GEOPACKAGE,
    VectorFormat(
        name="flatgeobuf", title="FlatGeobuf", driver="FlatGeobuf", endings=(".fgb",)
    ),
    VectorFormat(
        name="geojson", title="GeoJSON", driver="GeoJSON", endings=(".geojson", ".json"),
        crs="EPSG:4326",  # RFC 7946
    ),
    VectorFormat(
        name="geoparquet", title="GeoParquet", driver="", endings=(".parquet", ".geoparquet")
    ),
    VectorFormat(
        name="shapefile", title="shapefile", driver="ESRI Shapefile", endings=(".shp",),
        part_endings=(".shx", ".dbf", ".prj", ".cpg"), index_endings=(".qix", ".sbn", ".sbx"),
    ),
)  # fmt: skip


def ending_of(name: str | None) -> str:
    """The ending of a file in the named format, GeoPackage if none is.

    Raises:
        UsageError: there is no such format.
    """
    return _named(name or GEOPACKAGE.name).endings[0]


def format_of(path: Path, name: str | None = None) -> VectorFormat:
    """The format of a file: the one that is named, or else that of its ending.

    Raises:
        UsageError: there is no such format, or the ending is none of its.
    """
    if name is not None:
        found = _named(name)
        if path.suffix.lower() not in found.endings:
            raise UsageError(
                f"{path}: a {found.title} ends in {' or '.join(found.endings)}; name it so"
            )
        return found
    for one in FORMATS:
        if path.suffix.lower() in one.endings:
            return one
    endings = ", ".join(f"{one.endings[0]} ({one.title})" for one in FORMATS)
    raise UsageError(f"{path}: its ending tells no format; there are {endings}")


def require_library(form: VectorFormat) -> None:
    """Raise UsageError where a format needs a library that is not there; called before any work."""
    if not form.driver and find_spec("pyarrow") is None:
        raise UsageError(
            f"{form.title} needs the library pyarrow; pip install 'geothresh[parquet]', or choose "
            "another format"
        )


def _named(name: str) -> VectorFormat:
    for one in FORMATS:
        if one.name == name:
            return one
    raise UsageError(
        f"format {name!r} is not known; there are {', '.join(f.name for f in FORMATS)}"
    )


def ogr_path(path: Path) -> str:
    """A path that pyogrio and GDAL take for the file of that name.

    Raises:
        UsageError: they would open another file.
    """
    # A relative path could begin like a protocol of pyogrio, or a database of GDAL.
    absolute = str(path.absolute())
    if _OF_ADDRESSES.search(absolute):
        raise UsageError(
            f"{path}: the libraries that read and write vectors take a name with ;, ! or a "
            "line break in it, or one that ends in .zip, for the address of another file; rename it"
        )
    return absolute


def check_layer_name(name: str) -> str:
    """Return `name` if it is a valid layer name.

    Letters, digits and underscores only: such a name needs no quotes in SQL in any program.

    Raises:
        UsageError: it is not.
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
