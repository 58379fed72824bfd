"""Make valid polygons with measures, in map coordinates, from outlines in pixels.

Outlines come in pixel coordinates, which are integers. So their areas are exact, and corners that
touch have equal coordinates, on the map too. For a polygon of a million corners, the check whether
it is valid takes longer than all other steps. So each polygon is checked only once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from geothresh.geobox import GeoBox
from geothresh.raster.rings import Outlines
from geothresh.skeleton.tracing import smoothed
from geothresh.types import Float64Array, Int64Array
from geothresh.vector.spill import Shapes, Spill, joined, parts_of, taken
from geothresh.vector.units import ROUNDING, Geometries, MapUnits

# Most corners of the polygons in a batch: numpy is fast with so many, and several copies fit in
# memory.
_BATCH = 1 << 16

# Most pixels by which smoothing may move an outline: a staircase is this far off its slope.
_HALF = 0.5

# Shapely's numbers of these types of geometries.

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7


def on_map(geometries: Geometries, box: GeoBox) -> Geometries:
    """Transform geometries from pixels (column, row) to x, y in the CRS of a raster."""
    placed: Geometries = shapely.transform(geometries, box.to_map)
    return placed


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonBatch:
    """Polygons and their attributes; entry k of each array belongs to polygon k."""

    geometry: Shapes
    """(n,) valid Polygons; a MultiPolygon where the repair of a polygon gives several parts."""

    area: Float64Array
    """(n,) area without the holes, in the unit of `MapUnits.area_field`."""

    perimeter: Float64Array
    """(n,) length of the outline, holes included, in the unit of `MapUnits.perimeter_field`."""

    compactness: Float64Array
    """(n,) 4 pi area / perimeter squared: 1 for a circle, 0.785 for a square, near 0 for a thin
    line."""

    length: Float64Array
    """(n,) longer side of the minimum rotated rectangle, in the unit of `MapUnits.length_field`."""

    width: Float64Array
    """(n,) shorter side of that rectangle, in the same unit."""

    orientation: Float64Array
    """(n,) direction of the longer side on the map, in degrees from the y axis (north) towards the
    x axis (east), in [0, 180)."""

    first_pixel: Int64Array
    """(n,) row * width + column of the first pixel in reading order; identifies the polygon."""

    meeting: Int64Array
    """(k,) row * (width + 1) + column of pixel corners at which a polygon touches itself or another
    one diagonally; an entry for each time that an outline of `geometry` passes such a corner."""

    pixels: int
    """Pixels inside all polygons of the mask, including those left out."""

    left_out: int
    """Number of polygons left out, as they were smaller than the least area."""


# The fields with a number for each polygon; all but the last are computed from its geometry.
_MEASURED = ("area", "perimeter", "compactness", "length", "width", "orientation")
_NUMBERS = (*_MEASURED, "first_pixel")
_NONE = Outlines(
    corners=np.empty((0, 2), np.int64),
    rings=np.zeros(1, np.int64),
    polygons=np.zeros(1, np.int64),
    meeting=np.empty(0, np.bool_),
)


def make_polygons(
    outlines: Iterable[Outlines],
    *,
    box: GeoBox,
    units: MapUnits,
    min_area: float = 0.0,
    smooth: bool = False,
    simplify: float = 0.0,
    spill: Spill | None = None,
) -> PolygonBatch:
    """Make the polygons of a mask, in reading order of their first pixels.

    Args:
        outlines: polygons in pixel coordinates.
        box: georeference of the mask.
        units: units of the map coordinates.
        min_area: leave out polygons smaller than this, in the unit of `MapUnits.area_field`. They
            are measured before they are smoothed and simplified.
        smooth: remove the staircases of outlines, see `without_staircases`; before they are
            simplified.
        simplify: tolerance, see `simplified`; 0 keeps every corner.
        spill: file that stores the polygons; None = they are kept in memory. Polygons that are
            simplified are always kept in memory, as all of them are simplified together.

    Returns:
        The polygons. Unless smoothed, simplified or in longitude and latitude, the area of each is
        its number of pixels times the pixel area.

    Raises:
        OutputError: the file cannot be written or read.
    """
    if simplify > 0:
        spill = None
    kept: list[Shapes] = []
    numbers: dict[str, list[Any]] = {name: [] for name in (*_NUMBERS, "meeting")}
    pixels = left_out = 0
    some = (part for whole in outlines for part in whole.cut(_BATCH))
    for batch in (_make_batch(part, box, units, min_area) for part in some):
        kept.append(_kept(batch, spill))
        for name, values in numbers.items():
            values.append(getattr(batch, name))
        pixels, left_out = pixels + batch.pixels, left_out + batch.left_out
    if not kept:
        return _make_batch(_NONE, box, units, min_area)
    order = np.argsort(np.concatenate(numbers["first_pixel"]))
    meeting = np.concatenate(numbers.pop("meeting"))
    # Each list is removed when it is joined, before the next one is, to save memory.
    arrays: dict[str, Any] = {name: np.concatenate(numbers.pop(name))[order] for name in _NUMBERS}
    geometry = taken(joined(kept), order)
    whole = PolygonBatch(
        geometry=geometry, **arrays, meeting=meeting, pixels=pixels, left_out=left_out
    )
    if smooth:
        whole = _smoothed(whole, box, units, spill)
    return _simplified(whole, simplify, units) if simplify > 0 else whole


def _kept(batch: PolygonBatch, spill: Spill | None) -> Shapes:
    """The geometries of a batch, stored in the file if there is one."""
    return batch.geometry if spill is None else spill.add(batch.geometry[:])


def _smoothed(
    whole: PolygonBatch, box: GeoBox, units: MapUnits, spill: Spill | None
) -> PolygonBatch:
    """Smooth polygons and measure them again, part by part."""
    places, count = np.unique(whole.meeting, return_counts=True)
    kept: list[Shapes] = []
    numbers: dict[str, list[Any]] = {name: [] for name in _MEASURED}
    for part in parts_of(whole.geometry):
        geometry = without_staircases(whole.geometry[part], box, fixed=places[count > 1])
        measured = _measures(geometry, *units.areas_and_perimeters(geometry), units)
        kept.append(geometry if spill is None else spill.add(geometry))
        for name, values in numbers.items():
            values.append(measured[name])
    arrays: dict[str, Any] = {name: np.concatenate(values) for name, values in numbers.items()}
    return replace(whole, geometry=joined(kept), **arrays)


def _simplified(whole: PolygonBatch, tolerance: float, units: MapUnits) -> PolygonBatch:
    """Simplify all polygons together, and measure them again."""
    geometry = simplified(whole.geometry[:], tolerance, units)
    area, perimeter = units.areas_and_perimeters(geometry)
    return replace(whole, geometry=geometry, **_measures(geometry, area, perimeter, units))


def _make_batch(
    outlines: Outlines,
    box: GeoBox,
    units: MapUnits,
    min_area: float,
) -> PolygonBatch:
    pixels = outlines.areas()
    column, row = outlines.firsts.T
    first_pixel = row * box.size.width + column
    geometry = repaired(
        shapely.from_ragged_array(
            shapely.GeometryType.POLYGON,
            box.to_map(outlines.corners.astype(np.float64)),
            (outlines.rings, outlines.polygons),
        )
    )
    area, perimeter = units.areas_and_perimeters(geometry)
    if units.plane_area is not None:
        # The number of pixels times the pixel area is exact; sums over map coordinates are rounded.
        area = pixels.astype(np.float64) * (box.pixel_area * units.plane_area)
    kept = area >= min_area * (1 - ROUNDING)
    return PolygonBatch(
        geometry=geometry[kept],
        **_measures(geometry[kept], area[kept], perimeter[kept], units),
        first_pixel=first_pixel[kept],
        meeting=outlines.meetings(kept, box.size.width),
        pixels=int(pixels.sum()),
        left_out=int(np.count_nonzero(~kept)),
    )


def _measures(
    geometry: Geometries, area: Float64Array, perimeter: Float64Array, units: MapUnits
) -> dict[str, Any]:
    """The fields of `PolygonBatch` that are computed from its geometries, by name."""
    length, width, orientation = rectangles(geometry, units)
    return {
        "area": area,
        "perimeter": perimeter,
        "compactness": 4 * np.pi * area / perimeter**2,
        "length": length,
        "width": width,
        "orientation": orientation,
    }


def rectangles(
    geometry: Geometries, units: MapUnits
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Length, width and orientation of each geometry's minimum rotated rectangle.

    Args:
        geometry: (n,) polygons.
        units: units of their coordinates. Lengths are measured in the plane, with the scales at the
            middle of each geometry (`MapUnits.metric_scales`).

    Returns:
        Three arrays (n,), see the fields of `PolygonBatch`.
    """
    # Coordinates are taken relative to the lower left corner of each geometry: map coordinates in
    # the millions leave few digits for metres.
    corner = shapely.bounds(geometry).reshape(-1, 4)[:, :2]
    _, owner = shapely.get_coordinates(geometry, return_index=True)
    near = shapely.transform(geometry, lambda xy: xy - corner[owner])
    around = shapely.oriented_envelope(_scaled(near, units.metric_scales(geometry)))
    corners = shapely.get_coordinates(shapely.get_exterior_ring(around)).reshape(-1, 5, 2)
    sides = np.diff(corners[:, :3], axis=1)
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    longer = np.take_along_axis(sides, lengths.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    # The orientation is that of an axis without a direction, so that 180 degrees are 0.
    degrees = np.degrees(np.arctan2(longer[:, 0], longer[:, 1])) % 180
    degrees[np.isclose(degrees, 180, rtol=0, atol=1e-9)] = 0.0
    return lengths.max(axis=1, initial=0), lengths.min(axis=1, initial=np.inf), degrees


def repaired(geometry: Geometries) -> Geometries:
    """Repair invalid polygons; valid geometries are returned as they are.

    Args:
        geometry: (n,) geometries.

    Returns:
        (n,) valid geometries: a repaired one is a Polygon, or a MultiPolygon if it has several
        parts.
    """
    invalid = ~shapely.is_valid(geometry)
    if not invalid.any():
        return geometry
    result = geometry.copy()
    result[invalid] = [_areal(part) for part in shapely.make_valid(geometry[invalid])]
    return result


def _areal(geometry: Any) -> Any:
    """The Polygon or MultiPolygon in a repaired geometry, without its points and lines."""
    kind = shapely.get_type_id(geometry)
    if kind in (_POLYGON, _MULTIPOLYGON):
        return geometry
    if kind != _COLLECTION:
        return shapely.Polygon()
    parts = shapely.get_parts(shapely.get_parts(geometry))
    parts = parts[shapely.get_type_id(parts) == _POLYGON]
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)


