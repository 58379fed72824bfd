"""Thinning, tracing and the network: the same by blocks as at once, and as naive twins have it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.morphology import thin as thin_of_skimage

from geothresh.skeleton.graph import Network, centerline_network, widths
from geothresh.skeleton.ground import UNIT, shapes_of, widenings
from geothresh.skeleton.thinning import BlockedMask, thin, thin_blocks
from geothresh.skeleton.tracing import MARGIN, Trace, chain, join, smoothed, trace
from geothresh.types import BoolArray, Int64Array
from geothresh.windows import PixelWindow, RasterSize


@st.composite
def masks(draw: st.DrawFn, most: int = 45) -> BoolArray:
    """From noise to broad shapes, of any size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    field = ndimage.gaussian_filter(rng.normal(size=shape), draw(st.sampled_from([0, 0.7, 1.5, 3])))
    mask: BoolArray = field > np.quantile(field, draw(st.sampled_from([0.0, 0.3, 0.5, 0.8])))
    return mask


def reader(mask: BoolArray):
    """A window of an array, never one that reaches beyond it."""

    def read(window: PixelWindow) -> BoolArray:
        assert 0 <= window.row < window.row_stop <= mask.shape[0]
        assert 0 <= window.col < window.col_stop <= mask.shape[1]
        return mask[window.slices()]

    return read


def size_of(mask: BoolArray) -> RasterSize:
    return RasterSize(height=mask.shape[0], width=mask.shape[1])


@given(masks())
def test_thinning_is_that_of_scikit_image(mask: BoolArray) -> None:
    thinned, left = thin(mask)
    np.testing.assert_array_equal(thinned, thin_of_skimage(mask))
    assert not left.any()
    for iterations in (1, 2):
        some, taken = thin(mask, iterations=iterations)
        np.testing.assert_array_equal(some, thin_of_skimage(mask, max_num_iter=iterations))
        before, _ = thin(mask, iterations=iterations - 1)
        np.testing.assert_array_equal(taken & before, before & ~some)


@given(masks(), st.integers(2, 9), st.integers(0, 9))
def test_thinning_by_blocks_is_thinning_at_once(mask: BoolArray, halo: int, more: int) -> None:
    size = size_of(mask)
    blocks = thin_blocks(reader(mask), size, side=halo + more, halo=halo)
    np.testing.assert_array_equal(blocks.read(size.window()), thin(mask)[0])


def test_what_is_wider_than_the_halo_takes_passes_where_it_is(monkeypatch) -> None:
    mask = np.zeros((200, 300), np.bool_)
    mask[20:180, 30:120] = True  # 90 wide
    mask[100, 120:290] = True
    told: list[tuple[int, int]] = []
    blocks = thin_blocks(
        reader(mask), size_of(mask), side=32, halo=16, progress=lambda *done: told.append(done)
    )
    np.testing.assert_array_equal(blocks.read(size_of(mask).window()), thin(mask)[0])
    passes = [total for done, total in told if done == total]
    assert len(passes) > 3 and passes[0] == 70 and passes[-1] < 40


@given(masks(), st.integers(1, 11))
def test_blocks_give_back_what_was_put(mask: BoolArray, side: int) -> None:
    size = size_of(mask)
    kept = BlockedMask.empty(size, side)
    for block, window in enumerate(kept.grid.windows()):
        kept.put(block, mask[window.slices()])
    np.testing.assert_array_equal(kept.read(size.window()), mask)
    window = PixelWindow(row=0, col=0, height=1, width=1).grown(side, size)
    np.testing.assert_array_equal(kept.read(window), mask[window.slices()])


def links_of(skeleton: BoolArray) -> set[tuple[int, int]]:
    """Naive: every pair of pixels that are linked."""
    height, width = skeleton.shape
    found = set()
    for row, col in np.argwhere(skeleton).tolist():
        for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
            r, c = row + down, col + right
            if not (0 <= r < height and 0 <= c < width and skeleton[r, c]):
                continue
            beside_a_corner = down and right and (skeleton[row, c] or skeleton[r, col])
            if not beside_a_corner:
                found.add((row * width + col, r * width + c))
    return found


