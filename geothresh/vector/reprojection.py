"""Vectors brought from one CRS to another."""

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
from geothresh.vector.units import Geometries


def crs_of(text: str) -> CRS:
    """A CRS of two axes from a code, a PROJ string or WKT.

    Raises:
        UsageError: there is no such CRS.
    """
    try:
        return CRS.from_user_input(text).to_2d()
    except CRSError as error:
        raise UsageError(
            f"CRS {text[:80]!r} is not known ({' '.join(str(error).split())[:200]}); give one such "
            "as EPSG:4326"
        ) from error


def to_crs(shapes: Geometries, crs: CRS, destination: CRS) -> Geometries:
    """The shapes brought from one CRS to another, corner by corner.

    In longitude and latitude, what crosses the 180th meridian is cut there (RFC 7946, 3.1.9):
    otherwise it would reach around the globe.

    Raises:
        InputError: a corner has no place there.
    """
    moved = reprojected(shapes, Transformer.from_crs(crs, destination, always_xy=True))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(
            f"part of the vectors has no place in {short_name(destination)}; choose another "
            "--dst-crs"
        )
    if destination.is_geographic:
        turn = 2 * math.pi / destination.axis_info[0].unit_conversion_factor
        moved = _cut_at_meridian(moved, turn)
    # Rounding can make corners that were close together cross.
    return repaired(moved)


def _cut_at_meridian(shapes: Geometries, turn: float) -> Geometries:
    """Shapes that reach half around the globe, cut in two where the longitude jumps by a turn."""
    west, _, east, _ = shapely.bounds(shapes).T
    crossing = np.flatnonzero(east - west > turn / 2)
    whole = shapes.copy()
    for index in crossing:
        whole[index] = _cut(shapes[index], turn)
    return whole


def _cut(shape: BaseGeometry, turn: float) -> BaseGeometry:
    def unrolled(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return points + np.where(points[:, :1] < 0, [[turn, 0.0]], 0.0)

    # Rounding, and the unrolling, can make corners that were close together cross.
    (flat,) = repaired(np.array([shapely.transform(shape, unrolled)], object))
    low, high = -turn, turn  # of latitudes, and more
    east = shapely.intersection(flat, shapely.box(0, low, turn / 2, high))
    west = shapely.intersection(flat, shapely.box(turn / 2, low, turn, high))
    back = shapely.transform(west, lambda points: points - [turn, 0.0])
    parts = shapely.get_parts(shapely.get_parts([east, back]))
    dimension = shapely.get_dimensions(shape)
    # What only touches the meridian leaves points and lines there.
    parts = parts[shapely.get_dimensions(parts) == dimension]
    collect = shapely.multipolygons if dimension == 2 else shapely.multilinestrings
    return collect(parts)


def reprojected(shapes: Geometries, transformer: Transformer) -> Geometries:
    """The shapes with every corner moved to another CRS."""

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transformer.transform(points[:, 0], points[:, 1]), axis=1)

    return np.asarray(shapely.transform(shapes, move), object)


def short_name(crs: CRS) -> str:
    """Its code, or else its name."""
    code = crs.to_authority()
    return ":".join(code) if code else str(crs.name)
