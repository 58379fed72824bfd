"""What is written as a layer, in whatever format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from geothresh.vector.units import Geometries

_MULTIPOLYGON = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is written as one layer."""

    name: str
    """See `check_layer_name`."""
    kind: Literal["Polygon", "LineString", "Point"]
    """What its geometries are; a layer of Polygons with a MultiPolygon among them is one of
    MultiPolygons."""
    geometry: Geometries
    """(n,) valid; n may be 0."""
    attributes: Mapping[str, NDArray[Any]]
    """Name -> (n,) numbers; NaN is written as NULL."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Text that is kept with it."""


def of_one_type(layer: Layer) -> tuple[str, Geometries]:
    """The type of a layer, and its geometries in that type."""
    if np.any(shapely.get_type_id(layer.geometry) == _MULTIPOLYGON):
        return "MultiPolygon", _all_multi(layer.geometry)
    return layer.kind, layer.geometry


class Mismatch(Exception):
    """What was read back is not what was written."""


def _all_multi(geometry: Geometries) -> Geometries:
    """Each geometry as a MultiPolygon: a layer has one type."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    together: Geometries = shapely.multipolygons(parts, indices=owner)
    return together
