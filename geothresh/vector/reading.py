"""Read layers of vector files, which may come from an untrusted source.

GDAL opens more than vector files, such as lists of other files and addresses of services. So the
first bytes of a file are checked before GDAL opens it. A GeoJSON with a linked CRS is refused: RFC
7946 allows longitude and latitude only, but its predecessor had a member ``crs``, which names a CRS
or links to it, and GDAL downloads the link.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio import raw
from pyproj import CRS
from pyproj.exceptions import CRSError

from geothresh.errors import InputError, UsageError, names
from geothresh.files import head_of, require_file
from geothresh.options import Bounds
from geothresh.vector.formats import ogr_path
from geothresh.vector.units import Geometries

_STARTS = (
    b"SQLite format 3\0",  # GeoPackage
    b"\0\0\x27\x0a",  # the .shp of a shapefile
    b"fgb\x03",  # FlatGeobuf
)
# Parts of OGR's names of geometry types that have no lines. Collections and unknown types may have
# some.
_NO_LINES = re.compile("Point|Polygon|Surface|Triangle")
_OGR_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FieldError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.CRSError,
    shapely.errors.ShapelyError,
    UnicodeDecodeError,
    # pyogrio 0.13 raises this if GDAL cannot read a CRS.
    UnboundLocalError,
)

# Values of the member ``type`` of a CRS that is a link.
_LINKS = ("link", "url")


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorLayer:
    """The metadata of a layer of a vector file."""

    path: Path
    """The file."""
    name: str
    """Name of the layer."""
    crs: CRS | None
    """The CRS; None if the file has none, or one that is neither geographic nor projected."""
    fields: tuple[str, ...]
    """Names of the attributes."""
    n_features: int
    """Number of features in the layer; -1 = not known before it is read."""

    def __str__(self) -> str:
        return str(self.path) if self.name == self.path.stem else f"{self.path} ({self.name})"


def is_vector_file(path: str | os.PathLike[str]) -> bool:
    """Whether the first bytes of a file are those of a format that `find_layer` reads.

    Raises:
        InputError: the file does not exist, or cannot be read.
    """
    return _is_vector(_head(Path(os.fspath(path))))


def _head(file: Path) -> bytes:
    require_file(str(file), file)
    return head_of(str(file), file)


def _is_vector(head: bytes) -> bool:
    return head.startswith(_STARTS) or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def find_layer(
    path: str | os.PathLike[str],
    layer: str | None = None,
    *,
    option: str | None = "`layer`",
    lines: bool = False,
) -> VectorLayer:
    """Find a layer with geometries in a vector file, and read its metadata.

    Args:
        path: GeoPackage, shapefile (.shp), GeoJSON or FlatGeobuf.
        layer: name of the layer; may be None if only one layer has geometries.
        option: the option that chooses a layer, for messages; None = there is none.
        lines: whether to skip layers of points or polygons, such as the nodes of centrelines, if
            `layer` is None and other layers remain.

    Returns:
        The metadata of the layer.

    Raises:
        InputError: the file cannot be read, has another format, links to its CRS, or has no layer
            with geometries.
        UsageError: the layer does not exist, or one of several has to be chosen; or pyogrio would
            take the path for the address of another file.
    """
    file = Path(os.fspath(path))
    head = _head(file)
    if not _is_vector(head):
        raise InputError(
            f"{file}: is no GeoPackage, shapefile (.shp), GeoJSON or FlatGeobuf; convert it with "
            "ogr2ogr"
        )
    place = ogr_path(file)
    if not head.startswith(_STARTS):
        refuse_links(file)
    with _known_errors(file):
        kinds = {str(name): kind for name, kind in pyogrio.list_layers(place) if kind is not None}
        found = list(kinds)
        if not found:
            raise InputError(f"{file}: no layer in it has geometries; give one that does")
        if lines and layer is None:
            fitting = [name for name in found if not _NO_LINES.search(str(kinds[name]))]
            found = fitting or found
        if layer is None and len(found) > 1:
            advice = f"choose one with {option}" if option else "give a file with one"
            raise UsageError(f"{file}: holds {len(found)} layers ({names(found)}); {advice}")
        if layer is not None and layer not in found:
            raise UsageError(f"{file}: there is no layer {layer!r}; there are {names(found)}")
        name = layer or found[0]
        info = pyogrio.read_info(place, layer=name)
        return VectorLayer(
            path=file,
            name=name,
            crs=_crs_of(file, info["crs"]),
            fields=tuple(str(field) for field in info["fields"]),
            n_features=int(info["features"]),
        )


def read_geometries(
    layer: VectorLayer,
    *,
    within: Sequence[Bounds] | None = None,
    columns: Sequence[str] = (),
) -> tuple[Geometries, list[NDArray[Any]]]:
    """Read the features of a layer, with geometries in two dimensions.

    Args:
        layer: the layer, from `find_layer`.
        within: bounds (left, bottom, right, top) in the layer's CRS; features that touch none of
            them are left out. None = all features are read.
        columns: names of the attributes to read.

    Returns:
        (n,) geometries, and (n,) values of each attribute. Features with a missing or empty
        geometry are left out.

    Raises:
        InputError: the layer cannot be read.
    """
    parts = []
    with _known_errors(layer.path):
        for bounds in [None] if within is None else within:
            _, fids, wkb, values = raw.read(
                ogr_path(layer.path),
                layer=layer.name,
                columns=list(columns),
                bbox=bounds,
                force_2d=True,
                return_fids=True,
            )
            parts.append((fids, np.asarray(shapely.from_wkb(wkb), object), *values))
    numbers, *read = (np.concatenate(same) for same in zip(*parts, strict=True))
    # A feature may touch several bounds.
    _, first = np.unique(numbers, return_index=True)
    geometry, *columns_read = (one[first] for one in read)
    there = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    return geometry[there], [column[there] for column in columns_read]


def read_numbers(layer: VectorLayer, column: str) -> NDArray[np.float64]:
    """Read all values of a numeric attribute.

    Args:
        layer: the layer, from `find_layer`.
        column: name of the attribute.

    Returns:
        (n,) values of all features, NaN where the value is missing.

    Raises:
        UsageError: the attribute does not exist, or holds other values than numbers.
        InputError: the layer cannot be read.
    """
    return as_numbers(layer, column, read_attribute(layer, column))


def read_attribute(layer: VectorLayer, column: str) -> NDArray[Any]:
    """Read all values of an attribute.

    Args:
        layer: the layer, from `find_layer`.
        column: name of the attribute.

    Returns:
        (n,) values of all features.

    Raises:
        UsageError: the attribute does not exist.
        InputError: the layer cannot be read.
    """
    if column not in layer.fields:
        raise UsageError(
            f"{layer}: there is no attribute {column!r}; there are {names(layer.fields) or 'none'}"
        )
    with _known_errors(layer.path):
        _, _, _, (values,) = raw.read(
            ogr_path(layer.path), layer=layer.name, columns=[column], read_geometry=False
        )
    return np.asarray(values)


def as_numbers(layer: VectorLayer, column: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Convert the values of an attribute to numbers.

    Args:
        layer: the layer, for messages.
        column: name of the attribute, for messages.
        values: (n,) numbers, or texts of numbers; None or empty = missing.

    Returns:
        (n,) numbers, NaN where the value is missing.

    Raises:
        UsageError: a value is not a number, or infinite.
    """
    try:
        if values.dtype == object:
            values = np.array([np.nan if v in (None, "") else float(v) for v in values])
        numbers = np.asarray(values, np.float64)
        if np.isinf(numbers).any():
            raise ValueError("one is infinite")
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{layer}: the attribute {column!r} does not hold numbers only ({error}); choose "
            "another, or make one that does"
        ) from error
    return numbers


