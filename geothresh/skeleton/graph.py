"""Build the network of a mask's centrelines: nodes, lines and their widths, without spurs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from geothresh.options import Progress
from geothresh.skeleton.thinning import BLOCK, HALO, ReadMask, thin_blocks
from geothresh.skeleton.tracing import MARGIN, Trace, chain, join, together, trace
from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array
from geothresh.windows import PixelWindow, RasterSize

#: Spurs are dead ends shorter than this many widths of the road where they begin. So they end less
#: than half a width away from its edge.
SPUR = 1.0
#: Column of a trace's samples that holds the width in pixels.
WIDTH = 0
#: Reads the confidences of a window, (h, w) float32 with NaN where there is no data.
ReadConfidence = Callable[[PixelWindow], Float32Array]
#: Column of a trace's samples that holds the confidence.
CONFIDENCE = WIDTH + 1
#: Pixels around a window in which the nearest background is searched, at first and at most.
_REACH, _FARTHEST = 64, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The lines of centrelines and the nodes between which they run."""

    width: int
    """Columns of the raster."""
    lines: tuple[Trace, ...]
    """Lines from node to node, and rings without a node."""
    nodes: Int64Array
    """(len(lines), 2) numbers of the nodes where each line starts and ends; -1 for a ring."""
    positions: Float64Array
    """(n, 2) row and column of each node in pixels from the raster's corner: the mean of the
    centres of its pixels, which are at halves."""
    knots: BoolArray
    """(n,) True = a junction of lines, False = an end of the skeleton."""
    bridges: BoolArray
    """(len(lines),) True = the line bridges a gap, see `geothresh.skeleton.bridging`."""

    @classmethod
    def of(cls, lines: Sequence[Trace], width: int) -> Network:
        """Build the network of joined lines (`geothresh.skeleton.tracing.join`).

        Linked junction pixels are one node; two lines that meet at a node alone are one line.
        """
        ends = np.array([[t.pixels[0], t.pixels[-1]] for t in lines], np.int64).reshape(-1, 2)
        knots = np.array([t.knots for t in lines], np.bool_).reshape(-1, 2)
        lengths = np.array([t.pixels.size for t in lines], np.int64)
        ring = (ends[:, 0] == ends[:, 1]) & ~knots[:, 0]
        within = knots.all(axis=1) & (lengths == 2)

        pixels, at = np.unique(ends[~ring], return_inverse=True)
        numbers = np.full(ends.shape, -1, np.int64)
        numbers[~ring] = at.reshape(-1, 2)
        size = (pixels.size, pixels.size)
        linked = coo_array((np.ones(within.sum(), np.bool_), numbers[within].T), shape=size)
        count, node = connected_components(linked, directed=False)
        node = node.astype(np.int64)
        numbers[~ring] = node[numbers[~ring]]

        members = np.bincount(node, minlength=count)
        centres = np.stack(np.divmod(pixels, width), axis=1) + 0.5
        positions = np.stack(
            [np.bincount(node, weights=axis, minlength=count) for axis in centres.T], axis=1
        )
        is_knot = np.zeros(count, np.bool_)
        is_knot[numbers[knots & ~ring[:, None]]] = True
        network = cls(
            width=width,
            lines=tuple(lines),
            nodes=numbers,
            positions=positions / members[:, None],
            knots=is_knot,
            bridges=np.zeros(len(lines), np.bool_),
        )
        return network.without(within)

    @property
    def degrees(self) -> Int64Array:
        """(n,) number of line ends at each node; a line that returns to its node counts twice."""
        ends = self.nodes[self.nodes >= 0]
        return np.bincount(ends, minlength=len(self.positions)).astype(np.int64)

    def without(self, dropped: BoolArray) -> Network:
        """Drop some lines; if only two lines then meet at a node, they are joined."""
        kept = np.flatnonzero(~dropped)
        lines = [self.lines[k] for k in kept]
        nodes = self.nodes[kept]
        placed = np.flatnonzero(nodes[:, 0] >= 0)
        degrees = np.bincount(nodes[placed].ravel(), minlength=len(self.positions))
        through = self.knots & (degrees == 2)
        joined = [lines[k] for k in np.flatnonzero(nodes[:, 0] < 0)]
        numbers = [(-1, -1)] * len(joined)
        bridges = [False] * len(joined)
        found = chain(nodes[placed], through)
        tails = nodes[placed].ravel()
        for begin, stop in zip(found.starts[:-1], found.starts[1:], strict=True):
            halves = found.halves[begin:stop]
            first, last = int(tails[halves[0]]), int(tails[halves[-1] ^ 1])
            line = together([lines[placed[h >> 1]].directed(bool(h & 1)) for h in halves])
            if through[first]:
                # A ring without junctions.
                line, first, last = line.closed(), -1, -1
            joined.append(line)
            numbers.append((first, last))
            # Bridges run between ends, not junctions, so that they are not joined to lines.
            bridges.append(bool(self.bridges[kept[placed[halves[0] >> 1]]]))
        return replace(
            self,
            lines=tuple(joined),
            nodes=np.array(numbers, np.int64).reshape(-1, 2),
            bridges=np.array(bridges, np.bool_),
        )

    def pruned(self, spur: float = SPUR) -> Network:
        """Remove spurs: short dead ends, which thinning makes from bumps in an outline.

        Where only spurs meet, the two longest are kept and make one line. When a spur is removed,
        two lines may be joined to a new spur. So this is repeated until there are no spurs.

        Args:
            spur: a dead end is a spur if it is shorter than this many widths of the road where it
                begins.
        """
        network = self
        while (spurs := network._spurs(spur)).any():
            network = network.without(spurs)
        return network

    def _spurs(self, spur: float) -> BoolArray:
        degrees = self.degrees
        chosen = np.zeros(len(self.lines), np.bool_)
        by_node: dict[int, list[tuple[float, int]]] = {}
        for k, (first, last) in enumerate(self.nodes.tolist()):
            if first < 0 or (degrees[first] == 1) == (degrees[last] == 1):
                continue
            # The spur begins at the node that it shares with other lines.
            begins, node = (-1, last) if degrees[first] == 1 else (0, first)
            length = self.lines[k].length(self.width)
            if length < spur * self.lines[k].samples[begins, WIDTH]:
                by_node.setdefault(node, []).append((length, k))
        for node, found in by_node.items():
            found.sort()
            most = len(found) if degrees[node] > len(found) else len(found) - 2
            for _, k in found[: max(most, 0)]:
                chosen[k] = True
        return chosen

    def points(self, k: int) -> Float64Array:
        """(m, 2) row and column, in pixels from the raster's corner, along line k.

        The centres of its pixels, and the nodes at its ends where these are not such centres.
        """
        line = self.lines[k]
        points = np.stack(np.divmod(line.pixels, self.width), axis=1) + 0.5
        first, last = self.nodes[k]
        if first >= 0 and (points[0] != self.positions[first]).any():
            points = np.concatenate([self.positions[[first]], points])
        if last >= 0 and (points[-1] != self.positions[last]).any():
            points = np.concatenate([points, self.positions[[last]]])
        return np.asarray(points, np.float64)


