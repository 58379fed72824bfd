"""Smooth lines of pixels: no staircase, and never far from the pixels."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from geothresh.types import Float64Array

#: Standard deviation of the mean along a line, in its points.
_SIGMA = 3.0


def smoothed(points: Float64Array, *, most: float = 1.0, fixed: bool = False) -> Float64Array:
    """The points of a line, each moved to a weighted mean of those around it.

    The two ends stay; a ring (its last point is its first) is smoothed all around, unless it is
    fixed where it closes.

    Args:
        points: (n, 2), about one pixel apart.
        most: pixels by which a point may move: corners stay corners.
        fixed: whether the ends of a ring stay too, since others meet it there.

    Returns:
        (n, 2), a new array.
    """
    n = len(points)
    if n < 3:
        return points.copy()
    ring = not fixed and bool((points[0] == points[-1]).all())
    if ring:
        mean = gaussian_filter1d(points[:-1], _SIGMA, axis=0, mode="wrap")
        mean = np.concatenate([mean, mean[:1]])
    else:
        # Turned about its ends the line goes on straight, so that they are means of themselves.
        reach = int(4 * _SIGMA)
        longer = np.pad(points, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
        mean = gaussian_filter1d(longer, _SIGMA, axis=0)[reach : reach + n]
        mean[0], mean[-1] = points[0], points[-1]
    moved = mean - points
    distance = np.hypot(*moved.T)
    share = np.minimum(1, most / np.maximum(distance, most))
    return np.asarray(points + moved * share[:, None], np.float64)
