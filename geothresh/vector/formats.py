"""Vector file formats, by name or by the ending of the file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from geothresh.errors import UsageError


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
    """Of its files; the first where one has to be made up."""
    side_endings: tuple[str, ...] = ()
    """Of the files that go with the one that is named."""
    crs: str | None = None
    """The only CRS that it knows; None where it takes any."""
    index_endings: tuple[str, ...] = ()
    """Of files that other programs put beside it, and that are wrong once it is replaced."""


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
        side_endings=(".shx", ".dbf", ".prj", ".cpg"), index_endings=(".qix", ".sbn", ".sbx"),
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