def lines_of(skeleton: BoolArray, side: int) -> list[Trace]:
    size = size_of(skeleton)
    places = np.arange(size.pixels, dtype=np.float32).reshape(*skeleton.shape, 1)
    found = []
    for core in BlockedMask.empty(size, side).grid.windows():
        outer = core.grown(MARGIN, size)
        pixels, samples = skeleton[outer.slices()], places[outer.slices()]
        found += trace(pixels, samples, outer=outer, core=core, width=size.width)
    return join(found)


@given(masks(), st.booleans(), st.integers(2, 20))
def test_every_link_is_in_one_line_whatever_the_blocks(
    mask: BoolArray, thinned: bool, side: int
) -> None:
    skeleton = thin(mask)[0] if thinned else mask
    lines = lines_of(skeleton, 1000)
    steps = [tuple(sorted(step)) for line in lines for step in pairwise(line.pixels.tolist())]
    assert len(steps) == len(set(steps)) and set(steps) == links_of(skeleton)
    cut = lines_of(skeleton, side)
    assert len(cut) == len(lines)
    for one, other in zip(cut, lines, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.samples[:, 0], one.pixels)
        assert one.knots == other.knots


@given(masks(), st.integers(6, 20))
def test_the_network_has_the_parts_and_loops_of_the_skeleton(mask: BoolArray, side: int) -> None:
    """By Euler's formula: edges - vertices + parts = loops, but those inside of knots."""
    network = centerline_network(reader(mask), size_of(mask), side=side, halo=6)
    skeleton = thin(mask)[0]
    links = np.array(sorted(links_of(skeleton)), np.int64).reshape(-1, 2)
    pixels, ends = np.unique(links, return_inverse=True)
    ends = ends.reshape(-1, 2)
    square = ndimage.minimum_filter(np.pad(skeleton, 1), 2)
    square = ndimage.maximum_filter(square, 2, origin=-1)[1:-1, 1:-1] & skeleton
    knots = (np.bincount(ends.ravel(), minlength=pixels.size) > 2) | square.ravel()[pixels]
    inside = ends[knots[ends].all(axis=1)]

    def parts(edges: Int64Array, n: int) -> int:
        table = coo_array((np.ones(len(edges)), edges.T), shape=(n, n))
        return int(connected_components(table, directed=False)[0])

    all_loops = len(ends) - pixels.size + parts(ends, pixels.size)
    in_knots = len(inside) - pixels.size + parts(inside, pixels.size)

    placed = network.nodes[network.nodes[:, 0] >= 0]
    rings = len(network.lines) - len(placed)
    n = len(network.positions)
    alone = int((network.degrees == 0).sum())
    separate = parts(placed, n) - alone
    assert len(placed) - (n - alone) + separate + rings == all_loops - in_knots
    # A part that is nothing but a knot has no line.
    assert separate + rings <= parts(ends, pixels.size)
    assert not ((network.degrees == 2) & network.knots).any()


@given(masks(30), st.integers(6, 15))
def test_the_pruned_network_does_not_depend_on_the_blocks(mask: BoolArray, side: int) -> None:
    networks = [
        centerline_network(reader(mask), size_of(mask), side=s, halo=6).pruned() for s in (99, side)
    ]
    one, other = ([line.pixels.tolist() for line in n.lines] for n in networks)
    assert one == other
    np.testing.assert_array_equal(networks[0].nodes, networks[1].nodes)


def test_pixel_numbers_beyond_32_bits() -> None:
    """As in a raster of 100,000 x 100,000: one road across the last block."""
    size = RasterSize(height=100_000, width=100_000)
    core = PixelWindow(row=98_304, col=98_304, height=1_696, width=1_696)
    outer = core.grown(MARGIN, size)
    skeleton = np.zeros((outer.height, outer.width), np.bool_)
    skeleton[500, 10:1_600] = True
    samples = np.ones((*skeleton.shape, 1), np.float32)
    (line,) = join(trace(skeleton, samples, outer=outer, core=core, width=size.width))
    assert line.pixels[0] == (outer.row + 500) * 100_000 + outer.col + 10
    assert line.length(size.width) == 1_589
    network = Network.of([line], size.width)
    assert network.points(0)[-1].tolist() == [outer.row + 500.5, outer.col + 1_599.5]