def without_staircases(geometry: Geometries, box: GeoBox, *, fixed: Int64Array) -> Geometries:
    """Smooth the staircases of polygons along pixel edges; points move by at most half a pixel.

    Points at which polygons touch each other or themselves stay fixed. All other parts of outlines
    are at least a pixel apart, so that they cannot meet, and valid polygons stay valid.

    Args:
        geometry: (n,) polygons in map coordinates, whose points are corners of pixels.
        box: georeference of the mask.
        fixed: (k,) row * (width + 1) + column of the points that stay fixed, in ascending order.

    Returns:
        (n,) valid Polygons and MultiPolygons in map coordinates.
    """
    # All points are corners of pixels, so that rounding restores them exactly.
    pixels = shapely.transform(geometry, lambda xy: np.rint(box.to_pixels(xy)))
    # Smoothing takes means over points, which must be evenly spaced: add each pixel corner along
    # the edges.
    pixels = shapely.segmentize(pixels, 1.0)
    parts, owner = shapely.get_parts(pixels, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    # The last point of each ring is its first.
    last = np.append(np.diff(ring) > 0, True)[: len(ring)]
    column, row = np.rint(points).astype(np.int64).T
    stays = np.isin(row * (box.size.width + 1) + column, fixed)
    ends = np.searchsorted(ring, np.arange(len(rings) + 1))
    moved = np.empty_like(points)
    for k in range(len(rings)):
        span = np.s_[ends[k] : ends[k + 1]]
        moved[span] = smoothed(points[span], most=_HALF)
    moved[stays] = points[stays]
    first = ends[:-1]
    moved[last] = moved[first]
    smooth_rings = shapely.linearrings(moved, indices=ring)
    starts = np.searchsorted(part, np.arange(len(parts) + 1))
    polygons = np.array(
        [
            shapely.Polygon(smooth_rings[a], smooth_rings[a + 1 : b])
            for a, b in zip(starts[:-1], starts[1:], strict=True)
        ],
        dtype=object,
    )
    single = np.bincount(owner, minlength=len(geometry)) == 1
    result = geometry.copy()
    result[single] = polygons[single[owner]]
    for k in np.flatnonzero(~single).tolist():
        result[k] = shapely.multipolygons(polygons[owner == k])
    return repaired(on_map(result, box))


def simplified(geometry: Geometries, tolerance: float, units: MapUnits) -> Geometries:
    """Simplify polygons together, so that none crosses another or itself.

    A corner is removed if the triangle that it makes with its neighbours is smaller than a square
    with a side of `tolerance` (Visvalingam and Whyatt 1993), the smallest triangle first. Polygons
    that touch still touch, in the same point or along the same line (`shapely.coverage_simplify`).
    A polygon that would vanish stays as it is.

    Args:
        geometry: (n,) valid polygons, which do not overlap.
        tolerance: side of the square in the unit of length of `units`: metres, if the CRS has a
            known unit. It is exact in the middle of all polygons.
        units: units of the map coordinates.

    Returns:
        (n,) valid Polygons and MultiPolygons.
    """
    if not geometry.size:
        return geometry
    left, bottom, right, top = shapely.total_bounds(geometry)
    middle = shapely.points([[(left + right) / 2, (bottom + top) / 2]])
    # All polygons have the same scale, as shared corners must stay equal.
    scale, corner = units.metric_scales(middle)[0], np.array([left, bottom])
    metric = shapely.transform(geometry, lambda xy: (xy - corner) * scale)
    coarse = shapely.coverage_simplify(metric, tolerance)
    coarse = repaired(shapely.transform(coarse, lambda xy: xy / scale + corner))
    lost = shapely.is_empty(coarse)
    coarse[lost] = geometry[lost]
    return coarse


def _scaled(geometry: Geometries, scales: Float64Array) -> Geometries:
    """Multiply x and y of each geometry by its own factors, (n, 2)."""
    _, owner = shapely.get_coordinates(geometry, return_index=True)
    scaled: Geometries = shapely.transform(geometry, lambda xy: xy * scales[owner])
    return scaled
