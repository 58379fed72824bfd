"""Build rings and polygons from corners, of which it is known which corner follows which.

A corner is stored as one number, its place: `STEP` times (row * (width + 1) + column), plus flags.
So the order of places is the reading order. Where an outline crosses the border between two strips,
it is cut. Both parts end at the same place there, which is at least `BORDER`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import depth_first_order

from geothresh.types import BoolArray, Int64Array

STEP = 4
#: Flag of a corner in which two diagonal foreground pixels touch; each of them has a turn there.
MEETS = 1
#: Flag of a corner that may be the first corner of a ring in reading order.
MAY_BEGIN = 2
#: Added to the places where outlines cross a border of strips; above all places of corners.
BORDER = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Polygons in pixel coordinates, as ragged arrays (see `shapely.from_ragged_array`)."""

    corners: Int64Array
    """(k, 2) column and row of each corner; the last corner of each ring repeats its first."""

    rings: Int64Array
    """(r + 1,) index of the first corner of each ring; the last entry is k."""

    polygons: Int64Array
    """(n + 1,) index of the first ring of each polygon, which is its outer ring; the last entry is
    r."""

    meeting: BoolArray
    """(k,) True = two diagonal foreground pixels touch in the corner."""

    @property
    def firsts(self) -> Int64Array:
        """(n, 2) column and row of the uppermost, then leftmost corner of each polygon."""
        return self.corners[self.rings[self.polygons[:-1]]]

    def areas(self) -> Int64Array:
        """(n,) number of pixels inside each polygon."""
        x, y = self.corners.T
        # The shoelace formula: twice the area of each ring, with opposite signs of outer rings and
        # holes. The term from the last corner of a ring to the first of the next ring is left out;
        # rings are closed by their last corner.
        doubled = np.zeros(len(x), np.int64)
        doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
        doubled[self.rings[1:] - 1] = 0
        rings = np.add.reduceat(doubled, self.rings[:-1])
        areas: Int64Array = np.add.reduceat(rings, self.polygons[:-1]) // 2
        return abs(areas)

    def meetings(self, kept: BoolArray, width: int) -> Int64Array:
        """The corners of some polygons in which diagonal pixels touch.

        Args:
            kept: (n,) True = the corners of the polygon are wanted.
            width: columns of the raster.

        Returns:
            (m,) row * (width + 1) + column, once for each time that an outline passes the corner.
        """
        corners = np.diff(self.rings[self.polygons])
        found = self.meeting & np.repeat(kept, corners)
        # The last corner of each ring repeats its first.
        found[self.rings[1:] - 1] = False
        column, row = self.corners[found].T
        places: Int64Array = row * (width + 1) + column
        return places

    def cut(self, most: int) -> Iterator[Outlines]:
        """Split into batches of at most `most` corners, or of one polygon that has more.

        Yields:
            Batches of polygons, in their order.
        """
        ends = self.rings[self.polygons[1:]]
        first = 0
        while first < len(ends):
            below = self.rings[self.polygons[first]] + most
            end = max(first + 1, int(np.searchsorted(ends, below, side="right")))
            a, b = int(self.polygons[first]), int(self.polygons[end])
            span = slice(int(self.rings[a]), int(self.rings[b]))
            yield Outlines(
                corners=self.corners[span],
                rings=self.rings[a : b + 1] - self.rings[a],
                polygons=self.polygons[first : end + 1] - a,
                meeting=self.meeting[span],
            )
            first = end


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretches:
    """Stretches of the outlines of one region: each is closed, or open between two borders."""

    place: Int64Array
    """(n,) places of corners, stretch by stretch, in the order of the outline. The first and the
    last place of an open stretch are at borders of strips."""

    start: Int64Array
    """(m,) index of the first place of each stretch."""


