"""How large the pixels of a raster are on the ground, in metres, whatever its coordinates are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError


def pixel_size(
    crs_wkt: str, transform: Sequence[float], *, height: int, width: int
) -> tuple[float, float] | None:
    """Metres on the ground along a row and down a column, from one pixel to the next.

    Measured along geodesics at the raster's centre: so feet, degrees, rotated grids and maps whose
    scale grows with the latitude (Mercator) all come out as they are on the ground. A plane that is
    tied to no ellipsoid is measured in its own unit.

    Args:
        crs_wkt: of the raster.
        transform: a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f.
        height: rows.
        width: columns.

    Returns:
        (x, y), both above 0; None where the CRS does not say, or the centre lies outside of what
        it is made for.
    """
    try:
        crs = CRS.from_wkt(crs_wkt).to_2d()
    except CRSError:
        return None
    a, b, c, d, e, f = transform[:6]
    row, col = height / 2, width / 2
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
    return sizes


def _on_the_ground(
    crs: CRS, xs: tuple[float, ...], ys: tuple[float, ...]
) -> tuple[float, float] | None:
    """Metres from the first point to the second and to the third."""
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
