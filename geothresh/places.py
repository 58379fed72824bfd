"""Where the pixels of a raster lie on the map, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geothresh.options import Bounds
from geothresh.windows import RasterSize


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterPlace:
    """Where a raster lies."""

    name: str
    """For messages."""
    crs: str | None
    """As WKT; None where it names none."""
    transform: tuple[float, ...]
    """a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f."""
    size: RasterSize

    def to_map(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) columns and rows to x and y."""
        a, b, c, d, e, f = self.transform
        return np.asarray(pixels @ np.array([[a, d], [b, e]]) + (c, f))

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) x and y to columns and rows."""
        a, b, c, d, e, f = self.transform
        return np.asarray((points - (c, f)) @ np.linalg.inv(np.array([[a, d], [b, e]])))

    def bounds(self, margin: float = 0.0) -> Bounds:
        """Left, bottom, right, top, each moved outwards by `margin` units of the CRS."""
        height, width = self.size.height, self.size.width
        corners = self.to_map(np.array([(0, 0), (width, 0), (0, height), (width, height)], float))
        (left, bottom), (right, top) = corners.min(0) - margin, corners.max(0) + margin
        return float(left), float(bottom), float(right), float(top)
