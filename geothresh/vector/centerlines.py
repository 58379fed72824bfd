"""Make centrelines with lengths and widths, in map coordinates, from a network in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geothresh.geobox import GeoBox
from geothresh.skeleton.graph import CONFIDENCE, WIDTH, Network
from geothresh.skeleton.ground import UNIT, shapes_of, widenings
from geothresh.skeleton.tracing import smoothed
from geothresh.types import BoolArray, Float64Array, Int64Array
from geothresh.vector.polygons import on_map
from geothresh.vector.units import ROUNDING, Geometries, MapUnits

# Least ratio of the lengths of a degree of longitude and of latitude that is used. It is reached
# 0.06 degrees from the poles.
_NARROWEST = 1e-3
# Tolerance in pixels within which points are removed that a line does not need.
_NEEDLESS = 0.3

#: Names of the attributes with statistics of the confidences along a line, or in a polygon.
CONFIDENCE_FIELDS = ("confidence_mean", "confidence_min", "confidence_p10")


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelGround:
    """The `Ground` of a raster: shape and size of its pixels, from its CRS and transform."""

    box: GeoBox
    """Georeference of the raster."""
    units: MapUnits
    """Units of the map coordinates."""

    def sides(self, places: Float64Array) -> Float64Array:
        """See `Ground`."""
        return _pixel_sides(self._points(places), self.box, self.units)

    def shapes(self, places: Float64Array) -> Float64Array:
        """See `Ground`."""
        return _pixel_shapes(self._points(places), self.box, self.units)

    def _points(self, places: Float64Array) -> Geometries:
        return on_map(shapely.points(places[:, ::-1]), self.box)


@dataclass(frozen=True, slots=True, kw_only=True)
class Centerlines:
    """Lines and nodes with their attributes; entry k of each array belongs to line or node k."""

    geometry: Geometries
    """(n,) valid LineStrings."""
    length: Float64Array
    """(n,) length, in the unit of `MapUnits.length_field`."""
    width: Float64Array
    """(n,) mean full width of the mask along the line, in the same unit."""
    width_min: Float64Array
    """(n,) least full width of the mask along the line, in the same unit."""
    confidence: dict[str, Float64Array]
    """(n,) values for each name of `CONFIDENCE_FIELDS`, NaN for lines without data. Empty if the
    network has no confidences."""
    bridged: BoolArray
    """(n,) True = the line bridges a gap of the mask, and has no width (NaN)."""
    nodes: Geometries
    """(m,) Points at which lines end or meet."""
    degree: Int64Array
    """(m,) number of line ends at each node, 1 or more."""
    left_out: int
    """Number of lines left out, as they were shorter than the least length."""

    def attributes(self, units: MapUnits, *, bridges: bool) -> dict[str, NDArray[Any]]:
        """The attributes of the lines by their names in a layer, (n,) each.

        Args:
            units: units of the map coordinates, which the names have as a suffix.
            bridges: whether to add the attribute ``bridged``: True = the line bridges a gap.
        """
        marks = {"bridged": self.bridged} if bridges else {}
        return {
            units.length_field: self.length,
            units.width_field: self.width,
            f"width_min_{units.suffix}": self.width_min,
            **self.confidence,
            **marks,
        }


def make_centerlines(
    network: Network,
    *,
    box: GeoBox,
    units: MapUnits,
    confident: bool = False,
    min_length: float = 0.0,
    simplify: float = 0.0,
) -> Centerlines:
    """Smooth the lines of a network, transform them to map coordinates, and measure them.

    Args:
        network: the network in pixels, pruned or not.
        box: georeference of the mask.
        units: units of the map coordinates.
        confident: whether the network has confidences.
        min_length: leave out shorter lines, in the unit of `MapUnits.length_field`, if they have a
            free end or are isolated rings. Lines that connect others stay.
        simplify: tolerance in the same unit within which lines are simplified (Douglas-Peucker); 0
            = no further simplification.
    """
    before = len(network.lines)
    while True:
        geometry = _placed(network, box)
        length = units.lengths(geometry)
        short = (length < min_length * (1 - ROUNDING)) & _dangling(network)
        if not short.any():
            break
        # Removing lines joins others, which are then longer: check again.
        network = network.without(short)
    if simplify > 0:
        geometry = _simplified(geometry, simplify, units)
        length = units.lengths(geometry)
    pixel = _pixel_sides(geometry, box, units)
    wide = _widths(network, _pixel_shapes(geometry, box, units))
    used = network.degrees > 0
    return Centerlines(
        geometry=geometry,
        length=length,
        width=np.array([w.mean() for w in wide]) * pixel,
        width_min=np.array([w.min() for w in wide], np.float64) * pixel,
        confidence=_confidences(network) if confident else {},
        bridged=network.bridges,
        nodes=on_map(shapely.points(network.positions[used][:, ::-1]), box),
        degree=network.degrees[used],
        left_out=before - len(network.lines) if min_length > 0 else 0,
    )


def pixel_side(box: GeoBox, units: MapUnits) -> float:
    """Side of a square with the area of the pixel in the middle of a raster.

    It is in the unit of `MapUnits.length_field`.
    """
    middle = on_map(shapely.points([[box.size.width / 2, box.size.height / 2]]), box)
    return float(_pixel_sides(middle, box, units)[0])


def _pixel_sides(geometry: Geometries, box: GeoBox, units: MapUnits) -> Float64Array:
    """(n,) side of a square with the area of a pixel, at the middle of each geometry."""
    along, across = _scales(geometry, units).T
    return np.asarray(np.sqrt(box.pixel_area * along * across), np.float64)


def _pixel_shapes(geometry: Geometries, box: GeoBox, units: MapUnits) -> Float64Array:
    """(n, 2, 2) shape of a pixel at the middle of each geometry, see `Ground`."""
    scales = _scales(geometry, units)
    a, b, _, d, e, _ = box.transform
    steps = np.array([[b, e], [a, d]])
    return shapes_of(steps * scales[:, None])


def _scales(geometry: Geometries, units: MapUnits) -> Float64Array:
    """(n, 2) metres of a unit along x and y at the middle of each geometry, above 0."""
    scales = np.abs(units.metric_scales(geometry))
    # At a pole pixels have no width, and so no shape.
    floor = _NARROWEST * scales.max(axis=1, keepdims=True, initial=0)
    return np.asarray(np.maximum(scales, floor), np.float64)


def _widths(network: Network, shapes: Float64Array) -> list[Float64Array]:
    """Widths on the ground at the pixels of each line, in sides of a square of a pixel's area."""
    found = []
    for line, shape in zip(network.lines, shapes, strict=True):
        wide = line.samples[:, WIDTH].astype(np.float64)
        if (shape != UNIT).any():
            wide *= widenings(np.stack(np.divmod(line.pixels, network.width), axis=1), shape)
        found.append(wide)
    return found


