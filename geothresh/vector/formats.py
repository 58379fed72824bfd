"""Define the vector file formats, and check the names of layers and files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from geothresh.errors import InputError, UsageError

#: Most characters of a layer name.
MOST_CHARACTERS = 63
_LAYER = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MOST_CHARACTERS - 1}}}")
#: The table of a GeoPackage in which QGIS looks for styles.
STYLES = "layer_styles"
# Beginnings of the names of tables of the GeoPackage standard and of SQLite itself. SQLite ignores
# case in names.
_RESERVED = ("gpkg_", "rtree_", "sqlite_")
# What pyogrio does not take as part of a path, but of an address: it cuts paths at a semicolon,
# looks inside archives, and drops line breaks.
_OF_ADDRESSES = re.compile(r"[;!\t\r\n]|\.zip$", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFormat:
    """A vector file format."""

    name: str
    """Name of the format on the command line."""
    title: str
    """Name of the format in messages."""
    driver: str
    """Name of the OGR driver; empty if the format is not written by OGR."""
    endings: tuple[str, ...]
    """File name extensions with the dot, the default first."""
    part_endings: tuple[str, ...] = ()
    """Extensions of further files of the same data set."""
    crs: str | None = None
    """The only CRS that the format allows; None = any CRS."""
    index_endings: tuple[str, ...] = ()
    """Extensions of index files by other programs, which are wrong after the file is replaced."""

    def require_crs(self, name: str, crs: str | None) -> None:
        """Refuse the raster `name` without a CRS if vectors of this format are in a given one.

        Raises:
            InputError: it has none.
        """
        if self.crs is not None and crs is None:
            raise InputError(
                f"{name}: has no CRS, and a {self.title} is in {self.crs} by its standard; assign "
                "one with gdal_edit -a_srs, or write .gpkg"
            )


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
    """The default file name extension of a format, with the dot; None = GeoPackage.

    Raises:
        UsageError: there is no such format.
    """
    return _named(name or GEOPACKAGE.name).endings[0]


def format_of(path: Path, name: str | None = None) -> VectorFormat:
    """The format of a file: `name`, or by default the format of its extension.

    Raises:
        UsageError: there is no format of that name or extension, or the extension is not one of the
            named format.
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
    """Raise UsageError if the library that a format needs is missing; called before any work."""
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
    """The absolute path of a file, for pyogrio and GDAL.

    Raises:
        UsageError: pyogrio would take the path for the address of another file.
    """
    # A relative path could begin like an address of pyogrio, or a connection string of GDAL.
    absolute = str(path.absolute())
    if _OF_ADDRESSES.search(absolute):
        raise UsageError(
            f"{path}: the libraries that read and write vectors take a name with ;, ! or a "
            "line break in it, or one that ends in .zip, for the address of another file; rename it"
        )
    return absolute


def check_layer_name(name: str) -> str:
    """Check the name of a layer, and return it.

    It has letters, digits and underscores only, so that it needs no quotes in SQL, in any program.

    Raises:
        UsageError: the name is too long, has other characters, or is reserved.
    """
    if not _LAYER.fullmatch(name):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise UsageError(
            f"layer name {shown!r}: use 1 to {MOST_CHARACTERS} letters, digits and underscores, "
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


def layer_name_from(
    stem: str, fallback: str = "polygons", *, longest: int = MOST_CHARACTERS
) -> str:
    """Make a valid layer name from the stem of a file.

    Other characters than letters, digits and underscores become underscores.

    Args:
        stem: any text, such as ``S2 2024-05 mask``.
        fallback: the name if the stem has no valid character.
        longest: most characters of the name.
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_")
    if not name:
        return fallback
    if name[0].isdigit() or name.lower().startswith((*_RESERVED, STYLES)):
        name = f"layer_{name}"
    return check_layer_name(name[:longest])
