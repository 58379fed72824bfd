"""Bridge gaps between the ends of lines where the confidence shows that the road continues.

A mask has gaps where the confidence is below its threshold. Between two line ends that face each
other, the path of highest confidence is searched (Dijkstra). The gap is bridged along this path if
the confidence is nowhere below a floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from geothresh.errors import UsageError
from geothresh.skeleton.graph import WIDTH, Network, ReadConfidence
from geothresh.skeleton.ground import SQUARE, Ground, farness
from geothresh.skeleton.tracing import Trace
from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array
from geothresh.windows import PixelWindow, RasterSize

#: Least confidence along a path over a gap.
FLOOR = 0.1
#: Longest gap, in sides of a square of a pixel's area; a window of about that side is in memory.
LONGEST = 500
# Least cosine of the angle between a gap and the direction in which a line ends: at most 60
# degrees.
_AHEAD = 0.5
# Last pixels of a line that determine this direction, for square pixels.
_LAST = 12
# A path is at most this many times as long as the gap.
_DETOUR = 1.5
# Cost per step: confidence 0 costs about 6 times as much as 0.5, and confidence 1 is not free.
_LEAST, _STEP = 0.01, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """The free ends of lines."""

    nodes: Int64Array
    """(n,) index of the node of each end."""
    lines: Int64Array
    """(n,) index of the line of each end."""
    pixels: Int64Array
    """(n, 2) row and column of the pixel at each end."""
    ahead: Int64Array
    """(n, 2) step in rows and columns in whose direction the line would continue."""


def bridged(
    network: Network,
    confidence: ReadConfidence,
    size: RasterSize,
    *,
    reach: float,
    floor: float = FLOOR,
    ground: Ground = SQUARE,
) -> Network:
    """Add a line across each gap that can be bridged.

    If an end could be joined to several others, the path of least cost is taken.

    Args:
        network: the pruned network.
        confidence: reads a window of confidences, see `ReadConfidence`.
        size: size of the raster.
        reach: longest gap, in the unit of `Ground.sides`; at most `LONGEST` such sides.
        floor: least confidence along a path, in [0, 1].
        ground: shape and size of the pixels; distances and directions are measured on it.

    Returns:
        The network with the bridges after all other lines; `Network.bridges` marks them. Bridges
        run between nodes that were free ends, and have no width (NaN).

    Raises:
        UsageError: `reach` is too long.
    """
    ends = _free_ends(network, ground)
    _require_short(ends, ground, size, reach)
    if len(ends.nodes) < 2:
        return network
    paths: list[tuple[float, int, int, Trace]] = []
    for a, b, shape in _gaps(ends, ground, reach):
        if _opposite(network, ends, a, b, shape):
            path = _cheapest_path(ends.pixels[a], ends.pixels[b], confidence, size, floor, shape)
            if path is not None:
                cost, pixels, values = path
                paths.append((cost, a, b, _trace(pixels, values, network, size.width)))
    taken: set[int] = set()
    lines, nodes = [], []
    for _, a, b, line in sorted(paths, key=lambda path: path[:3]):
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


def _free_ends(network: Network, ground: Ground) -> _Ends:
    degrees = np.append(network.degrees, 0)  # the last one is for rings, whose node is -1
    found = np.argwhere(degrees[network.nodes] == 1)
    free = [network.lines[k].directed(side == 0).pixels for k, side in found.tolist()]
    pixels = _pixels([line[-1] for line in free], network.width)
    # More pixels of a line are used if pixels are oblong, as a skeleton then ends in a corner of
    # the road.
    last = np.rint(_LAST * _longest(ground.shapes(_middles(pixels))) ** 2).astype(np.int64)
    before = [line[-n:][0] for line, n in zip(free, last.tolist(), strict=True)]
    return _Ends(
        nodes=network.nodes[*found.T],
        lines=found[:, 0],
        pixels=pixels,
        ahead=pixels - _pixels(before, network.width),
    )


def _pixels(numbers: list[np.int64], width: int) -> Int64Array:
    return np.stack(np.divmod(np.array(numbers, np.int64), width), axis=1)


def _middles(pixels: Int64Array) -> Float64Array:
    """The positions of pixels, see `Ground`."""
    return np.asarray(pixels + 0.5, np.float64)


def _longest(shapes: Float64Array) -> Float64Array:
    """(n,) largest factor by which pixels are stretched on the ground; the least is its inverse."""
    return np.asarray(np.linalg.norm(shapes, 2, axis=(1, 2)), np.float64)


def _require_short(ends: _Ends, ground: Ground, size: RasterSize, reach: float) -> None:
    middle = np.array([[size.height / 2, size.width / 2]])
    places = np.concatenate([middle, _middles(ends.pixels)])
    longest = reach / ground.sides(places).min()
    if longest > LONGEST:
        raise UsageError(
            f"gaps of {longest:,.0f} pixels are too long to be bridged; {LONGEST} are possible"
        )


def _gaps(ends: _Ends, ground: Ground, reach: float) -> Iterator[tuple[int, int, Float64Array]]:
    """Yield pairs of ends within reach on the ground, and the shape of the pixels between them."""
    places = _middles(ends.pixels)
    longest = reach / ground.sides(places) * _longest(ground.shapes(places))
    # A margin is added, as pixels between two ends may be smaller than at both ends.
    pairs = cKDTree(ends.pixels).query_pairs(1.01 * longest.max(), output_type="ndarray")
    middles = np.asarray(places[pairs].mean(axis=1), np.float64)
    shapes = ground.shapes(middles)
    steps = np.diff(ends.pixels[pairs], axis=1) @ shapes
    # A tolerance is added, so that a gap exactly as long as the reach is included.
    most = (reach / ground.sides(middles)) ** 2 * (1 + 1e-9)
    near = np.flatnonzero((steps**2).sum(axis=(1, 2)) <= most)
    for k in near.tolist():
        yield *pairs[k].tolist(), shapes[k]


def _opposite(network: Network, ends: _Ends, a: int, b: int, shape: Float64Array) -> bool:
    gap = (ends.pixels[b] - ends.pixels[a]) @ shape
    distance = np.hypot(*gap)
    line = network.lines[ends.lines[a]]
    # The two ends of one line make a ring only if the gap is a small part of it.
    if ends.lines[a] == ends.lines[b] and line.length(network.width, shape) < 3 * distance:
        return False
    gap /= distance
    ahead = ends.ahead[[a, b]] @ shape
    ahead /= np.hypot(*ahead.T)[:, None]
    return bool(gap @ ahead[0] >= _AHEAD and -gap @ ahead[1] >= _AHEAD)


def _cheapest_path(
    start: Int64Array,
    stop: Int64Array,
    confidence: ReadConfidence,
    size: RasterSize,
    floor: float,
    shape: Float64Array,
) -> tuple[float, Int64Array, Float32Array] | None:
    """Cost, pixels (n, 2) and confidences of the path of least cost; None if there is no path."""
    distance = float(np.hypot(*((stop - start) @ shape)))
    around = (distance / 2 * farness(shape)).astype(np.int64) + 1
    top, left = np.maximum(np.minimum(start, stop) - around, 0).tolist()
    after = np.maximum(start, stop) + around + 1
    bottom, right = np.minimum(after, (size.height, size.width)).tolist()
    window = PixelWindow.between(top, bottom, left, right)
    values = confidence(window)
    corner = np.array([window.row, window.col])
    first, last = (int((place - corner) @ (window.width, 1)) for place in (start, stop))
    passable = values >= floor
    # Ends of lines are on the mask, and so passable at any confidence.
    passable.ravel()[[first, last]] = True
    costs, before = dijkstra(
        _steps(values, passable, shape), directed=False, indices=first, return_predecessors=True
    )
    if not np.isfinite(costs[last]):
        return None
    path = [last]
    while path[-1] != first:
        path.append(int(before[path[-1]]))
    pixels = np.stack(np.divmod(np.array(path[::-1]), window.width), axis=1)
    if np.hypot(*(np.diff(pixels, axis=0) @ shape).T).sum() > _DETOUR * distance:
        return None
    return float(costs[last]), pixels + corner, values[tuple(pixels.T)]


def _steps(values: Float32Array, passable: BoolArray, shape: Float64Array) -> csr_array:
    """The graph of the costs of steps between neighbouring pixels."""
    cost = _STEP - np.log(np.maximum(np.nan_to_num(values), _LEAST)).astype(np.float64)
    # The dijkstra of SciPy 1.14 accepts int32 indices only.
    number = np.arange(values.size, dtype=np.int32).reshape(values.shape)
    parts = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        height, width = values.shape
        from_ = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        to = np.s_[down:, max(0, right) : width - max(0, -right)]
        open_ = passable[from_] & passable[to]
        length = np.hypot(*(np.array([down, right]) @ shape))
        parts.append(
            (number[from_][open_], number[to][open_], length * (cost[from_] + cost[to])[open_])
        )
    starts, stops, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    return coo_array((weight / 2, (starts, stops)), shape=(values.size, values.size)).tocsr()


def _trace(pixels: Int64Array, values: Float32Array, network: Network, width: int) -> Trace:
    samples = np.full((len(pixels), network.lines[0].samples.shape[1]), np.nan, np.float32)
    samples[:, WIDTH + 1 :] = values[:, None]
    return Trace(
        pixels=pixels @ np.array([width, 1]),
        samples=samples,
        knots=(False, False),
        whole=(True, True),
    )
