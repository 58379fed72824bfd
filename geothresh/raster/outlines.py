"""Outlines of the regions of a mask that is read strip by strip, as whole polygons.

The corners of a strip are found with numpy. Those of a row are joined in pairs by horizontal edges,
those of a column by vertical ones. An edge that goes on below the strip is taken up by the next
one. A region with no such edge is finished with its strip. Of the others, stretches of corners are
kept, and joined once, when the last of their edges has ended. So time grows with pixels and
corners, however many strips a region spans, and memory holds a strip and the regions that go on
below it.

Edges have the foreground on their left (rows go down). Where two pixels of the foreground meet in
a corner alone, each has a turn of its own there. If they belong to one region, which is known when
it is finished, the two turns are exchanged: no outline touches itself, and all polygons are valid.

GDAL's polygoniser (`rasterio.features.shapes`) gives its first polygon when it has its last one, so
that all of a country would be in memory; this is why it is not used. The polygons are the same,
corner by corner, which tests compare: an outer ring begins at its uppermost, then leftmost corner
and goes down; a hole begins at that corner of its own and goes right; holes follow each other in
the order of those corners.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.raster.regions import join_groups
from geothresh.raster.rings import (
    BORDER,
    MAY_BEGIN,
    MEETS,
    STEP,
    Outlines,
    Stretches,
    assembled,
    finished,
    in_order,
    picked,
)
from geothresh.types import BoolArray, Int64Array

# Pixels that are outlined at once; of noise most are corners, which take some 200 bytes each.
_PIXELS = 1 << 20
# Rows that are outlined at once, at least: each unfinished region takes some microseconds a time.
_ROWS = 32

# The pixels around a corner that are foreground.
_UPPER_LEFT, _UPPER_RIGHT, _LOWER_LEFT, _LOWER_RIGHT = 1, 2, 4, 8
# Two that meet in it alone, falling or rising from left to right.
_FALLING, _RISING = _UPPER_LEFT | _LOWER_RIGHT, _UPPER_RIGHT | _LOWER_LEFT
# The first corner of an outer ring, where none meet there, and of a hole.
_OUTER, _HOLE = _LOWER_RIGHT, _UPPER_LEFT | _UPPER_RIGHT | _LOWER_LEFT


def outlines(strips: Iterable[BoolArray], width: int) -> Iterator[Outlines]:
    """Outline the 4-connected regions of a mask.

    Args:
        strips: (height, width) each, from top to bottom, True = foreground.
        width: columns, 1 or more.

    Yields:
        Polygons as soon as they are finished, in no particular order.
    """
    tracer = _Tracer(width)
    least = max(_ROWS, _PIXELS // width)
    waiting: list[BoolArray] = []
    for strip in strips:
        waiting.append(strip)
        if sum(map(len, waiting)) < least:
            continue
        rows = np.concatenate(waiting)
        waiting = []
        for top in range(0, len(rows), least):
            yield from tracer.add(rows[top : top + least])
    # What reaches the last row ends in an empty one below it.
    yield from tracer.add(np.concatenate([*waiting, np.zeros((1, width), np.bool_)]))


class _Tracer:
    """Takes strips of a mask and gives the outlines that they finish."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._row = 0
        # The last row of the strip above, with a column of background on either side.
        self._last = np.zeros(width + 2, np.uint8)
        # The unfinished region of each edge that goes on below, from left to right.
        self._open = np.empty(0, np.int64)
        # What is known of unfinished regions.
        self._parts: dict[int, list[Stretches]] = {}

    def add(self, strip: BoolArray) -> Iterator[Outlines]:
        """Take the next strip."""
        corners = self._corners(strip)
        self._row += len(strip)
        if not len(corners.row):
            return
        following, upper = _followed(corners)
        virtual = np.ones(len(following), np.bool_)
        virtual[corners.real] = False
        begins = np.flatnonzero(virtual & ~_reached(following))
        code = corners.code
        may_begin = (code == _OUTER) | (code == _HOLE) | (code == _FALLING) | (code == _RISING)
        may_begin &= ~virtual
        order, start = in_order(following, np.concatenate([begins, np.flatnonzero(may_begin)]))
        stretch = np.empty(len(order), np.int64)
        stretch[order] = np.repeat(np.arange(len(start)), np.diff(start, append=len(order)))
        # Of a closed outline only its first corner may be the first of a hole.
        firsts = order[start]
        holes = (code == _HOLE) & ~virtual & (stretch < len(begins))
        holes[firsts[code[firsts] == _HOLE]] = True
        pairs = stretch[_left_of(corners, upper, np.flatnonzero(holes))]
        # Edges that come from one region above are of one region here.
        along = np.argsort(self._open, kind="stable")
        same = np.flatnonzero(np.diff(self._open[along]) == 0)
        known = stretch[np.stack([along[same], along[same + 1]])]
        count, region = join_groups(len(start), *np.concatenate([pairs, known], axis=1))
        from_above = region[stretch[: corners.above]]
        on = region[stretch[len(stretch) - corners.below :]]
        unfinished = np.zeros(count, np.bool_)
        unfinished[from_above] = unfinished[on] = True
        place = _places(corners, may_begin, self._width)[order]
        whole = ~unfinished[region]
        if whole.any():
            taken, begin = picked(start, len(order), np.flatnonzero(whole))
            yield finished(place[taken], begin, region[whole], self._width)
        self._take_over(from_above, on)
        self._keep(place, start, np.where(whole, -1, region))
        yield from self._ended()

    def _corners(self, strip: BoolArray) -> _Corners:
        pixels = np.zeros((len(strip) + 1, self._width + 2), np.uint8)
        pixels[0] = self._last
        pixels[1:, 1:-1] = strip
        self._last = pixels[-1].copy()
        return _Corners.of(pixels, self._row)

    def _take_over(self, from_above: Int64Array, on: Int64Array) -> None:
        """Number what is kept by the regions of the new strip."""
        parts: dict[int, list[Stretches]] = defaultdict(list)
        was, first = np.unique(self._open, return_index=True)
        for old, new in zip(was.tolist(), from_above[first].tolist(), strict=True):
            there, more = parts[new], self._parts[old]
            longer, shorter = (there, more) if len(there) > len(more) else (more, there)
            longer.extend(shorter)
            parts[new] = longer
        self._parts, self._open = parts, on

    def _keep(self, place: Int64Array, start: Int64Array, region: Int64Array) -> None:
        """Keep the stretches of unfinished regions; those of region -1 are finished."""
        along = np.argsort(region, kind="stable")
        along = along[np.searchsorted(region[along], 0) :]
        if not len(along):
            return
        taken, begin = picked(start, len(place), along)
        place, region = place[taken], region[along]
        cuts = np.flatnonzero(np.diff(region, prepend=-1))
        for first, end in zip(cuts.tolist(), [*cuts[1:].tolist(), len(along)], strict=True):
            a, b = begin[first], begin[end] if end < len(along) else len(place)
            # Copies: a view would keep all of the strip.
            part = Stretches(place=place[a:b].copy(), start=begin[first:end] - a)
            self._parts[int(region[first])].append(part)

    def _ended(self) -> Iterator[Outlines]:
        """Give the regions that do not go on below, and forget them."""
        ended = [one for one in self._parts.keys() - set(self._open.tolist())]
        if ended:
            yield assembled([self._parts.pop(one) for one in sorted(ended)], self._width)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Corners:
    """The corners of a strip and the ends of its edges.

    First the edges that come from above, then corners in reading order, then the edges that go on
    below. A corner in which two pixels meet is there twice, the turn with an edge to the left
    first.
    """

    row: Int64Array
    """(n,) of the raster; of the end of an edge, that of the last pixel in the strip that it
    leaves."""
    col: Int64Array
    """(n,)"""
    code: NDArray[np.uint8]
    """(n,) which of the four pixels around are foreground; of an edge, on which side it is."""
    first: int
    """The first row of the strip."""
    above: int
    """Edges that come from above."""
    below: int
    """Edges that go on below."""
    edges: NDArray[np.int64]
    """Pixels of the strip with an edge on their left: row in the strip * (width + 1) + column."""
    shape: tuple[int, int]
    """Rows of the strip, and edges in a row."""

    @property
    def real(self) -> slice:
        """Those that are corners, not ends of edges."""
        return slice(self.above, len(self.row) - self.below)

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], row: int) -> _Corners:
        """Find them.

        Args:
            pixels: (height + 1, width + 2) 0 or 1; the first row is that above the strip, and the
                first and last column lie beside the raster.
            row: the first of the strip.
        """
        edges = pixels[:, 1:] ^ pixels[:, :-1]
        height, pitch = edges.shape[0] - 1, edges.shape[1]
        # Where a vertical edge begins or ends, or goes on with its foreground on the other side.
        found = edges[1:] & edges[:-1]
        found &= pixels[1:, :-1] ^ pixels[:-1, :-1]
        found |= edges[1:] ^ edges[:-1]
        at, col = np.divmod(np.flatnonzero(found.view(np.bool_)), pitch)
        code = pixels[at, col] | pixels[at, col + 1] << 1
        code |= pixels[at + 1, col] << 2 | pixels[at + 1, col + 1] << 3
        twice = 1 + ((code == _FALLING) | (code == _RISING))
        at, col, code = (np.repeat(one, twice) for one in (at, col, code))
        above, below = (np.flatnonzero(line) for line in (edges[0], edges[-1]))
        sides = pixels[0, above + 1] * np.uint8(_LOWER_RIGHT)
        ends = np.full(len(above), -1), np.full(len(below), height - 1)
        return cls(
            row=np.concatenate([ends[0], at, ends[1]]) + row,
            col=np.concatenate([above, col, below]),
            code=np.concatenate([sides, code, np.zeros(len(below), np.uint8)]),
            first=row,
            above=len(above),
            below=len(below),
            edges=np.flatnonzero(edges[1:].view(np.bool_)),
            shape=(height, pitch),
        )