def test_more_nodes_than_sixteen_bits_hold() -> None:
    """A comb: 33,000 teeth make 33,000 meetings and as many ends."""
    n = 33_000
    mask = np.zeros((4, 2 * n + 1), np.bool_)
    mask[0] = True
    mask[:, 1::2] = True
    network = centerline_network(reader(mask), size_of(mask), side=256, halo=8)
    degrees = network.degrees[network.degrees > 0]
    assert len(degrees) > 65_535
    assert (degrees == 1).sum() >= n and np.isin(degrees, [1, 3]).all()


def plus(arm: int, width: int) -> BoolArray:
    mask = np.zeros((2 * arm + 1, 2 * arm + 1), np.bool_)
    half = width // 2
    mask[arm - half : arm + half + 1, 2:-2] = True
    mask[2:-2, arm - half : arm + half + 1] = True
    return mask


def test_a_crossing_is_one_node_of_four_lines() -> None:
    network = centerline_network(reader(plus(40, 7)), size_of(plus(40, 7))).pruned()
    assert sorted(network.degrees.tolist()) == [1, 1, 1, 1, 4]
    (meeting,) = np.flatnonzero(network.degrees == 4)
    np.testing.assert_allclose(network.positions[meeting], 40.5, atol=1)


def test_spurs_go_and_roads_stay() -> None:
    mask = np.zeros((40, 120), np.bool_)
    mask[16:23, 5:115] = True
    mask[12:16, 58:61] = True  # a bump of 4 pixels on a road 7 wide
    mask[2:16, 80:84] = True  # a side road of 14
    network = centerline_network(reader(mask), size_of(mask))
    pruned = network.pruned()
    assert len(pruned.lines) == 3 and sorted(pruned.degrees[pruned.degrees > 0]) == [1, 1, 1, 3]
    assert len(network.pruned(0).lines) == len(network.lines) > 3
    assert len(pruned.pruned(5).lines) == 1  # the side road is shorter than five widths


def test_a_star_of_spurs_keeps_its_longest_line() -> None:
    mask = np.zeros((30, 30), np.bool_)
    mask[10:20, 10:20] = True
    mask[15, 3:27] = True
    mask[3:27, 15] = True
    pruned = centerline_network(reader(mask), size_of(mask)).pruned(10)
    (line,) = pruned.lines
    assert line.length(30) >= 20


def test_rings_close_and_have_no_node() -> None:
    row, col = np.indices((60, 60))
    radius = np.hypot(row - 30, col - 30)
    mask = (radius > 17) & (radius < 23)
    for side in (1000, 16):
        network = centerline_network(reader(mask), size_of(mask), side=side, halo=8)
        (line,) = network.lines
        assert line.pixels[0] == line.pixels[-1] == line.pixels.min()
        assert network.nodes.tolist() == [[-1, -1]]
        assert len(network.pruned(100).lines) == 1


def test_a_loop_whose_only_branch_is_taken_off_becomes_a_ring() -> None:
    row, col = np.indices((60, 70))
    radius = np.hypot(row - 30, col - 30)
    mask = (radius > 17) & (radius < 23)
    mask[29:32, 50:62] = True
    network = centerline_network(reader(mask), size_of(mask))
    assert len(network.lines) == 2
    (ring,) = network.pruned(4).lines
    assert ring.pixels[0] == ring.pixels[-1]
    assert network.pruned(4).nodes.tolist() == [[-1, -1]]


@given(masks())
def test_widths_are_distances_to_the_background(mask: BoolArray) -> None:
    size = size_of(mask)
    skeleton = thin(mask)[0]
    found = widths(skeleton, size.window(), reader(mask), size)
    if mask.all():
        assert (found[skeleton] == 2 * 1024 - 0.5).all()
    else:
        expected = 2 * ndimage.distance_transform_edt(mask) - 0.5
        np.testing.assert_allclose(found[skeleton], expected[skeleton], rtol=1e-6)
    assert (found[~skeleton] == 0).all()


