"""Measure lengths and areas in metres, in any CRS.

Projected coordinates are measured in the plane and converted to metres, from feet for example.
Longitude and latitude are measured along geodesics of the CRS's ellipsoid. Coordinates of an
unknown unit (no CRS) and pixels are not converted. The names of the attributes have the unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod
from pyproj.exceptions import CRSError

from geothresh.errors import InputError, warn
from geothresh.types import Float64Array

Geometries = NDArray[np.object_]
"""(n,) shapely geometries."""


class Measure(Enum):
    """How lengths and areas are computed from coordinates."""

    PLANE = "plane"
    """Coordinates of a known linear unit, measured in the plane of the map, in metres."""

    GEODESIC = "geodesic"
    """Longitude and latitude, measured on the ellipsoid, in metres."""

    UNKNOWN = "unknown"
    """Coordinates of an unknown unit, measured in that unit."""

    PIXELS = "pixels"
    """Columns and rows, measured in pixels."""


# Longest edge that is measured as one geodesic, in degrees. Over this length the geodesic is at
# most about a metre away from the straight edge of the map, and areas differ by less than a part in
# a million.
_EDGE_DEGREES = 0.1

#: Share of a limit that a length or area may lack by rounding, and still be as large.
ROUNDING = 1e-9

_SUFFIX = {
    Measure.PLANE: "m",
    Measure.GEODESIC: "m",
    Measure.UNKNOWN: "units",
    Measure.PIXELS: "px",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapUnits:
    """The unit of map coordinates, and how lengths and areas are computed from them."""

    measure: Measure
    """How lengths and areas are computed."""

    unit: float = 1.0
    """Size of one unit of the coordinates: in metres (PLANE) or degrees (GEODESIC), else 1."""

    geod: Geod | None = None
    """The ellipsoid; for GEODESIC only."""

    @property
    def suffix(self) -> str:
        """Unit of length in the names of attributes: ``m``, ``units`` or ``px``."""
        return _SUFFIX[self.measure]

    @property
    def area_field(self) -> str:
        """Name of the area attribute: ``area_m2``, ``area_units2`` or ``area_px2``."""
        return f"area_{self.suffix}2"

    @property
    def perimeter_field(self) -> str:
        """Name of the perimeter attribute: ``perimeter_m``, ``_units`` or ``_px``."""
        return f"perimeter_{self.suffix}"

    @property
    def length_field(self) -> str:
        """Name of the length attribute: ``length_m``, ``_units`` or ``_px``."""
        return f"length_{self.suffix}"

    @property
    def width_field(self) -> str:
        """Name of the width attribute: ``width_m``, ``_units`` or ``_px``."""
        return f"width_{self.suffix}"

    @property
    def rectangle_fields(self) -> tuple[str, str]:
        """Names of the sides of a polygon's rectangle: ``rect_length_m``, ``rect_width_m``, ..."""
        return f"rect_{self.length_field}", f"rect_{self.width_field}"

    @property
    def plane_area(self) -> float | None:
        """Area of one square unit of the coordinates, in the unit of `area_field`.

        None if it depends on the place (GEODESIC).
        """
        return None if self.measure is Measure.GEODESIC else self.unit**2

    @classmethod
    def of(cls, crs_wkt: str | None, *, pixels: bool = False) -> MapUnits:
        """The units of a CRS.

        Warns if the unit is not known, or if the CRS is a Mercator projection, in which lengths
        grow away from the equator.

        Args:
            crs_wkt: the CRS as WKT; None = not known.
            pixels: whether coordinates are columns and rows; `crs_wkt` is then ignored.

        Raises:
            InputError: the CRS cannot be parsed, or is geocentric.
        """
        if pixels:
            return cls(measure=Measure.PIXELS)
        if crs_wkt is None:
            warn(
                "the mask has a transform but no CRS: areas and lengths are in its unknown unit "
                "(area_units2, perimeter_units), not in metres"
            )
            return cls(measure=Measure.UNKNOWN)
        try:
            crs = CRS.from_wkt(crs_wkt)
        except CRSError as error:
            raise InputError(
                f"the mask's CRS cannot be read: {error}; assign one with gdal_edit -a_srs"
            ) from error
        factors = {axis.unit_conversion_factor for axis in crs.axis_info[:2]}
        if crs.is_geographic and crs.ellipsoid is not None:
            geod = crs.get_geod()
            degrees = math.degrees(factors.pop()) if len(factors) == 1 else 1.0
            return cls(measure=Measure.GEODESIC, unit=degrees, geod=geod)
        if crs.is_geocentric:
            raise InputError(
                f"the mask's CRS {crs.name!r} is geocentric, which no raster can be in; "
                "assign the right one with gdal_edit -a_srs"
            )
        if len(factors) != 1 or not (unit := factors.pop()) > 0:
            warn(
                f"the CRS {crs.name!r} does not say its unit: areas and lengths are in that "
                "unknown unit (area_units2, perimeter_units), not in metres"
            )
            return cls(measure=Measure.UNKNOWN)
        # The projection of a compound CRS is that of its horizontal part.
        operation = crs.to_2d().coordinate_operation
        if operation and "Mercator" in operation.method_name.replace(
            "Transverse Mercator", ""
        ).replace("Oblique Mercator", ""):
            warn(
                f"in the CRS {crs.name!r} lengths grow away from the equator (twofold at 60 "
                "degrees), and so do area_m2 and perimeter_m, which are measured in its plane; "
                "reproject to a UTM zone for those on the ground"
            )
        return cls(measure=Measure.PLANE, unit=unit)

    def areas(self, polygons: Geometries) -> Float64Array:
        """Area of each polygon without its holes, in the unit of `area_field` (m2, ...)."""
        if self.measure is Measure.GEODESIC:
            return self._geodesic(polygons)[0]
        return np.asarray(shapely.area(polygons) * self.unit**2, np.float64)

    def perimeters(self, polygons: Geometries) -> Float64Array:
        """Length of each polygon's outlines, holes included, in the unit of `perimeter_field`."""
        if self.measure is Measure.GEODESIC:
            return self._geodesic(polygons)[1]
        return np.asarray(shapely.length(polygons) * self.unit, np.float64)

    def areas_and_perimeters(self, polygons: Geometries) -> tuple[Float64Array, Float64Array]:
        """Area and perimeter of each polygon, see `areas` and `perimeters`.

        On an ellipsoid it takes the time of one of these calls.
        """
        if self.measure is Measure.GEODESIC:
            return self._geodesic(polygons)
        return self.areas(polygons), self.perimeters(polygons)

    def lengths(self, lines: Geometries) -> Float64Array:
        """Length of each line, in the unit of `length_field`."""
        if self.geod is None:
            return np.asarray(shapely.length(lines) * self.unit, np.float64)
        length = np.empty(len(lines))
        for k, line in enumerate(shapely.segmentize(lines, _EDGE_DEGREES / self.unit)):
            length[k] = self.geod.line_length(*(shapely.get_coordinates(line) * self.unit).T)
        return length

    def metric_scales(self, geometries: Geometries) -> Float64Array:
        """(n, 2) lengths of one unit of x and of y, in the unit of `length_field`.

        On an ellipsoid they are computed from its radii of curvature at the middle of each
        geometry's extent: exact there, and right to a part in a thousand within some ten kilometres
        of it.
        """
        if self.geod is None:
            return np.full((len(geometries), 2), self.unit)
        _, south, _, north = shapely.bounds(geometries).reshape(-1, 4).T
        latitude = np.radians((south + north) / 2 * self.unit)
        flatness = 1 - self.geod.es * np.sin(latitude) ** 2
        across = self.geod.a / np.sqrt(flatness)
        along = across * (1 - self.geod.es) / flatness
        radians = math.radians(self.unit)
        return np.stack([across * np.cos(latitude) * radians, along * radians], axis=1)

    def _geodesic(self, polygons: Geometries) -> tuple[Float64Array, Float64Array]:
        """Area (m2) and perimeter (m) of each polygon, as sums over its rings."""
        if self.geod is None:
            raise ValueError("a geodesic measure needs its ellipsoid")
        # A geodesic between two corners is not a straight line on the map.
        polygons = shapely.segmentize(polygons, _EDGE_DEGREES / self.unit)
        parts, owner = shapely.get_parts(polygons, return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        owner = owner[part]
        # The first ring of a part is its shell, the others are holes, whose area is subtracted.
        sign = np.where(np.diff(part, prepend=-1) > 0, 1.0, -1.0)
        coordinates, ring = shapely.get_coordinates(rings, return_index=True)
        coordinates *= self.unit
        ends = np.searchsorted(ring, np.arange(rings.size + 1))
        area = np.empty(rings.size)
        length = np.empty(rings.size)
        for i in range(rings.size):
            x, y = coordinates[ends[i] : ends[i + 1]].T
            # The sign of the area tells the direction of the ring, which is arbitrary here.
            signed, length[i] = self.geod.polygon_area_perimeter(x, y)
            area[i] = abs(signed)
        n = len(polygons)
        areas = np.bincount(owner, weights=sign * area, minlength=n)
        lengths = np.bincount(owner, weights=length, minlength=n)
        return areas.astype(np.float64, copy=False), lengths.astype(np.float64, copy=False)
