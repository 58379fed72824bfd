"""Size, transform and CRS of a raster, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geothresh.options import Bounds
from geothresh.types import Float64Array
from geothresh.windows import RasterSize

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The transform of a raster that has none: x = column, y = row."""

# Farthest coordinate that is accepted. With larger ones, areas would overflow.
_FARTHEST = 1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoBox:
    """The size of a raster, its affine transform and its CRS."""

    size: RasterSize
    transform: tuple[float, ...] = IDENTITY
    """a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f, of pixel corners."""
    crs: str | None = None
    """The CRS as WKT; None if the raster has none."""
    name: str = "the raster"
    """Name of the raster in messages."""

    @property
    def has_transform(self) -> bool:
        """Whether there is a transform; a file without one reads as the identity."""
        return self.transform != IDENTITY

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in square units of the CRS."""
        a, b, _, d, e, _ = self.transform
        return abs(a * e - b * d)

    def transform_at(self, col: int, row: int) -> tuple[float, ...]:
        """The transform of a raster on the same grid whose first pixel is this one's (col, row)."""
        a, b, c, d, e, f = self.transform
        return a, b, a * col + b * row + c, d, e, d * col + e * row + f

    def to_map(self, pixels: Float64Array) -> Float64Array:
        """Convert (n, 2) columns and rows to x and y."""
        a, b, c, d, e, f = self.transform
        column, row = pixels.T
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=1)

    def to_pixels(self, points: Float64Array) -> Float64Array:
        """Convert (n, 2) x and y to columns and rows."""
        a, b, c, d, e, f = self.transform
        return np.asarray((points - (c, f)) @ np.linalg.inv(np.array([[a, d], [b, e]])))

    def corners(self) -> Float64Array:
        """(4, 2) columns and rows of the raster's corners."""
        height, width = self.size.height, self.size.width
        return np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)

    def bounds(self, margin: float = 0.0) -> Bounds:
        """Left, bottom, right, top, each moved outwards by `margin` units of the CRS."""
        corners = self.to_map(self.corners())
        (left, bottom), (right, top) = corners.min(0) - margin, corners.max(0) + margin
        return float(left), float(bottom), float(right), float(top)

    def shift_from(self, other: GeoBox) -> float:
        """Largest distance between corresponding corners of two rasters, in pixels of `other`.

        It is measured along a row or a column. Both rasters must have the same size and a
        transform.
        """
        corners = self.corners()
        return float(np.abs(other.to_pixels(self.to_map(corners)) - corners).max())

    def fault(self) -> str | None:
        """Why the transform is unusable; None if it is usable."""
        shown = f"the transform {self.transform}"
        if not all(map(math.isfinite, self.transform)):
            return f"{shown} is not finite"
        if self.pixel_area == 0.0:
            return f"{shown} maps all pixels to a line or point"
        a, b, c, d, e, f = self.transform
        for along, down, start in ((a, b, c), (d, e, f)):
            across = abs(start) + abs(along) * self.size.width
            reach = across + abs(down) * self.size.height
            if reach > _FARTHEST:
                return f"{shown} reaches as far as {reach:.3g}, off any map"
            # The spacing of floating-point numbers there is more than a pixel.
            if math.ulp(across) > max(abs(along), abs(down)):
                return f"{shown} maps neighbouring pixels to the same coordinates"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSize:
    """Ground sample distance of a raster at its centre, in metres."""

    x: float
    """Metres per pixel along a row."""
    y: float
    """Metres per pixel down a column."""

    @property
    def mean(self) -> float:
        """Side of a square pixel of the same area, which is compared with that of models.

        For oblong pixels (degrees, far from the equator) one side is then too small and the other
        too large by the same factor. Resampling keeps their shape.
        """
        return math.sqrt(self.x * self.y)

    @property
    def text(self) -> str:
        """The size in words: ``0.5 m``, or ``0.5 x 0.7 m`` if the sides differ by 1 % or more."""
        if max(self.x / self.y, self.y / self.x) < 1.01:
            return f"{self.mean:.3g} m"
        return f"{self.x:.3g} x {self.y:.3g} m"
