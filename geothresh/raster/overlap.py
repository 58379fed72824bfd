"""The window of one raster that covers the ground of a window of another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform

from geothresh.errors import InputError
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.grid import RasterGrid
from geothresh.windows import PixelWindow

# Points along an edge: straight edges of one map are curves in another.
_POINTS = 21
# Of a pixel: rounding, and no more.
_SAME_PIXELS = 1e-3


def same_pixels(one: RasterGrid, other: RasterGrid) -> bool:
    """Whether two rasters have a place on the ground, and the same for every pixel.

    A raster that has lost its CRS is taken to be in the other's.
    """
    return (
        one.has_transform
        and other.has_transform
        and (one.height, one.width) == (other.height, other.width)
        and one.shift_from(other) < _SAME_PIXELS
        and (one.crs == other.crs or None in (one.crs, other.crs))
    )


def window_in(target: RasterGrid, window: PixelWindow, source: RasterGrid) -> PixelWindow | None:
    """The window of `target` that covers the ground of a window of `source`.

    A raster that has lost its CRS is taken to be in the other's: what is held out in one must not
    be trained on in the other for the lack of a name.

    Returns:
        The extent of that ground in pixels of `target`, rounded outwards and cut to it; None where
        they do not meet, or one of the two has no place on the ground.

    Raises:
        InputError: the ground has no place in the CRS of `target`.
    """
    if not (source.has_transform and target.has_transform):
        return None
    along = np.linspace(0, 1, _POINTS)
    cols = np.concatenate([along, np.ones(_POINTS), along, np.zeros(_POINTS)])
    rows = np.concatenate([np.zeros(_POINTS), along, np.ones(_POINTS), along])
    points = window.col + cols * window.width, window.row + rows * window.height
    x, y = _applied(source.transform, *points)
    if None not in (source.crs, target.crs) and source.crs != target.crs:
        try:
            with gdal_environment():
                x, y = (np.array(part) for part in transform(source.crs, target.crs, x, y))
        except RASTER_ERRORS as error:
            raise InputError(
                "a scene has no place in the CRS of another "
                f"({reason(error)}); reproject one to the CRS of the other"
            ) from error
    col, row = _applied(~target.transform, x, y)
    there = np.isfinite(col) & np.isfinite(row)
    if not there.any():
        return None
    if not there.all():
        raise InputError(
            "a scene lies partly where the CRS of another is not defined; reproject one to the CRS "
            "of the other"
        )
    top, left = max(math.floor(row.min()), 0), max(math.floor(col.min()), 0)
    bottom = min(math.ceil(row.max()), target.height)
    right = min(math.ceil(col.max()), target.width)
    if bottom <= top or right <= left:
        return None
    return PixelWindow.between(top, bottom, left, right)


def _applied(
    affine: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Written out: the operator that applies transforms depends on the version of affine.
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f
