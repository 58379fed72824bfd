"""Polygonise the regions of a mask that is read strip by strip; polygons are not cut at strips.

The corners of a strip are found with numpy. Corners in a row are joined in pairs by horizontal
edges, corners in a column by vertical edges. A vertical edge that crosses the lower border of the
strip continues in the next strip. A region without such an edge is finished in its strip. For all
other regions, stretches of their outlines are kept, and joined once, when the last of their edges
has ended. So the time grows with the number of pixels and corners, whatever the number of strips
that a region covers. Memory holds one strip, and the regions that continue below it.

Edges have the foreground on their left, in the direction of the outline (rows go down). If two
diagonal pixels of the foreground touch in a corner, two outlines pass the corner, each with a turn
of its own. When a region is finished, it is known whether both pixels belong to it. If so, the
corners that follow the two turns are exchanged. Then no ring touches itself, and all polygons are
valid.

GDAL's polygoniser (`rasterio.features.shapes`) is not used, as it returns its first polygon only
when it has found the last one. So all polygons of a country would be in memory. The polygons are
the same, corner by corner, and tests compare them. An outer ring begins at its uppermost corner, at
the leftmost of these, and goes down. A hole begins at its uppermost, then leftmost corner, and goes
right. Holes are in the order of these first corners.
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

# Pixels that are outlined at a time. In noise, most of them have a corner, which takes some 200
# bytes.
_PIXELS = 1 << 20
# Least number of rows that are outlined at a time, as each unfinished region takes some
# microseconds each time.
_ROWS = 32

# The code of a corner: the sum of these numbers for all foreground pixels around it.
_UPPER_LEFT, _UPPER_RIGHT, _LOWER_LEFT, _LOWER_RIGHT = 1, 2, 4, 8
# Codes of corners in which two diagonal pixels touch: the diagonal falls or rises to the right.
_FALLING, _RISING = _UPPER_LEFT | _LOWER_RIGHT, _UPPER_RIGHT | _LOWER_LEFT
# Codes of the first corner of an outer ring and of a hole, unless diagonal pixels touch in it.
_OUTER, _HOLE = _LOWER_RIGHT, _UPPER_LEFT | _UPPER_RIGHT | _LOWER_LEFT


def outlines(strips: Iterable[BoolArray], width: int) -> Iterator[Outlines]:
    """Polygonise the 4-connected regions of a mask.

    Args:
        strips: (height, width) arrays from top to bottom, True = foreground. Heights may differ.
        width: columns of the mask, 1 or more.

    Yields:
        Batches of polygons in pixel coordinates, as soon as they are finished, in no particular
        order.
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
    # An empty row is added below the last one, so that all regions end.
    yield from tracer.add(np.concatenate([*waiting, np.zeros((1, width), np.bool_)]))


