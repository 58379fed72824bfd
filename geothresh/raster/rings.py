"""Rings and polygons from corners of which it is known which follows on which.

A corner is one number, its place: `STEP` times row * (width + 1) + column, and flags. So places are
in reading order. Where an outline crosses a border between strips, it ends at a place from `BORDER`
up, and goes on at the same place in the next strip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import depth_first_order

from geothresh.types import BoolArray, Int64Array

STEP = 4
#: Flag of a corner in which two pixels of the foreground meet alone; each has a turn there.
MEETS = 1
#: Flag of a corner that may be the first of a ring in reading order.
MAY_BEGIN = 2
#: Above all places of corners.
BORDER = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """Polygons in pixel coordinates, as ragged arrays."""

    corners: Int64Array
    """(k, 2) column and row; the last of each ring is its first."""

    rings: Int64Array
    """(r + 1,) where each ring begins among the corners, and their number."""

    polygons: Int64Array
    """(n + 1,) where each polygon begins among the rings, outer ring first, and their number."""

    meeting: BoolArray
    """(k,) whether two pixels of the foreground meet in the corner alone."""

    @property
    def firsts(self) -> Int64Array:
        """(n, 2) the uppermost, then leftmost corner of each polygon."""
        return self.corners[self.rings[self.polygons[:-1]]]

    def areas(self) -> Int64Array:
        """(n,) pixels inside each polygon."""
        x, y = self.corners.T
        # Twice the area of each ring, of holes negative: rows go down. The edge from the last
        # corner of a ring to the first of the next is left out, as its end is where it begins.
        doubled = np.zeros(len(x), np.int64)
        doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
        doubled[self.rings[1:] - 1] = 0
        rings = np.add.reduceat(doubled, self.rings[:-1])
        areas: Int64Array = np.add.reduceat(rings, self.polygons[:-1]) // 2
        return abs(areas)

    def meetings(self, kept: BoolArray, width: int) -> Int64Array:
        """Corners of some polygons in which pixels meet alone: row * (width + 1) + column.

        Args:
            kept: (n,) whether the corners of each polygon are asked for.
            width: columns of the raster.

        Returns:
            (k,) once for each turn.
        """
        corners = np.diff(self.rings[self.polygons])
        found = self.meeting & np.repeat(kept, corners)
        # The last corner of each ring is its first.
        found[self.rings[1:] - 1] = False
        column, row = self.corners[found].T
        places: Int64Array = row * (width + 1) + column
        return places

    def cut(self, most: int) -> Iterator[Outlines]:
        """The same polygons, some at a time: `most` corners, or a single polygon of more."""
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
    """Stretches of the outlines of one region: closed, or open between two borders."""

    place: Int64Array
    """(n,) of corners, each following on the one before; both ends of an open one are borders."""

    start: Int64Array
    """(m,) where each stretch begins."""


def in_order(following: Int64Array, firsts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Corners in the order in which they follow each other, stretch by stretch.

    Args:
        following: (n,) which follows on each; -1 where a stretch ends.
        firsts: corners among which is at least one of each stretch. A closed one begins at the
            earliest of its own, an open one must have its end there.

    Returns:
        order: (n,) indices.
        start: where each stretch begins, in the order of `firsts`.
    """
    n, m = len(following), len(firsts)
    # Depth first along a spine, each of whose nodes leads to a first corner, then to the next node:
    # a whole stretch is visited before the next one, and none twice.
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
    """Indices of the entries of some stretches, one after another, and where each begins.

    Args:
        start: where each of all stretches begins.
        total: number of their entries.
        chosen: which stretches, in the order wanted.
    """
    length = np.diff(start, append=total)[chosen]
    begin = np.cumsum(length) - length
    return np.repeat(start[chosen] - begin, length) + np.arange(int(length.sum())), begin


def finished(place: Int64Array, start: Int64Array, region: Int64Array, width: int) -> Outlines:
    """Polygons of regions all of whose rings are there.

    Args:
        place: of corners, each following on the one before.
        start: where each ring begins, at the first of its corners in reading order.
        region: of each ring, any numbers.
        width: columns of the raster.
    """
    length = np.diff(start, append=len(place))
    owner = np.repeat(region, length)
    turns = _shared(place, owner)
    if turns.size:
        # Only the regions that meet themselves are put in order anew.
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
    """Polygons of regions from all of their stretches.

    Args:
        regions: the stretches of each, in any order.
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
    # Each end of an open stretch is at the border where another begins.
    begins, ends = start[opened], end[opened]
    following[ends[np.argsort(place[ends])]] = begins[np.argsort(place[begins])]
    _exchange(following, _shared(place, owner))
    return _ragged(*_ordered(place, following, owner), width)


def _shared(place: Int64Array, owner: Int64Array) -> Int64Array:
    """Pairs (2, k) of turns at one place that belong to one region."""
    meets = np.flatnonzero((place & MEETS > 0) & (place < BORDER))
    meets = meets[np.argsort(place[meets], kind="stable")]
    twice = np.flatnonzero(np.diff(place[meets]) == 0)
    pairs = np.stack([meets[twice], meets[twice + 1]])
    return pairs[:, owner[pairs[0]] == owner[pairs[1]]]


def _exchange(following: Int64Array, turns: Int64Array) -> None:
    """Exchange what follows on the two turns of each pair."""
    following[turns] = following[turns[::-1]]


def _ordered(
    place: Int64Array, following: Int64Array, owner: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Places in the order of closed outlines, where each begins, and the region of each."""
    firsts = np.flatnonzero((place & MAY_BEGIN > 0) & (place < BORDER))
    firsts = firsts[np.argsort(place[firsts], kind="stable")]
    order, start = in_order(following, firsts)
    region = owner[order[start]]
    place = place[order]
    real = place < BORDER
    return place[real], (np.cumsum(real) - 1)[start], region


def _ragged(place: Int64Array, start: Int64Array, region: Int64Array, width: int) -> Outlines:
    """Polygons from rings in any order; see `finished`."""
    firsts = place[start]
    order = np.argsort(firsts, kind="stable")
    # Of the rings of a region the outer one is the first.
    _, first, number = np.unique(region[order], return_index=True, return_inverse=True)
    order = order[np.argsort(first[number], kind="stable")]
    counts = np.bincount(number)[np.argsort(first)]
    taken, begin = picked(start, len(place), order)
    closed = np.append(begin[1:], len(place)) if len(begin) else begin
    # The first corner of each ring once more behind its last.
    corner = np.insert(place[taken], closed, place[start[order]])
    row, col = np.divmod(corner // STEP, width + 1)
    return Outlines(
        corners=np.stack([col, row], axis=1),
        rings=np.append(begin, len(place)) + np.arange(len(begin) + 1),
        polygons=np.concatenate([[0], np.cumsum(counts)]),
        meeting=corner & MEETS > 0,
    )
