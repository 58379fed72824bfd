"""Trace the lines of a skeleton block by block, without gaps at seams, and smooth them.

Two pixels of the skeleton are linked if they share a side. They are also linked if they share a
corner and neither of the two other pixels at that corner is part of the skeleton (otherwise the
line leads through that pixel). A pixel with one link is an end, with two links it is passed, with
three or more it is a knot (a junction). The four pixels of a full square, which thinning can leave
where roads meet, are knots too. Each link belongs to the block of its upper pixel, or of its left
pixel if both are in one row, so that every link is traced once. Lines that are cut where blocks
meet are joined again at passed pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from geothresh.skeleton.ground import UNIT
from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from geothresh.windows import PixelWindow

#: Pixels around a block that `trace` needs.
MARGIN = 2
_END, _PASSED, _KNOT = 1, 2, 3
#: Standard deviation of the Gaussian along a line, in points.
_SIGMA = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Chains of edges; each edge is in one chain, once."""

    halves: Int64Array
    """(m,) half-edges, chain after chain in order: 2 e where edge e runs from its first end to its
    second, 2 e + 1 where it runs back."""
    starts: Int64Array
    """(n + 1,) index of the start of each chain in `halves`; the last entry is m."""


def chain(ends: Int64Array, through: BoolArray) -> Chains:
    """Join edges end to end at all vertices that lines pass through.

    Args:
        ends: (m, 2) the two vertices of each edge, as numbers from 0.
        through: (n,) True = exactly two ends meet at the vertex, and a chain goes on there.

    Returns:
        The chains. A closed one starts and ends at its least vertex. The direction is that in which
        the lesser of the two half-edges at its ends comes first.
    """
    tails = ends.ravel()
    n_halves = tails.size
    # Two half-edges leave a passed vertex: a chain arrives by one and leaves by the other.
    leaving = np.flatnonzero(through[tails])
    leaving = leaving[np.argsort(tails[leaving], kind="stable")]
    left, right = leaving[::2], leaving[1::2]
    before = np.full(n_halves, -1, np.int64)
    before[right], before[left] = left ^ 1, right ^ 1

    # Pointer doubling: each half-edge finds the first one of its chain and its distance from it.
    first = np.where(before >= 0, before, np.arange(n_halves))
    distance = (before >= 0).astype(np.int64)
    for _ in range(n_halves.bit_length()):
        if (before[first] < 0).all():
            break
        distance += distance[first]
        first = first[first]
    circling = np.flatnonzero(before[first] >= 0)
    if circling.size:
        opened = through.copy()
        opened[_least_of_circles(tails, before, circling)] = False
        return chain(ends, opened)

    order = np.lexsort((distance, first))
    chain_starts = np.flatnonzero(distance[order] == 0)
    lengths = np.diff(np.append(chain_starts, n_halves))
    last = order[chain_starts + lengths - 1]
    # Every chain was found in both directions.
    kept = order[chain_starts] < (last ^ 1)
    return Chains(
        halves=order[np.repeat(kept, lengths)],
        starts=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
    )