def centerline_network(
    read: ReadMask,
    size: RasterSize,
    *,
    confidence: ReadConfidence | None = None,
    side: int = BLOCK,
    halo: int = HALO,
    progress: Progress | None = None,
) -> Network:
    """Thin a mask, trace the skeleton, and join the lines; the result does not depend on blocks.

    Memory holds one block with its halo, the compressed skeleton, and the lines.

    Args:
        read: reads a window of the mask, True = foreground.
        size: size of the mask.
        confidence: reads a window of confidences, which are sampled along the lines.
        side, halo: size and margin of the blocks, see `thin_blocks`.
        progress: called with (blocks done, blocks in all), first in thinning, then in tracing.

    Returns:
        The network with spurs, which `Network.pruned` removes.
    """
    skeleton = thin_blocks(read, size, side=side, halo=halo, progress=progress)
    traces = []
    windows = list(skeleton.grid.windows())
    for done, core in enumerate(windows, start=1):
        outer = core.grown(MARGIN, size)
        pixels = skeleton.read(outer)
        if pixels.any():
            samples = [widths(pixels, outer, read, size)]
            if confidence is not None:
                samples.append(confidence(outer))
            stacked = np.stack(samples, axis=-1)
            traces += trace(pixels, stacked, outer=outer, core=core, width=size.width)
        if progress:
            progress(done, len(windows))
    return Network.of(join(traces), size.width)


def widths(
    skeleton: BoolArray, window: PixelWindow, read: ReadMask, size: RasterSize
) -> Float32Array:
    """Full width of the mask, in pixels, at each pixel of the skeleton.

    It is twice the distance to the nearest background pixel, from centre to centre, minus half a
    pixel. This is right to half a pixel for odd and even widths. There is no background outside of
    the raster. Distances above 1,024 pixels count as 1,024.

    Args:
        skeleton: (h, w), the pixels of `window`, True = skeleton.
        window: a window inside the raster.
        read: reads a window of the mask.
        size: size of the raster.

    Returns:
        (h, w) widths in pixels, 0 where there is no skeleton.
    """
    result = np.zeros(skeleton.shape, np.float32)
    points = np.argwhere(skeleton)
    if not points.size:
        return result
    points += (window.row, window.col)
    reach = _REACH
    while True:
        outer = window.grown(reach, size)
        distance = np.full(len(points), np.inf)
        background = _outline(read(outer))
        if background.size:
            tree = cKDTree(background + (outer.row, outer.col))
            distance = tree.query(points, distance_upper_bound=_FARTHEST)[0]
        # If no distance is greater than the reach, no background outside of the window is nearer.
        if distance.max() <= reach or outer.pixels == size.pixels or reach >= _FARTHEST:
            break
        reach *= 2
    wide = 2 * np.minimum(distance, _FARTHEST) - 0.5
    result[skeleton] = wide
    return result


def _outline(mask: BoolArray) -> NDArray[np.intp]:
    """(n, 2) rows and columns of the background that touches the mask, by a side or corner."""
    touched = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.bool_)
    for row in range(3):
        for col in range(3):
            touched[row : row + mask.shape[0], col : col + mask.shape[1]] |= mask
    return np.argwhere(touched[1:-1, 1:-1] & ~mask)
