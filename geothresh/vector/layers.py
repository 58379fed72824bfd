"""A vector layer in memory: geometries, rounded attributes and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geothresh.vector.spill import Shapes

Geometry: TypeAlias = Literal["Polygon", "LineString", "Point"]
"""Geometry types of a layer."""

# Decimals of shares and of degrees.
_SHARES, _DEGREES = 3, 2
# Ending of the names of directions without a sense, in degrees from 0 to 180.
_DIRECTION = "_deg"
# Decimals of metres and square metres, unless pixels are so small that more are meaningful.
_LEAST = 2
# Least side of a pixel that is used, in metres; less than that of any raster. At a pole pixels have
# no width.
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A vector layer: geometries with attributes and metadata."""

    name: str
    """Name of the layer, which `check_layer_name` accepts."""
    kind: Geometry
    """Geometry type. If any geometry has several parts, the layer is written as one of
    MultiPolygons or MultiLineStrings."""
    geometry: Shapes
    """(n,) valid geometries; n may be 0."""
    attributes: Mapping[str, NDArray[Any]]
    """(n,) values by the name of the attribute; NaN is written as NULL."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Texts by name that are written to the file. Names that begin with ``geothresh_`` tell how the
    layer was made."""

    @property
    def theme(self) -> str:
        """What the foreground shows, such as roads; empty if it is not known."""
        return self.metadata.get("geothresh_theme", "")

    @property
    def description(self) -> str:
        """A line of text with the content and the source of the layer; empty if not known."""
        if not self.metadata.get("geothresh_mask"):
            return ""
        told = {name.removeprefix("geothresh_"): text for name, text in self.metadata.items()}
        what = self.theme or "foreground"
        parts = [f"{'nodes of ' if self.kind == 'Point' else ''}{what} of {told['mask']}"]
        if told.get("model"):
            parts.append(f"model {told['model']} (sha256 {told.get('model_sha256') or 'unknown'})")
        if told.get("confidence"):
            parts.append(f"confidence {told['confidence']}")
        return "; ".join((*parts, f"geothresh {told.get('version', '')}".rstrip()))


class Mismatch(Exception):
    """What is read back from a file differs from what was written."""


def rounded(attributes: Mapping[str, NDArray[Any]], *, pixel: float) -> dict[str, NDArray[Any]]:
    """Round attributes by their names: metres to two decimals, shares to three.

    Directions stay below 180 degrees.

    Args:
        attributes: (n,) values by name; integers and booleans are not changed.
        pixel: side of a pixel, in the unit of length. If it is below 0.1, lengths and areas have
            more decimals.

    Example:
        >>> rounded({"length_m": np.array([12.3456])}, pixel=1.0)["length_m"].tolist()
        [12.35]
    """
    smaller = math.ceil(-math.log10(max(pixel, _SMALLEST)))
    lengths, areas = max(_LEAST, smaller + 1), max(_LEAST, 2 * smaller)
    result = dict(attributes)
    for name, values in attributes.items():
        if np.issubdtype(values.dtype, np.floating):
            result[name] = np.round(values.astype(np.float64), _decimals(name, lengths, areas))
            if name.endswith(_DIRECTION):
                # 179.996 is rounded to 180, which is the direction 0.
                result[name] %= 180
    return result


def _decimals(name: str, lengths: int, areas: int) -> int:
    if name.startswith("confidence_") or name == "compactness":
        return _SHARES
    if name.endswith(_DIRECTION):
        return _DEGREES
    return areas if name.startswith("area_") else lengths