def test_widths_look_beyond_their_window() -> None:
    mask = np.ones((400, 500), np.bool_)
    mask[0] = False
    skeleton = np.zeros((4, 4), np.bool_)
    skeleton[1, 1] = True
    window = PixelWindow(row=300, col=200, height=4, width=4)
    assert widths(skeleton, window, reader(mask), size_of(mask))[1, 1] == 2 * 301 - 0.5


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_shapes_keep_lengths_and_angles(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    steps = scale * rng.normal(size=(5, 2, 2))
    side = np.sqrt(abs(np.linalg.det(steps)))
    shapes = shapes_of(steps)
    np.testing.assert_allclose(shapes, shapes.swapaxes(1, 2), rtol=1e-9)
    one, other = rng.normal(size=(2, 5, 1, 2))
    expected = ((one @ steps) * (other @ steps)).sum(axis=2)[:, 0] / side**2
    found = ((one @ shapes) * (other @ shapes)).sum(axis=2)[:, 0]
    size = np.linalg.norm(shapes, axis=(1, 2)) ** 2
    np.testing.assert_allclose(found / size, expected / size, atol=1e-6)
    turned = np.array([[np.cos(seed), np.sin(seed)], [np.sin(seed), -np.cos(seed)]]) * scale
    assert (shapes_of(turned[None]) == UNIT).all()


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, -2)])
def test_what_is_shorter_on_the_ground_is_wider(step: tuple[int, int]) -> None:
    points = np.arange(40)[:, None] * step
    shape = shapes_of(np.array([[[0.0, -2.0], [1.0, 0.0]]]))[0]
    expected = np.hypot(*step) / (np.hypot(2 * step[0], step[1]) / np.sqrt(2))
    np.testing.assert_allclose(widenings(points, shape), expected)
    assert (widenings(points, UNIT) == 1).all()
    # Round and back to where it began.
    assert widenings(np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]), shape).tolist() == [1] * 5


@pytest.mark.parametrize("n", [1, 2, 3, 5, 80])
def test_smoothing_keeps_ends_straights_and_distance(n: int) -> None:
    steps = np.arange(n, dtype=float)
    straight = np.stack([steps, 2 * steps], axis=1)
    np.testing.assert_allclose(smoothed(straight), straight, atol=1e-9)
    stairs = np.stack([np.floor(steps / 2), np.ceil(steps / 2)], axis=1)
    moved = smoothed(stairs)
    np.testing.assert_array_equal(moved[[0, -1]], stairs[[0, -1]])
    assert np.hypot(*(moved - stairs).T).max(initial=0) <= 1 + 1e-9
    corner = np.concatenate([np.stack([steps, 0 * steps], 1), np.stack([0 * steps + n, steps], 1)])
    assert np.hypot(*(smoothed(corner) - corner).T).max() <= 1 + 1e-9


def test_a_ring_stays_where_others_meet_it() -> None:
    angle = np.linspace(0, 2 * np.pi, 60)
    loop = np.round(10 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    loop[-1] = loop[0]
    free, fixed = smoothed(loop), smoothed(loop, fixed=True)
    assert (free[0] != loop[0]).any() and (free[0] == free[-1]).all()
    np.testing.assert_array_equal(fixed[[0, -1]], loop[[0, -1]])
    np.testing.assert_array_equal(fixed[0], fixed[-1])


def test_a_staircase_comes_out_as_long_as_it_is() -> None:
    steps = np.arange(400)
    stairs = np.stack([steps // 2, (steps + 1) // 2], axis=1).astype(float)
    length = np.hypot(*np.diff(smoothed(stairs), axis=0).T).sum()
    assert length == pytest.approx(np.hypot(199, 200), rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_chains_hold_every_edge_once(pairs: list[tuple[int, int]]) -> None:
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    meeting = np.bincount(ends.ravel(), minlength=10)
    through = meeting == 2
    found = chain(ends, through)
    assert sorted(found.halves >> 1) == list(range(len(ends)))
    tails, heads = ends.ravel(), ends[:, ::-1].ravel()
    for begin, stop in pairwise(found.starts.tolist()):
        halves = found.halves[begin:stop]
        for one, other in pairwise(halves):
            assert heads[one] == tails[other] and through[heads[one]]
        first, last = tails[halves[0]], heads[halves[-1]]
        if through[first]:
            assert first == last == tails[halves].min()
        else:
            assert not through[last]
