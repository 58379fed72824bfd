"""A raster's place on the ground, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geothresh.options import Bounds
from geothresh.types import Float64Array
from geothresh.windows import RasterSize


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoBox:
    """The size of a raster, its affine transform and its CRS."""

    size: RasterSize
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    """a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f, of pixel corners."""
    crs: str | None = None
    """As WKT; None where the raster names none."""
    name: str = "the raster"
    """What to call the raster in messages."""

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in square units of the CRS."""
        a, b, _, d, e, _ = self.transform
        return abs(a * e - b * d)

    def to_map(self, pixels: Float64Array) -> Float64Array:
        """(n, 2) columns and rows to x and y."""
        a, b, c, d, e, f = self.transform
        column, row = pixels.T
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=1)

    def to_pixels(self, points: Float64Array) -> Float64Array:
        """(n, 2) x and y to columns and rows."""
        a, b, c, d, e, f = self.transform
        return np.asarray((points - (c, f)) @ np.linalg.inv(np.array([[a, d], [b, e]])))

    def bounds(self, margin: float = 0.0) -> Bounds:
        """Left, bottom, right, top, each moved outwards by `margin` units of the CRS."""
        height, width = self.size.height, self.size.width
        corners = self.to_map(np.array([(0, 0), (width, 0), (0, height), (width, height)], float))
        (left, bottom), (right, top) = corners.min(0) - margin, corners.max(0) + margin
        return float(left), float(bottom), float(right), float(top)