class _Tracer:
    """Takes the strips of a mask, and gives the polygons that each of them finishes."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._row = 0
        # The last row of the strip above, with a column of background on either side.
        self._last = np.zeros(width + 2, np.uint8)
        # The number of the unfinished region of each edge that continues below, left to right.
        self._open = np.empty(0, np.int64)
        # The stretches of outlines of each unfinished region, by its number.
        self._parts: dict[int, list[Stretches]] = {}

    def add(self, strip: BoolArray) -> Iterator[Outlines]:
        """Take the next strip, and yield the polygons that it finishes."""
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
        # Only the first corner of a closed outline can be the first corner of a hole.
        firsts = order[start]
        holes = (code == _HOLE) & ~virtual & (stretch < len(begins))
        holes[firsts[code[firsts] == _HOLE]] = True
        pairs = stretch[_left_of(corners, upper, np.flatnonzero(holes))]
        # Edges of one region in the strip above belong to one region here, too.
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
        """Renumber the unfinished regions by those of the new strip, and merge their stretches."""
        parts: dict[int, list[Stretches]] = defaultdict(list)
        was, first = np.unique(self._open, return_index=True)
        for old, new in zip(was.tolist(), from_above[first].tolist(), strict=True):
            there, more = parts[new], self._parts[old]
            longer, shorter = (there, more) if len(there) > len(more) else (more, there)
            longer.extend(shorter)
            parts[new] = longer
        self._parts, self._open = parts, on

    def _keep(self, place: Int64Array, start: Int64Array, region: Int64Array) -> None:
        """Keep the stretches of unfinished regions; stretches of region -1 are finished."""
        along = np.argsort(region, kind="stable")
        along = along[np.searchsorted(region[along], 0) :]
        if not len(along):
            return
        taken, begin = picked(start, len(place), along)
        place, region = place[taken], region[along]
        cuts = np.flatnonzero(np.diff(region, prepend=-1))
        for first, end in zip(cuts.tolist(), [*cuts[1:].tolist(), len(along)], strict=True):
            a, b = begin[first], begin[end] if end < len(along) else len(place)
            # A view would keep the arrays of the whole strip in memory, so parts are copied.
            part = Stretches(place=place[a:b].copy(), start=begin[first:end] - a)
            self._parts[int(region[first])].append(part)

    def _ended(self) -> Iterator[Outlines]:
        """Yield the polygons of regions that do not continue below, and remove these regions."""
        ended = [one for one in self._parts.keys() - set(self._open.tolist())]
        if ended:
            yield assembled([self._parts.pop(one) for one in sorted(ended)], self._width)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Corners:
    """The corners of a strip, and the edges that cross its upper and lower border.

    The n entries are first the edges from above, then the corners in reading order, then the edges
    to below. A corner in which two diagonal pixels touch has two entries, one for each turn; the
    first one is the turn with an edge to the left.
    """

    row: Int64Array
    """(n,) row in the raster. For a crossing edge, it is the row of the pixels just above the
    border."""
    col: Int64Array
    """(n,) column: the number of pixels to the left of the corner or edge."""
    code: NDArray[np.uint8]
    """(n,) which of the four pixels around a corner are foreground. For an edge from above, it is
    `_LOWER_RIGHT` if the foreground is on the right, else 0; for an edge to below it is 0."""
    first: int
    """First row of the strip in the raster."""
    above: int
    """Number of edges from above."""
    below: int
    """Number of edges to below."""
    edges: NDArray[np.int64]
    """Vertical edges in the rows of the strip, ascending: row in the strip * (width + 1) + column
    of the pixel to the right of the edge."""
    shape: tuple[int, int]
    """Rows of the strip, and width + 1, the number of possible vertical edges in a row."""

    @property
    def real(self) -> slice:
        """The entries that are corners and not crossing edges."""
        return slice(self.above, len(self.row) - self.below)

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], row: int) -> _Corners:
        """Find the corners of a strip.

        Args:
            pixels: (height + 1, width + 2), 1 = foreground, 0 = background. The first row is the
                row above the strip; the first and the last column are beside the raster.
            row: first row of the strip in the raster.
        """
        edges = pixels[:, 1:] ^ pixels[:, :-1]
        height, pitch = edges.shape[0] - 1, edges.shape[1]
        # A corner is where a vertical edge begins or ends, or continues with its foreground on the
        # other side.
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
    """Find the next corner along the outline, for each corner.

    Returns:
        (n,) index of the next corner, -1 where an outline leaves the strip; and (m,) indices of the
        upper ends of all vertical edges, by column, then row.
    """
    numbers = np.arange(len(corners.row))
    following = np.full(len(numbers), -1)
    left, right = numbers[corners.real].reshape(-1, 2).T
    # An edge with the foreground above it goes to the right.
    _link(following, left, right, corners.code[left] & _UPPER_RIGHT > 0)
    upper, lower = _by_column(corners).reshape(-1, 2).T
    # An edge with the foreground on its right goes down.
    _link(following, upper, lower, corners.code[upper] & _LOWER_RIGHT > 0)
    return following, upper


def _link(following: Int64Array, one: Int64Array, other: Int64Array, forth: BoolArray) -> None:
    """Set that each corner of `other` follows its one of `one`; the reverse where not `forth`."""
    following[np.where(forth, one, other)] = np.where(forth, other, one)


def _reached(following: Int64Array) -> BoolArray:
    """(n,) True = the corner follows another one."""
    reached = np.zeros(len(following), np.bool_)
    reached[following[following >= 0]] = True
    return reached


def _by_column(corners: _Corners) -> Int64Array:
    """(n,) indices of corners by column, then row; of two turns, first that with an edge above."""
    col: NDArray[Any] = corners.col
    # numpy sorts 16-bit integers with a radix sort, in a tenth of the time.
    order = np.argsort(col.astype(np.uint16), kind="stable")
    if corners.shape[1] > 1 << 16:
        order = order[np.argsort((col[order] >> 16).astype(np.uint16), kind="stable")]
    rising = np.flatnonzero(corners.code[order] == _RISING)[::2]
    order[rising], order[rising + 1] = order[rising + 1], order[rising]
    return order


def _left_of(corners: _Corners, upper: Int64Array, holes: Int64Array) -> Int64Array:
    """Find a corner of the same region to the left of each first corner of a hole.

    The foreground to the left of a hole belongs to the region with the hole. Where that foreground
    begins, there is a vertical edge, whose upper end is the corner.

    Args:
        corners: corners of a strip.
        upper: upper ends of vertical edges, from `_followed`.
        holes: (k,) indices of corners that are the first corner of a hole, or have its code.

    Returns:
        (2, k) pairs of indices: `holes`, and the corners to their left.
    """
    height, pitch = corners.shape
    at = corners.row[holes] - corners.first
    before = corners.edges[np.searchsorted(corners.edges, at * pitch + corners.col[holes]) - 1]
    tops = corners.col[upper] * (height + 1) + corners.row[upper] - corners.first + 1
    owner = np.searchsorted(tops, before % pitch * (height + 1) + at + 1, side="right") - 1
    return np.stack([holes, upper[owner]])


def _places(corners: _Corners, may_begin: BoolArray, width: int) -> Int64Array:
    """(n,) the place of each corner or crossing edge, see `geothresh.raster.rings`."""
    place = (corners.row * (width + 1) + corners.col) * STEP
    place[may_begin] |= MAY_BEGIN
    place[(corners.code == _FALLING) | (corners.code == _RISING)] |= MEETS
    place[: corners.above] += BORDER
    place[len(place) - corners.below :] += BORDER
    return place
