"""Describe the shape of pixels on the ground, which need not be square.

The unit of length on the ground is the side of a square with the area of a pixel. So for square
pixels, lengths on the ground equal lengths in rows and columns, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from geothresh.types import Float64Array

#: The shape of a square pixel.
UNIT: Float64Array = np.eye(2)
# Relative tolerance within which pixels count as square.
_SQUARE_TO = 1e-6
# Pixels to each side that determine the direction of a line.
_NEAR = 8


class Ground(Protocol):
    """The pixels of a raster on the ground.

    Places are (n, 2) rows and columns in pixels from the raster's corner.
    """

    def sides(self, places: Float64Array) -> Float64Array:
        """(n,) side of a square of the pixel's area, in the unit of length."""

    def shapes(self, places: Float64Array) -> Float64Array:
        """(n, 2, 2) matrices from steps of (rows, columns) to the ground, see `shapes_of`."""


@dataclass(frozen=True, slots=True)
class SquareGround:
    """Square pixels with side 1."""

    def sides(self, places: Float64Array) -> Float64Array:
        """See `Ground`."""
        return np.ones(len(places))

    def shapes(self, places: Float64Array) -> Float64Array:
        """See `Ground`."""
        return np.broadcast_to(UNIT, (len(places), 2, 2))


#: The ground on which lengths are lengths in pixels.
SQUARE = SquareGround()


def shapes_of(steps: Float64Array) -> Float64Array:
    """The shapes of pixels, as matrices.

    Args:
        steps: (n, 2, 2) vectors of a step of one row and of one column, in any unit.

    Returns:
        (n, 2, 2) symmetric matrices of determinant 1, up to a rotation of the ground.
    """
    squared = steps @ steps.swapaxes(1, 2)
    squared = squared / np.abs(np.linalg.det(steps))[:, None, None]
    squared[(np.abs(squared - UNIT) < _SQUARE_TO).all(axis=(1, 2))] = UNIT
    # The root of a symmetric 2 x 2 matrix of determinant 1.
    trace = np.trace(squared, axis1=1, axis2=2)
    return np.asarray((squared + UNIT) / np.sqrt(trace + 2)[:, None, None], np.float64)


def farness(shape: Float64Array) -> Float64Array:
    """(2,) greatest number of rows and of columns between places at distance 1 on the ground."""
    return np.asarray(np.hypot(*shape)[::-1], np.float64)


def widenings(points: Float64Array, shape: Float64Array) -> Float64Array:
    """Compute by which factor a road is wider on the ground than in pixels, along its line.

    Shapes keep areas: where a road is longer on the ground, it is narrower by the same factor.

    Args:
        points: (n, 2) rows and columns along the line, about one pixel apart, n >= 2.
        shape: (2, 2) shape of the pixels.

    Returns:
        (n,) factors by which widths in pixels become widths on the ground.
    """
    at = np.arange(len(points))
    ahead, behind = np.minimum(at + _NEAR, at[-1]), np.maximum(at - _NEAR, 0)
    along = points[ahead] - points[behind]
    length = np.hypot(*along.T)
    # A loop of a few pixels has no direction.
    nowhere = length == 0
    return np.where(nowhere, 1, length / np.where(nowhere, 1, np.hypot(*(along @ shape).T)))
