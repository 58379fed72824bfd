"""Rasterize polygons: the pixels whose centres lie inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from geothresh.raster.gdal import filtered_warnings, gdal_environment
from geothresh.windows import PixelWindow


def burn(shapes: Sequence[Any] | NDArray[np.object_], window: PixelWindow) -> NDArray[np.bool_]:
    """The pixels of a window whose centres lie in one of some areas.

    Args:
        shapes: polygons with a ``__geo_interface__``, in pixels of the raster: x = column and
            y = row, whole numbers on the outer corners.
        window: the part of the raster that is asked for.

    Returns:
        (height, width), True = inside.
    """
    if not len(shapes):
        return np.zeros((window.height, window.width), np.bool_)
    with gdal_environment(), filtered_warnings():
        burnt = rasterize(
            shapes,
            out_shape=(window.height, window.width),
            transform=Affine.translation(window.col, window.row),
            dtype="uint8",
        )
    return np.asarray(burnt != 0)
