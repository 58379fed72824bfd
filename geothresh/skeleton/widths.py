"""Width of a mask at the pixels of its skeleton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geothresh.skeleton.thinning import ReadMask
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize

#: Pixels around a window in which background is looked for first, and at most.
_REACH, _FARTHEST = 64, 1024


def widths(
    skeleton: BoolArray, window: PixelWindow, read: ReadMask, size: RasterSize
) -> Float32Array:
    """Full width of the mask, in pixels, at each pixel of the skeleton.

    Twice the distance to the nearest background (middle to middle), less half a pixel: right to
    half a pixel both where an odd and where an even number of pixels lies across. What is outside
    of the raster is no background. Beyond 1,024 pixels the distance is not looked at.

    Args:
        skeleton: (h, w), the pixels of `window`, True = skeleton.
        window: inside the raster.
        read: gives windows of the mask.
        size: of the raster.

    Returns:
        (h, w), 0 off the skeleton.
    """
    result = np.zeros(skeleton.shape, np.float32)
    points = np.argwhere(skeleton)
    if not points.size:
        return result
    points += (window.row, window.col)
    reach = _REACH
    while True:
        outer = window.grown(reach, size)
        distance = np.full(len(points), np.inf)
        background = _outline(read(outer))
        if background.size:
            tree = cKDTree(background + (outer.row, outer.col))
            distance = tree.query(points, distance_upper_bound=_FARTHEST)[0]
        # Nearer than the border of what was looked at: nothing outside can be nearer.
        if distance.max() <= reach or outer.pixels == size.pixels or reach >= _FARTHEST:
            break
        reach *= 2
    wide = 2 * np.minimum(distance, _FARTHEST) - 0.5
    result[skeleton] = wide
    return result


def _outline(mask: BoolArray) -> NDArray[np.intp]:
    """(n, 2) rows and columns of the background that touches the mask, by a side or corner."""
    touched = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.bool_)
    for row in range(3):
        for col in range(3):
            touched[row : row + mask.shape[0], col : col + mask.shape[1]] |= mask
    return np.argwhere(touched[1:-1, 1:-1] & ~mask)
