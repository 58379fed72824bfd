"""Ground sample distance of a raster: the size of its pixels in metres, in whatever CRS.

By GDAL, which is loaded for every raster; pyproj would take as long again as the rest of
``geothresh info``.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from geothresh.geobox import GeoBox, PixelSize
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment
from geothresh.types import Float64Array

Json = dict[str, Any]

# Metres from the centre of the Earth, in a datum that is to be added: https://proj.org/projjson
_FROM_THE_CENTRE = {
    "type": "GeodeticCRS",
    "name": "metres from the centre",
    "coordinate_system": {
        "subtype": "Cartesian",
        "axis": [
            {
                "name": f"Geocentric {one}",
                "abbreviation": one,
                "direction": f"geocentric{one}",
                "unit": "metre",
            }
            for one in "XYZ"
        ],
    },
}


def pixel_size(box: GeoBox) -> PixelSize | None:
    """Metres on the ground along a row and down a column, from one pixel to the next.

    Measured on the ellipsoid at the raster's centre, so that it is right for feet, degrees, rotated
    grids and projections whose scale varies (Mercator). A plane without an ellipsoid is measured in
    its own unit. Control points and RPCs are ignored: under them pixels have no single size.

    Returns:
        Both above 0; None where the raster names no CRS or has no transform, the CRS does not say,
        or the centre lies outside of what it is made for.
    """
    if box.crs is None or not box.has_transform:
        return None
    row, col = box.size.height / 2, box.size.width / 2
    points = box.to_map(np.array([(col, row), (col + 1, row), (col, row + 1)]))
    try:
        with gdal_environment():
            sizes = _metres(box.crs, points)
    except RASTER_ERRORS:
        return None
    if sizes is None or not (np.isfinite(sizes) & (sizes > 0)).all():
        return None
    return PixelSize(x=float(sizes[0]), y=float(sizes[1]))


def longitude_latitude(box: GeoBox, points: Float64Array) -> Float64Array | None:
    """Degrees of points in the CRS of a raster, in the datum of that CRS.

    Args:
        box: names the CRS.
        points: (n, 2) x and y.

    Returns:
        (n, 2) longitude and latitude; None where the CRS is none on the ground, or does not reach
        that far.
    """
    if box.crs is None:
        return None
    try:
        with gdal_environment():
            plane, geodetic = _parts(box.crs)
            if geodetic is None:
                return None
            degrees = _parsed(geodetic)
            found = np.stack(transform(_parsed(plane), degrees, *points.T), axis=1)
            _, unit = degrees.units_factor
    except RASTER_ERRORS:
        return None
    return found * math.degrees(unit) if np.isfinite(found).all() else None


def _metres(wkt: str, points: Float64Array) -> Float64Array | None:
    """Metres from the first point (x, y) of a CRS to each other one; None if it does not say."""
    plane, geodetic = _parts(wkt)
    if geodetic is None:
        if plane.get("type") != "EngineeringCRS":
            return None
        _, unit = _parsed(plane).units_factor
        return np.asarray(np.hypot(*(points[1:] - points[0]).T) * unit)
    # Within one datum: no grid files, no network, one possible operation.
    centred = _parsed(_FROM_THE_CENTRE | {"datum": geodetic["datum"]})
    places = transform(_parsed(plane), centred, *points.T, np.zeros(len(points)))
    first, *others = np.stack(places, axis=1)
    # Straight through the ground, and along it: the same to nine digits for pixels below 1 km.
    across, radius = np.linalg.norm(np.array(others) - first, axis=1), np.linalg.norm(first)
    return np.asarray(2 * radius * np.arcsin(np.minimum(across / (2 * radius), 1)))


def _parts(wkt: str) -> tuple[Json, Json | None]:
    """A CRS without a height and without the way to another datum, and what it stands on.

    Returns:
        Both as PROJJSON: the CRS, and its longitudes and latitudes, which may be itself; None where
        it stands on none.
    """
    crs: Json = CRS.from_wkt(wkt).to_dict(projjson=True)
    while (inner := crs.get("components", [crs.get("source_crs")])[0]) is not None:
        crs = inner
    base = crs
    while "base_crs" in base:
        base = base["base_crs"]
    if base.get("type") != "GeographicCRS":
        return crs, None
    if "datum_ensemble" in base:
        # Its members, which PROJ takes 10 ms to look up, are one on the ground.
        named = base.pop("datum_ensemble")
        base["datum"] = {
            "type": "GeodeticReferenceFrame", "name": named["name"],
            "ellipsoid": named["ellipsoid"],
        }  # fmt: skip
    return crs, base


def _parsed(projjson: Json) -> CRS:
    return CRS.from_string(json.dumps(projjson))
