"""A layer of vectors: geometries, attributes and metadata, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from geothresh.vector.units import Geometries

# Shapely's numbers of the types, and what makes one of parts.
_MULTI = {
    "MultiLineString": (5, shapely.multilinestrings),
    "MultiPolygon": (6, shapely.multipolygons),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is written as one layer."""

    name: str
    """See `check_layer_name`."""
    kind: Literal["Polygon", "LineString", "Point"]
    """What its geometries are; a layer with a geometry of several parts among them is one of
    MultiPolygons or MultiLineStrings."""
    geometry: Geometries
    """(n,) valid; n may be 0."""
    attributes: Mapping[str, NDArray[Any]]
    """Name -> (n,) numbers; NaN is written as NULL."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Text that is kept with it."""


def of_one_type(layer: Layer) -> tuple[str, Geometries]:
    """The type of a layer, and its geometries in that type."""
    kinds = shapely.get_type_id(layer.geometry)
    for kind, (number, collect) in _MULTI.items():
        if np.any(kinds == number):
            # Each as a multi-part one: a layer has one type.
            parts, owner = shapely.get_parts(layer.geometry, return_index=True)
            return kind, np.asarray(collect(parts, indices=owner), object)
    return layer.kind, layer.geometry


class Mismatch(Exception):
    """What was read back is not what was written."""