def _least_of_circles(tails: Int64Array, before: Int64Array, circling: Int64Array) -> Int64Array:
    """The least vertex of each circle of half-edges."""
    least, far = tails.copy(), before
    for _ in range(circling.size.bit_length()):
        least[circling] = np.minimum(least[circling], least[far[circling]])
        # Half-edges off the circles end at -1.
        far = np.where(far >= 0, far[far], -1)
    return np.unique(least[circling])


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A line of linked pixels."""

    pixels: Int64Array
    """(n,) row * width + column in the whole raster, n >= 2; from end to end, both included."""
    samples: Float32Array
    """(n, k) values measured at the pixels."""
    knots: tuple[bool, bool]
    """Whether the first and the last pixel are knots."""
    whole: tuple[bool, bool]
    """Whether the line ends at its first and last pixel; False = it was cut there by a block."""

    def directed(self, back: bool) -> Trace:
        """Return the line, in the opposite direction if `back`."""
        if not back:
            return self
        return Trace(
            pixels=self.pixels[::-1],
            samples=self.samples[::-1],
            knots=(self.knots[1], self.knots[0]),
            whole=(self.whole[1], self.whole[0]),
        )

    def closed(self) -> Trace:
        """Return a closed line as a ring that starts and ends at its least pixel."""
        open_end = int(self.pixels[0] == self.pixels[-1])
        pixels = self.pixels[: self.pixels.size - open_end]
        turn = np.roll(np.arange(pixels.size), -int(np.argmin(pixels)))
        turn = np.append(turn, turn[0])
        return Trace(
            pixels=pixels[turn],
            samples=self.samples[turn],
            knots=(False, False),
            whole=(True, True),
        )

    def length(self, width: int, shape: Float64Array = UNIT) -> float:
        """Length in pixels of a shape (`geothresh.skeleton.ground`), from centre to centre.

        `width` is the width of the raster.
        """
        steps = np.diff(np.divmod(self.pixels, width), axis=1)
        return float(np.hypot(*(shape @ steps)).sum())


def trace(
    skeleton: BoolArray,
    samples: Float32Array,
    *,
    outer: PixelWindow,
    core: PixelWindow,
    width: int,
) -> list[Trace]:
    """Trace the lines of the links that belong to one block.

    Args:
        skeleton: (h, w) the pixels of `outer`, True = skeleton.
        samples: (h, w, k) values measured at the pixels.
        outer: the block and `MARGIN` pixels around it, as far as the raster goes.
        core: the block.
        width: columns of the raster.
    """
    padded = np.pad(skeleton, 1)
    kinds, ends = _links(padded, core.within(outer))
    if not ends.size:
        return []
    vertices, ends = np.unique(ends, return_inverse=True)
    ends = ends.reshape(-1, 2).astype(np.int64)
    meeting = np.bincount(ends.ravel(), minlength=vertices.size)
    passed = (kinds[vertices] == _PASSED) & (meeting == 2)

    row, col = np.divmod(vertices, padded.shape[1])
    numbers = (row - 1 + outer.row) * width + (col - 1 + outer.col)
    measured = samples.reshape(-1, samples.shape[-1])[(row - 1) * outer.width + col - 1]
    found = chain(ends, passed)
    tails = ends.ravel()[found.halves]
    traces = []
    for begin, end in zip(found.starts[:-1], found.starts[1:], strict=True):
        last = ends.ravel()[found.halves[end - 1] ^ 1]
        line = np.append(tails[begin:end], last)
        kind = kinds[vertices[line[[0, -1]]]]
        traces.append(
            Trace(
                pixels=numbers[line],
                samples=measured[line],
                knots=(bool(kind[0] == _KNOT), bool(kind[1] == _KNOT)),
                whole=(bool(kind[0] != _PASSED), bool(kind[1] != _PASSED)),
            )
        )
    return traces


def _links(padded: BoolArray, block: tuple[slice, slice]) -> tuple[UInt8Array, Int64Array]:
    """Find the links of a block, between pixels given by their index in the flattened skeleton.

    Args:
        padded: (h + 2, w + 2) the skeleton with a border of one background pixel.
        block: rows and columns of the skeleton.

    Returns:
        ((h + 2) * (w + 2),) the kind of each pixel of the block and one pixel around it, 0
        elsewhere; and (m, 2) the two ends of each link that belongs to the block.
    """
    rows, cols = block
    flat, pitch = padded.ravel(), padded.shape[1]
    inside = np.zeros(padded.shape, np.bool_)
    # The block and one pixel around it: ends of links.
    inside[rows.start : rows.stop + 2, cols.start : cols.stop + 2] = True
    places = np.flatnonzero(flat & inside.ravel())
    n, ne, e, se, s, sw, w, nw = (
        flat[places + offset]
        for offset in (-pitch, 1 - pitch, 1, pitch + 1, pitch, pitch - 1, -1, -1 - pitch)
    )
    # Links across a corner, if neither pixel beside the corner is part of the skeleton.
    to_ne, to_se, to_sw, to_nw = (
        corner & ~side & ~other
        for corner, side, other in ((ne, n, e), (se, s, e), (sw, s, w), (nw, n, w))
    )
    links = sum(part.astype(np.uint8) for part in (n, e, s, w, to_ne, to_se, to_sw, to_nw))
    square = (n & ne & e) | (e & se & s) | (s & sw & w) | (w & nw & n)
    kinds = np.zeros(flat.size, np.uint8)
    kinds[places] = np.where(square | (links > 2), _KNOT, np.where(links == 2, _PASSED, _END))

    inside[:] = False
    inside[rows.start + 1 : rows.stop + 1, cols.start + 1 : cols.stop + 1] = True
    owned = inside.ravel()[places]
    ends = []
    for linked, offset in ((e, 1), (to_sw, pitch - 1), (s, pitch), (to_se, pitch + 1)):
        starts = places[owned & linked]
        ends.append(np.stack([starts, starts + offset], axis=1))
    return kinds, np.concatenate(ends)


def join(traces: Iterable[Trace]) -> list[Trace]:
    """Join the lines of all blocks where they were cut; the result does not depend on the blocks.

    A ring without knots starts and ends at its least pixel. Every other line starts at the lesser
    of its end pixels; one that returns to its start, in the direction of the lesser neighbour.
    """
    parts = list(traces)
    if not parts:
        return []
    outer = np.array([[part.pixels[0], part.pixels[-1]] for part in parts], np.int64)
    vertices, ends = np.unique(outer, return_inverse=True)
    ends = ends.reshape(-1, 2).astype(np.int64)
    through = np.zeros(vertices.size, np.bool_)
    through[ends.ravel()[~np.array([part.whole for part in parts]).ravel()]] = True
    found = chain(ends, through)
    joined = []
    for begin, stop in zip(found.starts[:-1], found.starts[1:], strict=True):
        halves = found.halves[begin:stop]
        joined.append(_canonical(together([parts[h >> 1].directed(bool(h & 1)) for h in halves])))
    joined.sort(key=lambda line: (line.pixels[0], line.pixels[1], line.pixels[-1]))
    return joined


def together(parts: list[Trace]) -> Trace:
    """Concatenate lines that meet end to end; a pixel at which two of them meet is kept once.

    Lines that meet at a node need not share a pixel: a node may be several pixels.
    """
    if len(parts) == 1:
        return parts[0]
    pixels, samples = [parts[0].pixels], [parts[0].samples]
    for part in parts[1:]:
        shared = int(part.pixels[0] == pixels[-1][-1])
        pixels.append(part.pixels[shared:])
        samples.append(part.samples[shared:])
    return Trace(
        pixels=np.concatenate(pixels),
        samples=np.concatenate(samples),
        knots=(parts[0].knots[0], parts[-1].knots[1]),
        whole=(parts[0].whole[0], parts[-1].whole[1]),
    )


def _canonical(line: Trace) -> Trace:
    pixels = line.pixels
    if pixels[0] == pixels[-1] and not line.whole[0]:
        line = line.closed()
        pixels = line.pixels
    return line.directed((pixels[0], pixels[1]) > (pixels[-1], pixels[-2]))


def smoothed(points: Float64Array, *, most: float = 1.0, fixed: bool = False) -> Float64Array:
    """Smooth a line: each point moves to a weighted mean of the points around it.

    The two ends stay; a ring (its last point is its first) is smoothed all around, unless it is
    fixed where it closes.

    Args:
        points: (n, 2), about one pixel apart.
        most: greatest distance in pixels by which a point may move, so that corners stay corners.
        fixed: whether the ends of a ring stay too, as other lines meet it there.

    Returns:
        (n, 2), a new array.
    """
    n = len(points)
    if n < 3:
        return points.copy()
    ring = not fixed and bool((points[0] == points[-1]).all())
    if ring:
        mean = gaussian_filter1d(points[:-1], _SIGMA, axis=0, mode="wrap")
        mean = np.concatenate([mean, mean[:1]])
    else:
        # The line is extended by point reflection at its ends, so that the ends do not move.
        reach = int(4 * _SIGMA)
        longer = np.pad(points, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
        mean = gaussian_filter1d(longer, _SIGMA, axis=0)[reach : reach + n]
        mean[0], mean[-1] = points[0], points[-1]
    moved = mean - points
    distance = np.hypot(*moved.T)
    share = np.minimum(1, most / np.maximum(distance, most))
    return np.asarray(points + moved * share[:, None], np.float64)
