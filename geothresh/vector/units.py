"""Lengths and areas in metres, in any CRS.

Projected coordinates are measured in the plane and converted to metres, also from feet. Longitude
and latitude are measured along geodesics of the CRS's ellipsoid. Coordinates of an unknown unit (no
CRS) and pixels are measured as they are, as the names of the attributes say.
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


class Measure(Enum):
    """How lengths and areas come from coordinates."""

    PLANE = "plane"
    """Coordinates of a known linear unit, measured in the plane of the map, in metres."""

    GEODESIC = "geodesic"
    """Longitude and latitude, measured on the ellipsoid, in metres."""

    UNKNOWN = "unknown"
    """Coordinates of an unknown unit, measured in that unit."""

    PIXELS = "pixels"
    """Columns and rows, measured in pixels."""


# Longest edge measured as a geodesic: over a tenth of a degree the two are a metre apart, and areas
# differ by less than a part in a million.
_EDGE_DEGREES = 0.1

_SUFFIX = {
    Measure.PLANE: "m",
    Measure.GEODESIC: "m",
    Measure.UNKNOWN: "units",
    Measure.PIXELS: "px",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapUnits:
    """The coordinates of a layer and how they are measured."""

    measure: Measure

    unit: float = 1.0
    """What one unit of the coordinates is: metres (PLANE), degrees (GEODESIC), itself (else)."""

    geod: Geod | None = None
    """The ellipsoid; GEODESIC only."""

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
        """Reported area of one square unit of the coordinates; None where it varies (GEODESIC)."""
        return None if self.measure is Measure.GEODESIC else self.unit**2

    @classmethod
    def of(cls, crs_wkt: str | None, *, pixels: bool = False) -> MapUnits:
        """Units of a CRS.

        Args:
            crs_wkt: the CRS as WKT; None = not known, which is warned about.
            pixels: coordinates are columns and rows; `crs_wkt` is not looked at.

        Raises:
            InputError: the CRS cannot be parsed, or has no plane and no ellipsoid to measure on.
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
        # A compound CRS has its projection in its horizontal part.
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
        """Length of each polygon's outline, holes included, in the unit of `perimeter_field`."""
        if self.measure is Measure.GEODESIC:
            return self._geodesic(polygons)[1]
        return np.asarray(shapely.length(polygons) * self.unit, np.float64)

    def areas_and_perimeters(self, polygons: Geometries) -> tuple[Float64Array, Float64Array]:
        """Areas and perimeters, on an ellipsoid in the time of one of them."""
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
        """(n, 2) reported units of length per unit of x and of y, at each geometry's middle.

        On an ellipsoid these are the radii of curvature: exact at the middle of the geometry's
        extent, good to a part in a thousand within some ten kilometres of it.
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
        """Areas (m2) and perimeters (m), by the sums over the rings of each polygon."""
        if self.geod is None:
            raise ValueError("a geodesic measure needs its ellipsoid")
        # A geodesic between two corners is no straight line on the map.
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
            # Its sign is the direction of the ring, which is arbitrary here.
            signed, length[i] = self.geod.polygon_area_perimeter(x, y)
            area[i] = abs(signed)
        n = len(polygons)
        areas = np.bincount(owner, weights=sign * area, minlength=n)
        lengths = np.bincount(owner, weights=length, minlength=n)
        return areas.astype(np.float64, copy=False), lengths.astype(np.float64, copy=False)
