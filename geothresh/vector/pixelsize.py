"""Ground sample distance of a raster: the size of its pixels in metres, in whatever CRS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from geothresh.geobox import GeoBox, PixelSize
from geothresh.types import Float64Array

# pyproj takes a tenth of a second to import, which rasters without a CRS do without.
if TYPE_CHECKING:
    from pyproj import CRS


def pixel_size(box: GeoBox) -> PixelSize | None:
    """Metres on the ground along a row and down a column, from one pixel to the next.

    Measured along geodesics at the raster's centre, so that it is right for feet, degrees, rotated
    grids and projections whose scale varies (Mercator). A plane without an ellipsoid is measured in
    its own unit. Control points and RPCs are ignored: under them pixels have no single size.

    Returns:
        Both above 0; None where the raster names no CRS or has no transform, the CRS does not say,
        or the centre lies outside of what it is made for.
    """
    if box.crs is None or not box.has_transform:
        return None
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_wkt(box.crs).to_2d()
    except CRSError:
        return None
    a, b, c, d, e, f = box.transform
    row, col = box.size.height / 2, box.size.width / 2
    x, y = a * col + b * row + c, d * col + e * row + f
    sizes: tuple[float, float] | None
    if crs.is_geographic or crs.is_projected:
        sizes = _on_the_ground(crs, (x, x + a, x + b), (y, y + d, y + e))
    else:
        units = {axis.unit_conversion_factor for axis in crs.axis_info}
        unit = units.pop() if len(units) == 1 and not crs.is_geocentric else 0.0
        sizes = math.hypot(a, d) * unit, math.hypot(b, e) * unit
    if sizes is None or not all(math.isfinite(size) and size > 0 for size in sizes):
        return None
    return PixelSize(x=sizes[0], y=sizes[1])


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
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError, ProjError

    try:
        crs = CRS.from_wkt(box.crs).to_2d()
        if crs.geodetic_crs is None:
            return None
        to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        found = np.stack(to_degrees.transform(*points.T), axis=1)
    except (CRSError, ProjError):
        return None
    unit = math.degrees(crs.geodetic_crs.axis_info[0].unit_conversion_factor)
    return found * unit if np.isfinite(found).all() else None


def _on_the_ground(
    crs: CRS, xs: tuple[float, ...], ys: tuple[float, ...]
) -> tuple[float, float] | None:
    """Metres from the first point to the second and to the third."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    geodetic, geod = crs.geodetic_crs, crs.get_geod()
    if geodetic is None or geod is None:
        return None
    try:
        if crs.is_projected:
            # Between a map and its own datum: no grid files, no network, one possible operation.
            xs, ys = Transformer.from_crs(crs, geodetic, always_xy=True).transform(xs, ys)
        # Both in degrees, or in grads and the like.
        unit = math.degrees(geodetic.axis_info[0].unit_conversion_factor)
        longitudes, latitudes = [x * unit for x in xs], [y * unit for y in ys]
        _, _, across = geod.inv(longitudes[0], latitudes[0], longitudes[1], latitudes[1])
        _, _, down = geod.inv(longitudes[0], latitudes[0], longitudes[2], latitudes[2])
    except ProjError:
        return None
    return float(across), float(down)