def _crs_of(file: Path, text: str | None) -> CRS | None:
    if not text:
        return None
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(
            f"{file}: the CRS of the layer cannot be understood ({error}); set it anew with "
            "ogr2ogr -a_srs"
        ) from error
    if crs.is_geocentric:
        raise InputError(
            f"{file}: the CRS of the layer, {crs.name}, has its origin in the centre of the Earth; "
            "transform it with ogr2ogr -t_srs"
        )
    # GDAL gives the "undefined" CRS of the GeoPackage standard as an engineering CRS.
    return crs if crs.is_geographic or crs.is_projected else None


@contextmanager
def _known_errors(file: Path) -> Iterator[None]:
    with warnings.catch_warnings():
        # pyogrio warns about dropped dimensions and unknown types of fields, which are not used.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            yield
        except _OGR_ERRORS as error:
            raise InputError(
                f"{file}: cannot be read ({' '.join(str(error).split())}); check that it is "
                "complete, or convert it with ogr2ogr"
            ) from error


class _Link:
    """Stands for a JSON object that is a link."""


def refuse_links(file: Path) -> None:
    """Raise InputError if a GeoJSON is not valid JSON, or links to its CRS.

    GDAL also reads files that are not valid JSON, in which a link could be hidden.
    """
    found = False

    def look(members: list[tuple[str, Any]]) -> _Link | None:
        nonlocal found
        for name, value in members:
            # GDAL ignores case.
            if name.lower() == "crs" and isinstance(value, _Link):
                found = True
        kinds = [value for name, value in members if name.lower() == "type"]
        is_link = any(isinstance(kind, str) and kind.lower() in _LINKS for kind in kinds)
        # Other objects are not kept, so that memory is bounded by the size of the file.
        return _Link() if is_link else None

    try:
        # Old programs write attributes in other encodings, which do not matter here.
        text = file.read_bytes().decode("utf-8-sig", errors="replace")
        json.loads(text, object_pairs_hook=look)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file}: is no GeoJSON ({error}); check that it is complete, or convert it with "
            "ogr2ogr"
        ) from error
    if found:
        raise InputError(
            f"{file}: names its CRS by a link, which would be fetched from the network; write it "
            "again with ogr2ogr -t_srs EPSG:4326"
        )
