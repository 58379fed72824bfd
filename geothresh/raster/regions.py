"""Connected components of a mask that is read strip by strip: statistics, and sieving.

A run is a maximal stretch of foreground in a row. In each strip, runs that touch are joined to
pieces. Pieces of neighbouring strips are joined where the last row of one touches the first row of
the next. The joined pieces are the regions. Memory holds one strip, and a few numbers and a sparse
histogram for each piece, whatever the height of the raster.

Statistics are of 4-connected regions, like the polygons of `rasterio.features.shapes`, so that each
region is one polygon. The two are matched by the region's first pixel in reading order, which is at
the polygon's top-left corner. Sieving reads the strips twice: to measure the regions, and to remove
the small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geothresh.errors import GeothreshError
from geothresh.raster.mask import Mask
from geothresh.raster.rewriting import rewritten
from geothresh.types import BoolArray, Float64Array, Int64Array
from geothresh.windows import PixelWindow

# Bins of a histogram of confidences: one for each step of refined confidences as they are written.
_BINS = 255

#: Gives a mask from top to bottom, in strips of full width; may be called several times.
Strips = Callable[[], Iterator[tuple[PixelWindow, BoolArray]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTable:
    """One entry per 4-connected region, sorted by `first`."""

    first: Int64Array
    """(n,) row * width + column of the region's first pixel in reading order."""

    pixels: Int64Array
    """(n,) pixels of the region."""

    measured: Int64Array
    """(n,) pixels with a valid value."""

    mean: Float64Array
    """(n,) mean of the valid values, NaN where none is valid."""

    least: Float64Array
    """(n,) minimum of the valid values, NaN where none is valid."""

    tenth: Float64Array
    """(n,) 10th percentile of the valid values, in steps of 1 / 254; NaN where none is valid."""

    def rows(self, first: Int64Array) -> Int64Array:
        """Indices of the regions that begin at `first`.

        Args:
            first: (k,) first pixels, as in the field of that name, in any order.

        Returns:
            (k,) indices.

        Raises:
            GeothreshError: a pixel is not the first one of any region.
        """
        at = np.searchsorted(self.first, first)
        known = at < self.first.size
        known[known] = self.first[at[known]] == first[known]
        if not known.all():
            raise GeothreshError(
                f"{np.count_nonzero(~known)} of {first.size} polygons begin at a pixel where no "
                "region of the mask begins; please report this with the mask"
            )
        return at


