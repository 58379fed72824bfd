"""Gaps between the ends of lines, closed where the confidence says that the road goes on.

A mask has thrown away what lies below its threshold. Where two lines end opposite to each other,
the way between them on which the confidence is highest is looked for, and taken if it nowhere
falls below a floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from geothresh.errors import UsageError
from geothresh.skeleton.network import WIDTH, Network
from geothresh.skeleton.thinning import grown
from geothresh.skeleton.tracing import Trace
from geothresh.windows import PixelWindow, RasterSize

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

#: Gives the confidences of a window, (h, w) float32 with NaN where there is no data.
ReadConfidence = Callable[[PixelWindow], Float32Array]

#: The confidence that a way over a gap never falls below.
FLOOR = 0.1
#: The longest gap that is looked over, in pixels: the square around it is held in memory.
LONGEST = 500
# A gap lies before both ends: at most 60 degrees off the direction in which a line ends, which is
# that of its last pixels.
_AHEAD = 0.5
_LAST = 12
# A way is at most this many times as long as the gap.
_DETOUR = 1.5
# Confidence 0 costs about 6 times as much as a half, and certainty is not free.
_LEAST, _STEP = 0.01, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """The free ends of lines."""

    nodes: NDArray[np.int64]
    """(n,)"""
    lines: NDArray[np.int64]
    """(n,)"""
    pixels: NDArray[np.int64]
    """(n, 2) row and column"""
    ahead: Float64Array
    """(n, 2) unit vector in which the line would go on"""


def bridged(
    network: Network,
    confidence: ReadConfidence,
    size: RasterSize,
    *,
    reach: float,
    floor: float = FLOOR,
) -> Network:
    """The network with a line over each gap that can be closed.

    Of several gaps at one end, the one with the best way (least cost) is closed.

    Args:
        network: pruned.
        confidence: gives windows of confidences.
        size: of the raster.
        reach: longest gap, in pixels, at most `LONGEST`.
        floor: least confidence along a way.

    Returns:
        The lines as they were, and after them the ways, which `Network.bridges` marks. Their ends
        are the nodes that were free; where they lead over, there is no width (NaN).

    Raises:
        UsageError: `reach` is too long.
    """
    if reach > LONGEST:
        raise UsageError(
            f"gaps of {reach:,.0f} pixels are too long to be bridged; {LONGEST} are possible"
        )
    ends = _free_ends(network)
    if len(ends.nodes) < 2:
        return network
    found: list[tuple[float, int, int, Trace]] = []
    for a, b in sorted(cKDTree(ends.pixels).query_pairs(reach)):
        if _opposite(network, ends, a, b):
            way = _way(ends.pixels[a], ends.pixels[b], confidence, size, floor)
            if way is not None:
                cost, pixels, values = way
                found.append((cost, a, b, _trace(pixels, values, network, size.width)))
    taken: set[int] = set()
    lines, nodes = [], []
    for _, a, b, line in sorted(found, key=lambda one: one[:3]):
        if not taken & {a, b}:
            taken |= {a, b}
            lines.append(line)
            nodes.append(ends.nodes[[a, b]])
    if not lines:
        return network
    return replace(
        network,
        lines=(*network.lines, *lines),
        nodes=np.concatenate([network.nodes, np.stack(nodes)]),
        bridges=np.concatenate([network.bridges, np.ones(len(lines), np.bool_)]),
    )


def _free_ends(network: Network) -> _Ends:
    degrees = np.append(network.degrees, 0)  # of a ring, too
    nodes, lines, pixels, ahead = [], [], [], []
    for k, side in np.argwhere(degrees[network.nodes] == 1).tolist():
        line = network.lines[k].directed(side == 0)
        last = np.stack(np.divmod(line.pixels[-_LAST:], network.width), axis=1)
        direction = last[-1] - last[0]
        nodes.append(network.nodes[k, side])
        lines.append(k)
        pixels.append(last[-1])
        ahead.append(direction / np.hypot(*direction))
    return _Ends(
        nodes=np.array(nodes, np.int64),
        lines=np.array(lines, np.int64),
        pixels=np.array(pixels, np.int64).reshape(-1, 2),
        ahead=np.array(ahead, np.float64).reshape(-1, 2),
    )


def _opposite(network: Network, ends: _Ends, a: int, b: int) -> bool:
    gap = (ends.pixels[b] - ends.pixels[a]).astype(np.float64)
    distance = np.hypot(*gap)
    if ends.lines[a] == ends.lines[b]:
        # A line that bends back on itself is a ring with a gap only if the gap is a small part.
        if network.lines[ends.lines[a]].length(network.width) < 3 * distance:
            return False
    gap /= distance
    return bool(gap @ ends.ahead[a] >= _AHEAD and -gap @ ends.ahead[b] >= _AHEAD)


def _way(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    confidence: ReadConfidence,
    size: RasterSize,
    floor: float,
) -> tuple[float, NDArray[np.int64], Float32Array] | None:
    """Cost, pixels (n, 2) and confidences of the best way, None where there is none."""
    distance = float(np.hypot(*(stop - start)))
    (top, left), (bottom, right) = np.minimum(start, stop), np.maximum(start, stop)
    box = PixelWindow(
        row=int(top), col=int(left), height=int(bottom - top) + 1, width=int(right - left) + 1
    )
    window = grown(box, int(distance / 2) + 1, size)
    values = confidence(window)
    corner = np.array([window.row, window.col])
    first, last = (int((place - corner) @ (window.width, 1)) for place in (start, stop))
    passable = values >= floor
    # Lines end on the mask, wherever its confidence came from.
    passable.ravel()[[first, last]] = True
    costs, before = dijkstra(
        _steps(values, passable), directed=False, indices=first, return_predecessors=True
    )
    if not np.isfinite(costs[last]):
        return None
    way = [last]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    pixels = np.stack(np.divmod(np.array(way[::-1]), window.width), axis=1)
    if np.hypot(*np.diff(pixels, axis=0).T).sum() > _DETOUR * distance:
        return None
    return float(costs[last]), pixels + corner, values[tuple(pixels.T)]


def _steps(values: Float32Array, passable: NDArray[np.bool_]) -> csr_array:
    """What it costs to go from each pixel to those around it."""
    cost = _STEP - np.log(np.maximum(np.nan_to_num(values), _LEAST)).astype(np.float64)
    number = np.arange(values.size).reshape(values.shape)
    parts = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        height, width = values.shape
        here = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        there = np.s_[down:, max(0, right) : width - max(0, -right)]
        open_ = passable[here] & passable[there]
        length = np.hypot(down, right)
        parts.append(
            (number[here][open_], number[there][open_], length * (cost[here] + cost[there])[open_])
        )
    one, other, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    return coo_array((weight / 2, (one, other)), shape=(values.size, values.size)).tocsr()


def _trace(pixels: NDArray[np.int64], values: Float32Array, network: Network, width: int) -> Trace:
    samples = np.full((len(pixels), network.lines[0].samples.shape[1]), np.nan, np.float32)
    samples[:, WIDTH + 1 :] = values[:, None]
    return Trace(
        pixels=pixels @ np.array([width, 1]),
        samples=samples,
        knots=(False, False),
        whole=(True, True),
    )