def in_order(following: Int64Array, firsts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Order corners so that each follows the one before, stretch by stretch.

    Args:
        following: (n,) index of the next corner; -1 where a stretch ends.
        firsts: (m,) indices of corners, with at least one of each stretch. A closed stretch begins
            at its earliest corner in this list. An open stretch must have its first corner in it,
            before its others.

    Returns:
        order: (n,) indices of corners.
        start: index in `order` at which each stretch begins; stretches are in the order of
            `firsts`.
    """
    n, m = len(following), len(firsts)
    # A spine of further nodes is added: each leads to a first corner, then to the next node of the
    # spine. A depth-first search along the spine visits all of a stretch before the next one, and
    # none twice.
    spine = np.stack([firsts, n + 1 + np.arange(m)], axis=1).ravel()[:-1]
    leads = following >= 0
    ends = np.concatenate([[0], np.cumsum(leads)])
    graph = csr_array(
        (
            np.ones(int(ends[-1]) + len(spine)),
            np.concatenate([following[leads], spine]).astype(np.int32),
            np.concatenate(
                [ends, ends[-1] + 2 * np.arange(1, m), ends[-1] + np.array([2 * m - 1])]
            ).astype(np.int32),
        ),
        shape=(n + m, n + m),
    )
    order, before = depth_first_order(graph, n, directed=True)
    order = order[order < n].astype(np.int64)
    return order, np.flatnonzero(before[order] >= n)


def picked(start: Int64Array, total: int, chosen: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Select some stretches.

    Args:
        start: (m,) index of the first entry of each stretch.
        total: number of entries of all stretches.
        chosen: (k,) indices of the wanted stretches, in the wanted order.

    Returns:
        Indices of the entries of these stretches, one stretch after another; and (k,) where each of
        them begins among these indices.
    """
    length = np.diff(start, append=total)[chosen]
    begin = np.cumsum(length) - length
    return np.repeat(start[chosen] - begin, length) + np.arange(int(length.sum())), begin


def finished(place: Int64Array, start: Int64Array, region: Int64Array, width: int) -> Outlines:
    """Build the polygons of regions from all of their rings.

    Args:
        place: (k,) places of corners, ring by ring, in the order of the outline.
        start: (r,) index of the first corner of each ring, which is its first in reading order.
        region: (r,) number of the region of each ring.
        width: columns of the raster.
    """
    length = np.diff(start, append=len(place))
    owner = np.repeat(region, length)
    turns = _shared(place, owner)
    if turns.size:
        # Only the regions that touch themselves in a corner are put in order again.
        ring = np.isin(region, owner[turns[0]])
        corner = np.repeat(ring, length)
        number = np.cumsum(corner) - 1
        following = np.arange(1, len(place) + 1)
        following[start + length - 1] = start
        _exchange(following, turns)
        again = _ordered(place[corner], number[following[corner]], owner[corner])
        kept, begin = picked(start, len(place), np.flatnonzero(~ring))
        place = np.concatenate([place[kept], again[0]])
        start = np.concatenate([begin, again[1] + len(kept)])
        region = np.concatenate([region[~ring], again[2]])
    return _ragged(place, start, region, width)


def assembled(regions: Sequence[Sequence[Stretches]], width: int) -> Outlines:
    """Build the polygons of regions from all stretches of their outlines.

    Args:
        regions: the stretches of each region, in any order.
        width: columns of the raster.
    """
    parts = [part for region in regions for part in region]
    sizes = np.array([len(part.place) for part in parts])
    place = np.concatenate([part.place for part in parts])
    offsets = np.cumsum(sizes) - sizes
    start = np.concatenate([part.start + k for part, k in zip(parts, offsets, strict=True)])
    per_region = [sum(len(part.place) for part in region) for region in regions]
    owner = np.repeat(np.arange(len(regions)), per_region)
    end = np.append(start[1:], len(place)) - 1
    following = np.arange(1, len(place) + 1)
    opened = place[start] >= BORDER
    following[end[~opened]] = start[~opened]
    # An open stretch ends at a place on a border at which another one begins.
    begins, ends = start[opened], end[opened]
    following[ends[np.argsort(place[ends])]] = begins[np.argsort(place[begins])]
    _exchange(following, _shared(place, owner))
    return _ragged(*_ordered(place, following, owner), width)


def _shared(place: Int64Array, owner: Int64Array) -> Int64Array:
    """(2, k) pairs of corners: the two turns at one place, if both belong to one region."""
    meets = np.flatnonzero((place & MEETS > 0) & (place < BORDER))
    meets = meets[np.argsort(place[meets], kind="stable")]
    twice = np.flatnonzero(np.diff(place[meets]) == 0)
    pairs = np.stack([meets[twice], meets[twice + 1]])
    return pairs[:, owner[pairs[0]] == owner[pairs[1]]]


def _exchange(following: Int64Array, turns: Int64Array) -> None:
    """Exchange the corners that follow the two turns of each pair."""
    following[turns] = following[turns[::-1]]


def _ordered(
    place: Int64Array, following: Int64Array, owner: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Order corners ring by ring, without the places at borders.

    Returns:
        Places of corners, index of the first corner of each ring, and the region of each ring.
    """
    firsts = np.flatnonzero((place & MAY_BEGIN > 0) & (place < BORDER))
    firsts = firsts[np.argsort(place[firsts], kind="stable")]
    order, start = in_order(following, firsts)
    region = owner[order[start]]
    place = place[order]
    real = place < BORDER
    return place[real], (np.cumsum(real) - 1)[start], region


def _ragged(place: Int64Array, start: Int64Array, region: Int64Array, width: int) -> Outlines:
    """Build polygons from rings in any order; see `finished` for the arguments."""
    firsts = place[start]
    order = np.argsort(firsts, kind="stable")
    # The outer ring is the first ring of a region in reading order.
    _, first, number = np.unique(region[order], return_index=True, return_inverse=True)
    order = order[np.argsort(first[number], kind="stable")]
    counts = np.bincount(number)[np.argsort(first)]
    taken, begin = picked(start, len(place), order)
    closed = np.append(begin[1:], len(place)) if len(begin) else begin
    # The first corner of each ring is repeated after its last.
    corner = np.insert(place[taken], closed, place[start[order]])
    row, col = np.divmod(corner // STEP, width + 1)
    return Outlines(
        corners=np.stack([col, row], axis=1),
        rings=np.append(begin, len(place)) + np.arange(len(begin) + 1),
        polygons=np.concatenate([[0], np.cumsum(counts)]),
        meeting=corner & MEETS > 0,
    )
