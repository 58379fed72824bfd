"""Filter by a Gaussian in any number of dimensions, on the permutohedral lattice.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice",
Eurographics 2010. Every point is spread over the d + 1 corners of the simplex that it lies in
(splat), values are blurred by 1 2 1 along each of the d + 1 axes of the lattice, and read back with
the same weights (slice). Splat, blur and slice are sparse matrices here, so that filtering again
with the same points is a few products.

Letters: N points, d dimensions, M corners that any point touches.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse

from geothresh.errors import UsageError
from geothresh.types import Float64Array, Int64Array


class PermutohedralLattice:
    """Filters values at points by a Gaussian of standard deviation 1 in the points' space.

    Example:
        >>> lattice = PermutohedralLattice(np.random.default_rng(0).random((100, 5)) * 4)
        >>> lattice.filtered(np.ones(100)).shape
        (100,)
    """

    def __init__(self, points: Float64Array) -> None:
        """Build the lattice.

        Args:
            points: (N, d), each coordinate divided by its wanted standard deviation.

        Raises:
            UsageError: the points are too far apart to number the corners.
        """
        corners, weights = _simplices(np.asarray(points, np.float64))
        number, dimensions = points.shape
        keys, touched = _numbered(corners.reshape(-1, dimensions))
        rows = np.repeat(np.arange(number), dimensions + 1)
        self._slice = sparse.csr_matrix(
            (weights.ravel(), (rows, touched)), shape=(number, len(keys))
        )
        self._blurs = _blurs(keys)

    @property
    def corners(self) -> int:
        """Number of corners in use."""
        return int(self._slice.shape[1])

    def filtered(self, values: Float64Array) -> Float64Array:
        """Blur values (N,) or (N, C), without normalisation."""
        spread = self._slice.T @ values
        for blur in self._blurs:
            spread = blur @ spread
        return np.asarray(self._slice @ spread)


def _simplices(points: Float64Array) -> tuple[Int64Array, Float64Array]:
    """Find the corners around each point, and its weights on them.

    Returns:
        Keys (N, d + 1, d): the first d coordinates of a corner, of which the last is minus their
        sum; and barycentric weights (N, d + 1), which sum to 1.
    """
    number, d = points.shape
    # Blurring by 1 2 1 along all axes has a variance of 2 (d + 1)^2 / 3 in the plane's units.
    spacing = (d + 1) * np.sqrt(2 / 3) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
    scaled = points * spacing
    # Points are mapped into the plane of d + 1 coordinates whose sum is 0.
    plane = np.zeros((number, d + 1))
    total = np.zeros(number)
    for axis in range(d, 0, -1):
        plane[:, axis] = total - axis * scaled[:, axis - 1]
        total += scaled[:, axis - 1]
    plane[:, 0] = total
    # First the nearest point whose coordinates are all multiples of d + 1; it may be off the plane.
    nearest = np.rint(plane / (d + 1)) * (d + 1)
    excess = np.rint(nearest.sum(1) / (d + 1)).astype(np.int64)
    order = np.argsort(-(plane - nearest), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(d + 1), order.shape).copy(), axis=1)
    # The coordinates that were rounded farthest are then moved, so that it is in the plane.
    rank += excess[:, None]
    moved = (d + 1) * ((rank < 0).astype(np.int64) - (rank > d))
    nearest += moved
    rank += moved
    rest = (plane - nearest) / (d + 1)
    by_rank = np.empty_like(rest)
    np.put_along_axis(by_rank, rank, rest, axis=1)
    # The weight of corner k is the difference between rank d - k and the next rank.
    weights = np.empty((number, d + 1))
    weights[:, 1:] = (by_rank[:, :-1] - by_rank[:, 1:])[:, ::-1]
    weights[:, 0] = 1 + by_rank[:, -1] - by_rank[:, 0]
    corner = np.arange(d + 1)[None, :, None]
    steps = np.where(rank[:, None, :] <= d - corner, corner, corner - (d + 1))
    keys = nearest.astype(np.int64)[:, None, :] + steps
    return keys[..., :d], weights


def _numbered(keys: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The unique keys, and the index of each given key among them."""
    codes = _codes(keys, keys.min(0), keys.max(0))
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return keys[first], inverse.ravel()


def _codes(keys: Int64Array, low: Int64Array, high: Int64Array) -> Int64Array:
    """An integer for each key; -1 for keys out of the range."""
    spans = high - low + 1
    if math.prod(int(span) for span in spans) > np.iinfo(np.int64).max:
        raise UsageError("points are too far apart for a lattice; give wider kernels")
    inside = ((keys >= low) & (keys <= high)).all(1)
    codes = np.zeros(len(keys), np.int64)
    for axis in range(keys.shape[1]):
        codes = codes * spans[axis] + (keys[:, axis] - low[axis])
    return np.where(inside, codes, -1)


def _blurs(keys: Int64Array) -> list[sparse.csr_matrix]:
    """Matrices that blur by (1, 2, 1) / 4 along each axis, over the corners in use."""
    number, d = keys.shape
    low, high = keys.min(0), keys.max(0)
    codes = _codes(keys, low, high)
    middle = sparse.identity(number, format="csr") * 0.5
    blurs = []
    for axis in range(d + 1):
        step = np.full(d, -1, np.int64)
        if axis < d:
            step[axis] = d
        wanted = _codes(keys + step, low, high)
        at = np.searchsorted(codes, wanted)
        at[at == number] = 0
        exists = codes[at] == wanted
        neighbour = sparse.csr_matrix(
            (np.full(int(exists.sum()), 0.25), (np.flatnonzero(exists), at[exists])),
            shape=(number, number),
        )
        blurs.append((middle + neighbour + neighbour.T).tocsr())
    return blurs