class RegionSums:
    """Collects strips from top to bottom, and gives the `RegionTable` of the whole mask.

    Args:
        width: columns of the raster, 1 or more.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._next_row = 0
        self._seams = _Seams(diagonal=False)
        self._first: list[Int64Array] = []
        self._pixels: list[Int64Array] = []
        self._measured: list[Int64Array] = []
        self._total: list[Float64Array] = []
        self._least: list[Float64Array] = []
        # Histograms: bin = piece * _BINS + step of the value, and the number of pixels in the bin.
        self._bins: list[Int64Array] = []
        self._counts: list[Int64Array] = []

    def add(
        self,
        mask: BoolArray,
        values: NDArray[np.floating] | None = None,
        valid: BoolArray | None = None,
        *,
        left: int = 0,
    ) -> None:
        """Add the next strip below.

        Args:
            mask: (height, width), True = foreground.
            values: (height, w) in [0, 1], measured over the foreground; None if the strip has no
                foreground.
            valid: (height, w), True where the value counts; None = everywhere.
            left: column of the mask at which `values` and `valid` begin; outside of their w columns
                there is no foreground.
        """
        height, width = mask.shape
        row0 = self._next_row
        self._next_row += height
        start, end, local = _pieces_of(mask, diagonal=False)
        before = self._seams.pieces
        count = self._seams.add(start, end, local, mask.shape)
        if not count:
            return
        pitch = width + 1
        row = start // pitch
        first = (row0 + row) * width + (start - row * pitch)
        length = end - start
        part = mask if values is None else mask[:, left : left + values.shape[1]]
        measured, total, lowest = _run_sums(part, length, values, valid)
        # Runs are in reading order, so the first run of a piece holds its first pixel.
        _, first_run = np.unique(local, return_index=True)
        self._first.append(first[first_run])
        self._pixels.append(sums_of(local, length, count))
        self._measured.append(sums_of(local, measured, count))
        self._total.append(_sum_float(local, total, count))
        least = np.full(count, np.inf)
        np.minimum.at(least, local, lowest)
        self._least.append(least)
        if values is not None:
            inside, owner = values[part], np.repeat(local, length)
            if valid is not None:
                inside, owner = inside[valid[part]], owner[valid[part]]
            steps = np.rint(inside * np.float32(_BINS - 1)).astype(np.int64)
            bins, counts = _occurring(owner * _BINS + steps, count * _BINS)
            self._bins.append(bins + before * _BINS)
            self._counts.append(counts)

    def finish(self) -> RegionTable:
        """The regions of all strips."""
        if not self._seams.pieces:
            none = np.empty(0, np.int64)
            nothing = np.empty(0)
            return RegionTable(
                first=none, pixels=none, measured=none, mean=nothing, least=nothing, tenth=nothing
            )
        count, region = self._seams.regions()
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, region, np.concatenate(self._first))
        order = np.argsort(first)
        measured = sums_of(region, np.concatenate(self._measured), count)
        total = _sum_float(region, np.concatenate(self._total), count)
        least = np.full(count, np.inf)
        np.minimum.at(least, region, np.concatenate(self._least))
        none = measured == 0
        return RegionTable(
            first=first[order],
            pixels=sums_of(region, np.concatenate(self._pixels), count)[order],
            measured=measured[order],
            mean=np.where(none, np.nan, total / np.maximum(measured, 1))[order],
            least=np.where(none, np.nan, least)[order],
            tenth=self._tenths(region, measured)[order],
        )

    def _tenths(self, region: Int64Array, measured: Int64Array) -> Float64Array:
        """10th percentile of each region, from the histograms of its pieces."""
        result = np.full(measured.size, np.nan)
        if not self._bins:
            return result
        piece, step = np.divmod(np.concatenate(self._bins), _BINS)
        bins, at = np.unique(region[piece] * _BINS + step, return_inverse=True)
        counts = sums_of(at, np.concatenate(self._counts), bins.size)
        owner, step = np.divmod(bins, _BINS)
        # Bins ascend within each region: pixels up to and including each bin.
        up_to = np.cumsum(counts)
        before = (np.cumsum(measured) - measured)[owner]
        enough = np.flatnonzero(10 * (up_to - before) >= measured[owner])
        owners, first = np.unique(owner[enough], return_index=True)
        result[owners] = step[enough[first]] / (_BINS - 1)
        return result


def _occurring(values: Int64Array, below: int) -> tuple[Int64Array, Int64Array]:
    """The integers from 0 to `below` that occur, ascending, and how often each does."""
    if below > 8 * values.size:
        # In noise, a table of all integers would take far more memory than the strip.
        bins, counts = np.unique(values, return_counts=True)
        return bins, counts.astype(np.int64, copy=False)
    table = np.bincount(values)
    bins = np.flatnonzero(table)
    return bins, table[bins]


def runs_of(mask: BoolArray) -> tuple[Int64Array, Int64Array]:
    """Start and end (exclusive) of the runs, in reading order.

    Positions are counted along one line of all rows, each padded to width + 1 pixels.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 1), np.bool_)
    padded[:, :width] = mask
    line = padded.ravel()
    change = np.flatnonzero(line[1:] != line[:-1]).astype(np.int64, copy=False) + 1
    if line[0]:
        change = np.concatenate([np.zeros(1, np.int64), change])
    return change[::2], change[1::2]