def _placed(network: Network, box: GeoBox) -> Geometries:
    lines = np.empty(len(network.lines), np.object_)
    for k in range(len(network.lines)):
        attached = bool(network.nodes[k, 0] >= 0)
        lines[k] = shapely.linestrings(smoothed(network.points(k), fixed=attached)[:, ::-1])
    return on_map(_thinned_out(lines, _NEEDLESS), box)


def _thinned_out(lines: Geometries, tolerance: float) -> Geometries:
    """Simplify lines (Douglas-Peucker); lines that would vanish stay as they are."""
    coarse: Geometries = shapely.simplify(lines, tolerance, preserve_topology=True)
    lost = shapely.is_empty(coarse) | ~shapely.is_valid(coarse)
    coarse[lost] = lines[lost]
    return coarse


def _simplified(lines: Geometries, tolerance: float, units: MapUnits) -> Geometries:
    scales = units.metric_scales(lines)
    _, owner = shapely.get_coordinates(lines, return_index=True)
    coarse = _thinned_out(shapely.transform(lines, lambda xy: xy * scales[owner]), tolerance)
    _, owner = shapely.get_coordinates(coarse, return_index=True)
    back: Geometries = shapely.transform(coarse, lambda xy: xy / scales[owner])
    return back


def _dangling(network: Network) -> BoolArray:
    """(n,) True = the line has a free end, or is an isolated ring."""
    nodes = network.nodes
    free = np.append(network.degrees == 1, True)
    return np.asarray(free[nodes].any(axis=1), np.bool_)


def _confidences(network: Network) -> dict[str, Float64Array]:
    lines = network.lines
    found = np.full((len(CONFIDENCE_FIELDS), len(lines)), np.nan)
    for k, line in enumerate(lines):
        values = line.samples[:, CONFIDENCE].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            found[:, k] = values.mean(), values.min(), np.percentile(values, 10)
    return dict(zip(CONFIDENCE_FIELDS, found, strict=True))