def _followed(corners: _Corners) -> tuple[Int64Array, Int64Array]:
    """Which corner follows on each, and the upper ends of vertical edges by column and row.

    Where an outline leaves the strip, -1 follows.
    """
    numbers = np.arange(len(corners.row))
    following = np.full(len(numbers), -1)
    left, right = numbers[corners.real].reshape(-1, 2).T
    # With the foreground above it an edge leads to the right.
    _link(following, left, right, corners.code[left] & _UPPER_RIGHT > 0)
    upper, lower = _by_column(corners).reshape(-1, 2).T
    # With the foreground on its right it leads down.
    _link(following, upper, lower, corners.code[upper] & _LOWER_RIGHT > 0)
    return following, upper


def _link(following: Int64Array, one: Int64Array, other: Int64Array, forth: BoolArray) -> None:
    """Let each of `other` follow on its one, or the other way round where not `forth`."""
    following[np.where(forth, one, other)] = np.where(forth, other, one)


def _reached(following: Int64Array) -> BoolArray:
    """Which corners follow on another."""
    reached = np.zeros(len(following), np.bool_)
    reached[following[following >= 0]] = True
    return reached


def _by_column(corners: _Corners) -> Int64Array:
    """The order of corners by column, then row; of two turns, the one with an edge above first."""
    col: NDArray[Any] = corners.col
    # Numbers of 16 bits are sorted by their digits, in a tenth of the time.
    order = np.argsort(col.astype(np.uint16), kind="stable")
    if corners.shape[1] > 1 << 16:
        order = order[np.argsort((col[order] >> 16).astype(np.uint16), kind="stable")]
    rising = np.flatnonzero(corners.code[order] == _RISING)[::2]
    order[rising], order[rising + 1] = order[rising + 1], order[rising]
    return order


def _left_of(corners: _Corners, upper: Int64Array, holes: Int64Array) -> Int64Array:
    """Pairs (2, k) of corners of one region.

    Args:
        corners: of a strip.
        upper: from `_followed`.
        holes: (k,) corners that are the first of a hole, or look like it: the foreground left of
            them is of their region. Beside each the pair has a corner of the outline where that
            foreground begins.
    """
    height, pitch = corners.shape
    at = corners.row[holes] - corners.first
    before = corners.edges[np.searchsorted(corners.edges, at * pitch + corners.col[holes]) - 1]
    tops = corners.col[upper] * (height + 1) + corners.row[upper] - corners.first + 1
    owner = np.searchsorted(tops, before % pitch * (height + 1) + at + 1, side="right") - 1
    return np.stack([holes, upper[owner]])


def _places(corners: _Corners, may_begin: BoolArray, width: int) -> Int64Array:
    """A number for each corner, in reading order, see `geothresh.raster.rings`."""
    place = (corners.row * (width + 1) + corners.col) * STEP
    place[may_begin] |= MAY_BEGIN
    place[(corners.code == _FALLING) | (corners.code == _RISING)] |= MEETS
    place[: corners.above] += BORDER
    place[len(place) - corners.below :] += BORDER
    return place