def touching(
    start: Int64Array, end: Int64Array, other_start: Int64Array, other_end: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Find which runs of one list overlap which of another; the runs of each are sorted, disjoint.

    Returns:
        (index in the first list, index in the other list) of all overlapping pairs.
    """
    low = np.searchsorted(end, other_start, side="right")
    high = np.searchsorted(start, other_end, side="left")
    hits = np.maximum(high - low, 0)
    other = np.repeat(np.arange(other_start.size), hits)
    within = np.arange(other.size) - np.repeat(np.cumsum(hits) - hits, hits)
    return low[other] + within, other


def join_groups(n: int, left: Int64Array, right: Int64Array) -> tuple[int, Int64Array]:
    """Join n nodes by the edges left-right: number of groups, and the group of each node."""
    edges = coo_array((np.ones(left.size, np.bool_), (left, right)), shape=(n, n))
    count, label = connected_components(edges, directed=False)
    return int(count), label.astype(np.int64)


def _run_sums(
    mask: BoolArray,
    length: Int64Array,
    values: NDArray[np.floating] | None,
    valid: BoolArray | None,
) -> tuple[Int64Array, Float64Array, Float64Array]:
    """For each run: valid pixels, sum of their values, and least of them (inf without any)."""
    if values is None:
        return np.zeros(length.size, np.int64), np.zeros(length.size), np.full(length.size, np.inf)
    begin = np.cumsum(length) - length
    # Taking the foreground keeps reading order, in which the runs lie end to end.
    inside = values[mask].astype(np.float64)
    if valid is None:
        return length, np.add.reduceat(inside, begin), np.minimum.reduceat(inside, begin)
    counted = valid[mask]
    least = np.minimum.reduceat(np.where(counted, inside, np.inf), begin)
    inside[~counted] = 0.0
    total = np.add.reduceat(inside, begin)
    return np.add.reduceat(counted, begin, dtype=np.int64), total, least


def sums_of(group: Int64Array, values: Int64Array, count: int) -> Int64Array:
    """Sum of integers by group; exact, unlike `bincount`, whose weights are floats."""
    total = np.zeros(count, np.int64)
    np.add.at(total, group, values)
    return total


def _sum_float(group: Int64Array, values: Float64Array, count: int) -> Float64Array:
    """Sum of floats by group."""
    return np.bincount(group, weights=values, minlength=count).astype(np.float64, copy=False)


def sieved(strips: Strips, *, regions: int, holes: int, diagonal: bool) -> Strips:
    """Remove small regions of a mask, and then fill small holes.

    Args:
        strips: the mask.
        regions: foreground regions of fewer pixels become background.
        holes: background regions of fewer pixels that do not touch the border of the raster become
            foreground.
        diagonal: whether foreground is 8-connected and background 4-connected; else the other way
            round.

    Returns:
        The sieved mask, in the same strips.
    """
    if regions > 1:
        strips = partial(_without_small, strips, regions, diagonal=diagonal)
    if holes > 1:
        background = partial(_inverted, strips)
        kept = partial(_without_small, background, holes, diagonal=not diagonal, border=True)
        strips = partial(_inverted, kept)
    return strips


@contextmanager
def sieved_mask(
    mask: Mask, *, regions: int, holes: int, diagonal: bool, beside: Path
) -> Iterator[Mask]:
    """A sieved copy of a mask, in a temporary file that exists during the block; see `sieved`.

    Args:
        mask: the open mask; returned itself if nothing is to be sieved.
        regions, holes: least sizes in pixels; 0 or 1 keeps all.
        diagonal: see `sieved`.
        beside: a path; the file is written to its directory.

    Raises:
        InputError: the mask cannot be read.
        OutputError: the file cannot be written.
    """
    if max(regions, holes) <= 1:
        yield mask
        return

    def strips() -> Iterator[tuple[PixelWindow, BoolArray]]:
        for window in mask.strips():
            yield window, mask.foreground(window)

    parts = sieved(strips, regions=regions, holes=holes, diagonal=diagonal)
    with rewritten(mask.name, mask.box, parts(), beside) as clean:
        yield clean


def _inverted(strips: Strips) -> Iterator[tuple[PixelWindow, BoolArray]]:
    for window, mask in strips():
        yield window, ~mask


def _without_small(
    strips: Strips, least: int, *, diagonal: bool, border: bool = False
) -> Iterator[tuple[PixelWindow, BoolArray]]:
    """The mask without regions of fewer than `least` pixels.

    With `border`, regions that touch the border of the raster are kept.
    """
    pieces = _Pieces(diagonal)
    for window, mask in strips():
        pieces.add(window, mask)
    stays = pieces.stays(least, border)
    first = 0
    for window, mask in strips():
        start, end, piece = _pieces_of(mask, diagonal)
        removed = ~stays[first + piece]
        first += int(piece.max(initial=-1)) + 1
        if removed.any():
            # Positions of runs are along one line of rows of width + 1 (`runs_of`).
            change = np.zeros(window.height * (window.width + 1) + 1, np.int8)
            change[start[removed]] = 1
            change[end[removed]] -= 1
            cleared = np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)
            mask = mask & ~cleared.reshape(window.height, -1)[:, : window.width]
        yield window, mask


def _pieces_of(mask: BoolArray, diagonal: bool) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Start and end of each run of a strip, and the number of its piece, from 0."""
    start, end = runs_of(mask)
    pitch = mask.shape[1] + 1
    more = int(diagonal)
    upper, lower = touching(start, end, start - pitch - more, end - pitch + more)
    return start, end, join_groups(start.size, upper, lower)[1]


class _Seams:
    """Numbers the pieces of successive strips, and joins them to regions."""

    def __init__(self, *, diagonal: bool) -> None:
        self._reach = int(diagonal)
        self._joins: list[Int64Array] = []
        none = np.empty(0, np.int64)
        # Start, end and piece of each run in the last row of the strip above.
        self._above = none, none, none
        self.pieces = 0
        """Number of pieces of all strips so far."""

    def add(
        self, start: Int64Array, end: Int64Array, piece: Int64Array, shape: tuple[int, ...]
    ) -> int:
        """Add the runs and pieces of the next strip (`_pieces_of`); gives its number of pieces."""
        height, pitch = shape[0], shape[1] + 1
        count = int(piece.max(initial=-1)) + 1
        piece = piece + self.pieces
        above_start, above_end, above_piece = self._above
        head = int(np.searchsorted(start, pitch))
        upper, lower = touching(
            above_start, above_end, start[:head] - self._reach, end[:head] + self._reach
        )
        self._joins.append(np.stack([above_piece[upper], piece[lower]]))
        tail, below = int(np.searchsorted(start, (height - 1) * pitch)), (height - 1) * pitch
        self._above = start[tail:] - below, end[tail:] - below, piece[tail:]
        self.pieces += count
        return count

    @property
    def last_row(self) -> Int64Array:
        """The pieces that touch the last row of the last strip."""
        return self._above[2]

    def regions(self) -> tuple[int, Int64Array]:
        """Number of regions, and the region of each piece."""
        return join_groups(self.pieces, *np.concatenate(self._joins, axis=1))


class _Pieces:
    """Collects strips, and finds which of their pieces belong to large regions."""

    def __init__(self, diagonal: bool) -> None:
        self._diagonal = diagonal
        self._seams = _Seams(diagonal=diagonal)
        self._pixels: list[Int64Array] = []
        self._at_border: list[BoolArray] = []

    def add(self, window: PixelWindow, mask: BoolArray) -> None:
        """Add the next strip below."""
        start, end, piece = _pieces_of(mask, self._diagonal)
        count = self._seams.add(start, end, piece, mask.shape)
        row, col = np.divmod(start, window.width + 1)
        at_border = np.zeros(count, np.bool_)
        sides = (col == 0) | (end - row * (window.width + 1) == window.width)
        at_border[piece[sides | (row + window.row == 0)]] = True
        self._pixels.append(sums_of(piece, end - start, count))
        self._at_border.append(at_border)

    def stays(self, least: int, border: bool) -> BoolArray:
        """For each piece, in order: whether its region has `least` pixels or more.

        With `border`, also True for regions that touch the border of the raster.
        """
        if not self._seams.pieces:
            return np.empty(0, np.bool_)
        at_border = np.concatenate(self._at_border)
        # Also the pieces in the last row of the raster.
        at_border[self._seams.last_row] = True
        count, region = self._seams.regions()
        large = sums_of(region, np.concatenate(self._pixels), count) >= least
        if border:
            large[region[at_border]] = True
        return np.asarray(large[region], np.bool_)
