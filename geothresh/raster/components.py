"""Sums over the connected regions of a mask that is read strip by strip, top to bottom.

A strip is cut into runs (maximal stretches of foreground inside one row). Runs that touch are
joined into pieces, pieces of neighbouring strips are joined where the last row of one lies above
the first row of the other, and one pass over the pieces at the end makes regions of them. What is
kept in memory is one strip and four numbers per piece, whatever the height of the raster.

Regions are 4-connected, as the polygons of `rasterio.features.shapes` are, so that each region is
one polygon. The two are paired by the region's first pixel in reading order: the polygon's
top-left corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geothresh.errors import GeothreshError

Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTable:
    """One entry per 4-connected region, sorted by `first`."""

    first: Int64Array
    """(n,) row * width + column of the region's first pixel in reading order."""

    pixels: Int64Array
    """(n,) pixels of the region."""

    measured: Int64Array
    """(n,) those of them that have a valid value."""

    total: Float64Array
    """(n,) sum of the valid values."""

    def means(self, first: Int64Array) -> Float64Array:
        """Mean valid value of the regions that begin at `first`; NaN where none is valid.

        Args:
            first: (k,) first pixels, as in the field of that name, in any order.

        Returns:
            (k,) means.

        Raises:
            GeothreshError: a pixel is the first of no region.
        """
        at = np.searchsorted(self.first, first)
        known = at < self.first.size
        known[known] = self.first[at[known]] == first[known]
        if not known.all():
            raise GeothreshError(
                f"{np.count_nonzero(~known)} of {first.size} polygons begin at a pixel where no "
                "region of the mask begins; please report this with the mask"
            )
        measured = self.measured[at]
        mean = np.full(first.shape, np.nan)
        np.divide(self.total[at], measured, out=mean, where=measured > 0)
        return mean


class RegionSums:
    """Collects strips, gives the `RegionTable` of all of them.

    Args:
        width: columns of the raster, 1 or more.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._next_row = 0
        self._pieces = 0
        self._first: list[Int64Array] = []
        self._pixels: list[Int64Array] = []
        self._measured: list[Int64Array] = []
        self._total: list[Float64Array] = []
        self._joins: list[Int64Array] = []
        # The last row of the strip above: where its runs start and end, and their pieces.
        self._above = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))

    def add(
        self,
        mask: NDArray[np.bool_],
        values: NDArray[np.floating] | None = None,
        valid: NDArray[np.bool_] | None = None,
        *,
        left: int = 0,
    ) -> None:
        """Take in the next strip below those taken in before.

        Args:
            mask: (height, width), True = foreground.
            values: (height, w), summed over the foreground; None if there is none in the strip.
            valid: (height, w), True where the value counts; None = everywhere.
            left: column of the mask at which `values` and `valid` begin; they cover w columns
                from there, outside of which there is no foreground.
        """
        height, width = mask.shape
        row0 = self._next_row
        self._next_row += height
        start, end = _runs(mask)
        if start.size == 0:
            self._above = (start, end, start)
            return
        # Runs lie on one line of rows of width + 1 each: the gap keeps rows apart.
        pitch = width + 1
        upper, lower = _touching(start, end, start - pitch, end - pitch)
        count, piece = _join(start.size, upper, lower)
        piece += self._pieces

        row = start // pitch
        first = (row0 + row) * width + (start - row * pitch)
        length = end - start
        part = mask if values is None else mask[:, left : left + values.shape[1]]
        measured, total = _run_sums(part, length, values, valid)
        local = piece - self._pieces
        # Runs are in reading order, so the first run of a piece holds its first pixel.
        _, first_run = np.unique(local, return_index=True)
        self._first.append(first[first_run])
        self._pixels.append(_sum_int(local, length, count))
        self._measured.append(_sum_int(local, measured, count))
        self._total.append(_sum_float(local, total, count))

        above_start, above_end, above_piece = self._above
        head = int(np.searchsorted(start, pitch))
        upper, lower = _touching(above_start, above_end, start[:head], end[:head])
        self._joins.append(np.stack([above_piece[upper], piece[lower]]))
        tail = int(np.searchsorted(start, (height - 1) * pitch))
        below = (height - 1) * pitch
        self._above = (start[tail:] - below, end[tail:] - below, piece[tail:])
        self._pieces += count

    def finish(self) -> RegionTable:
        """Regions of all strips taken in so far."""
        if not self._pieces:
            none = np.empty(0, np.int64)
            return RegionTable(first=none, pixels=none, measured=none, total=np.empty(0))
        upper, lower = np.concatenate(self._joins, axis=1)
        count, region = _join(self._pieces, upper, lower)
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, region, np.concatenate(self._first))
        order = np.argsort(first)
        return RegionTable(
            first=first[order],
            pixels=_sum_int(region, np.concatenate(self._pixels), count)[order],
            measured=_sum_int(region, np.concatenate(self._measured), count)[order],
            total=_sum_float(region, np.concatenate(self._total), count)[order],
        )


def _runs(mask: NDArray[np.bool_]) -> tuple[Int64Array, Int64Array]:
    """Start and end (exclusive) of the runs on the line of rows of width + 1, in reading order."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), np.bool_)
    padded[:, :width] = mask
    line = padded.ravel()
    change = np.flatnonzero(line[1:] != line[:-1]).astype(np.int64, copy=False) + 1
    if line[0]:
        change = np.concatenate([np.zeros(1, np.int64), change])
    return change[::2], change[1::2]


def _touching(
    start: Int64Array, end: Int64Array, other_start: Int64Array, other_end: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Pairs (index of a run, index of an other run) that overlap; both lists sorted, disjoint."""
    low = np.searchsorted(end, other_start, side="right")
    high = np.searchsorted(start, other_end, side="left")
    hits = np.maximum(high - low, 0)
    other = np.repeat(np.arange(other_start.size), hits)
    within = np.arange(other.size) - np.repeat(np.cumsum(hits) - hits, hits)
    return low[other] + within, other


def _join(n: int, left: Int64Array, right: Int64Array) -> tuple[int, Int64Array]:
    """Number of groups, and the group of each of n nodes, joined by the edges left-right."""
    edges = coo_array((np.ones(left.size, np.bool_), (left, right)), shape=(n, n))
    count, label = connected_components(edges, directed=False)
    return int(count), label.astype(np.int64)


def _run_sums(
    mask: NDArray[np.bool_],
    length: Int64Array,
    values: NDArray[np.floating] | None,
    valid: NDArray[np.bool_] | None,
) -> tuple[Int64Array, Float64Array]:
    """Valid pixels and the sum of their values, for each run."""
    if values is None:
        return np.zeros(length.size, np.int64), np.zeros(length.size)
    begin = np.cumsum(length) - length
    # Taking the foreground keeps reading order, in which the runs lie end to end.
    inside = values[mask].astype(np.float64)
    if valid is None:
        return length, np.add.reduceat(inside, begin)
    counted = valid[mask]
    inside[~counted] = 0.0
    return np.add.reduceat(counted, begin, dtype=np.int64), np.add.reduceat(inside, begin)


def _sum_int(group: Int64Array, values: Int64Array, count: int) -> Int64Array:
    """Sum of integers by group; exact, where the weights of `bincount` are floats."""
    total = np.zeros(count, np.int64)
    np.add.at(total, group, values)
    return total


def _sum_float(group: Int64Array, values: Float64Array, count: int) -> Float64Array:
    """Sum of floats by group."""
    return np.bincount(group, weights=values, minlength=count).astype(np.float64, copy=False)
