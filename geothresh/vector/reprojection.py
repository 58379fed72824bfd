"""Reproject vectors from one CRS to another."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from geothresh.errors import InputError, UsageError
from geothresh.vector.polygons import repaired
from geothresh.vector.spill import Shapes, changed
from geothresh.vector.units import Geometries

# Rough radius of the Earth, and the extent above which a feature reaches around the world; metres.
_EARTH_RADIUS, _WORLD = 6.4e6, 1.5e7


def crs_of(text: str) -> CRS:
    """Make a two-dimensional CRS from a code, a PROJ string or WKT.

    Raises:
        UsageError: the CRS is not known.
    """
    try:
        return CRS.from_user_input(text).to_2d()
    except CRSError as error:
        raise UsageError(
            f"CRS {text[:80]!r} is not known ({' '.join(str(error).split())[:200]}); give one such "
            "as EPSG:4326"
        ) from error


def to_crs(shapes: Shapes, crs: CRS, destination: CRS) -> Shapes:
    """Reproject geometries from one CRS to another, corner by corner, and repair them.

    In longitude and latitude, geometries that cross the 180th meridian are cut there (RFC 7946,
    3.1.9). They would reach around the globe otherwise. From another CRS, those wider than 180
    degrees are taken to cross it; from longitude and latitude, only those that reach beyond it.

    Args:
        shapes: (n,) geometries; if they are stored in a file, so is the result.
        crs: their CRS.
        destination: the CRS of the result.

    Returns:
        (n,) valid geometries.

    Raises:
        InputError: a corner cannot be transformed, or a geometry would reach around the world or
            shrink to nothing.
        OutputError: the file with the geometries cannot be written or read.
    """
    transformer = Transformer.from_crs(crs, destination, always_xy=True)
    # Longitudes of a rotated pole are others.
    angular = all(one.is_geographic and not one.is_derived for one in (crs, destination))
    torn = lost = 0

    def move(some: Geometries) -> Geometries:
        nonlocal torn, lost
        moved = reprojected(some, transformer)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise InputError(
                f"part of the vectors has no place in {short_name(destination)}; choose another "
                "`dst_crs`"
            )
        if destination.is_geographic:
            turn = turn_of(destination)
            if angular:
                moved = _continued(moved, some, turn, turn_of(crs))
            moved = _cut_at_meridian(moved, turn, torn=not angular)
        else:
            torn += _torn(some, moved, crs, destination)
        # Rounding can make nearby edges cross.
        areal = shapely.get_dimensions(moved) == 2
        moved[areal] = repaired(moved[areal])
        lost += int(np.count_nonzero(shapely.is_empty(moved)))
        return moved

    moved = changed(shapes, move)
    if lost:
        raise InputError(
            f"{lost} of {len(shapes)} features shrink to nothing in {short_name(destination)}; "
            "choose another `dst_crs`"
        )
    if torn:
        raise InputError(
            f"{torn} of {len(shapes)} features lie where {short_name(destination)} is cut, at the "
            "180th meridian or a pole, and would reach around the world; choose another `dst_crs`"
        )
    return moved


def _torn(shapes: Geometries, moved: Geometries, crs: CRS, destination: CRS) -> int:
    """Number of small geometries that a projection has stretched around the world."""
    far, near = (
        np.hypot(*(np.diff(shapely.bounds(some).reshape(-1, 2, 2), axis=1)[:, 0].T)) * unit
        for some, unit in ((moved, rough_metres(destination)), (shapes, rough_metres(crs)))
    )
    return int(np.count_nonzero((far > _WORLD) & (near < _WORLD / 10)))


def turn_of(crs: CRS) -> float:
    """360 degrees in the unit of a geographic CRS."""
    return float(2 * math.pi / crs.axis_info[0].unit_conversion_factor)


def rough_metres(crs: CRS) -> float:
    """Rough length of one unit of a CRS, in metres; of a degree, that at the equator."""
    unit = float(crs.axis_info[0].unit_conversion_factor)
    return unit * _EARTH_RADIUS if crs.is_geographic else unit


def _continued(moved: Geometries, shapes: Geometries, turn: float, own: float) -> Geometries:
    """Geometries with longitudes in the turn of those that they were transformed from.

    A change of datum wraps them to [-180, 180] degrees, which tears geometries.

    Args:
        moved: (n,) geometries in longitude and latitude.
        shapes: (n,) geometries before the transformation, in longitude and latitude too.
        turn: 360 degrees, in the unit of `moved`.
        own: 360 degrees, in the unit of `shapes`.
    """
    points = shapely.get_coordinates(moved)
    before = shapely.get_coordinates(shapes)[:, 0] * (turn / own)
    points[:, 0] += turn * np.round((before - points[:, 0]) / turn)
    return np.asarray(shapely.set_coordinates(moved.copy(), points), object)


def _cut_at_meridian(shapes: Geometries, turn: float, *, torn: bool) -> Geometries:
    """Cut geometries at the 180th meridian, and wrap longitudes to [-180, 180] degrees.

    Args:
        shapes: (n,) geometries in longitude and latitude.
        turn: 360 degrees, in the unit of the coordinates.
        torn: whether a geometry wider than half the globe is taken to cross the 180th meridian.
    """
    west, _, east, _ = shapely.bounds(shapes).T
    wide = (east - west > turn / 2) & torn
    beyond = (west < -turn / 2) | (east > turn / 2) | wide
    whole = shapes.copy()
    for index in np.flatnonzero(beyond):
        whole[index] = _cut(shapes[index], turn, torn=wide[index])
    return whole


def _cut(shape: BaseGeometry, turn: float, *, torn: bool) -> BaseGeometry:
    west, _, east, _ = shape.bounds
    if torn:
        shape = _shifted(shape, np.array([turn, 0.0]), where=0.0)
        # The shift can make nearby edges cross.
        (shape,) = repaired(np.array([shape], object))
        west, _, east, _ = shape.bounds
    pieces = []
    for lap in range(math.floor(west / turn + 0.5), math.ceil(east / turn - 0.5) + 1):
        middle = lap * turn
        piece = shapely.intersection(
            shape, shapely.box(middle - turn / 2, -turn, middle + turn / 2, turn)
        )
        pieces.append(_shifted(piece, np.array([-middle, 0.0])))
    parts = shapely.get_parts(shapely.get_parts(pieces))
    dimension = shapely.get_dimensions(shape)
    # A geometry that only touches the meridian leaves points or lines on it.
    parts = parts[shapely.get_dimensions(parts) == dimension]
    if len(parts) == 1:
        return parts[0]
    collect = shapely.multipolygons if dimension == 2 else shapely.multilinestrings
    return collect(parts)


def _shifted(
    shape: BaseGeometry, by: NDArray[np.float64], *, where: float = math.inf
) -> BaseGeometry:
    """Move the corners of a geometry that are west of a longitude; by default all corners."""
    return shapely.transform(shape, lambda points: points + (points[:, :1] < where) * by)


def reprojected(shapes: Geometries, transformer: Transformer) -> Geometries:
    """Transform every corner of (n,) geometries to another CRS, without any repair."""

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transformer.transform(points[:, 0], points[:, 1]), axis=1)

    return np.asarray(shapely.transform(shapes, move), object)


def short_name(crs: CRS) -> str:
    """The code of a CRS, such as EPSG:4326, or else its name."""
    code = crs.to_authority()
    return ":".join(code) if code else str(crs.name)
