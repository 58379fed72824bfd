"""Outlines of a mask strip by strip: corner by corner those that GDAL has of the whole array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import shapes

from geothresh.raster import outlines as module
from geothresh.raster.outlines import outlines
from geothresh.raster.rings import Outlines

Polygon = list[list[tuple[int, int]]]

CHECKERBOARD = np.indices((9, 12)).sum(axis=0) % 2 == 1
SPIRAL = np.array(
    [
        [c == "#" for c in row]
        for row in (
            "#########", "........#", "#######.#", "#.....#.#", "#.###.#.#",
            "#.#...#.#", "#.#####.#", "#.......#", "#########",
        )
    ]
)  # fmt: skip
COMB = np.zeros((12, 9), np.bool_)
COMB[:, ::2] = COMB[-1] = True
# Holes that meet in corners, and a region that meets itself around a hole and from outside.
CHAIN = ~np.eye(9, dtype=np.bool_)
PINCHED = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]]) == 1
NESTED = np.zeros((13, 13), np.bool_)
for _edge in range(7):
    NESTED[_edge : 13 - _edge, _edge : 13 - _edge] = _edge % 2 == 0
DIAGONALS = np.eye(10, dtype=np.bool_) | np.eye(10, dtype=np.bool_)[::-1]


def by_gdal(mask: NDArray[np.bool_]) -> list[Polygon]:
    """All polygons of the whole array, in reading order."""
    found = shapes(mask.view(np.uint8), mask=mask, connectivity=4)
    return in_order(
        [[[(int(x), int(y)) for x, y in ring] for ring in one["coordinates"]] for one, _ in found]
    )


def in_order(polygons: list[Polygon]) -> list[Polygon]:
    return sorted(polygons, key=lambda polygon: polygon[0][0][::-1])


def as_lists(some: Outlines) -> Iterator[Polygon]:
    corners = [(int(x), int(y)) for x, y in some.corners]
    for a, b in zip(some.polygons[:-1], some.polygons[1:], strict=True):
        yield [corners[some.rings[r] : some.rings[r + 1]] for r in range(a, b)]


@contextmanager
def strips_of(rows: int) -> Iterator[None]:
    """So many rows are outlined at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", rows)
        patch.setattr(module, "_PIXELS", 0)
        yield


def drawn(mask: NDArray[np.bool_], cuts: list[int]) -> list[Outlines]:
    """Outlines of a mask that comes in strips of these heights, the last of which goes on."""
    ends = np.minimum(np.cumsum([*cuts, len(mask)]), len(mask))
    strips = [mask[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True) if b > a]
    return list(outlines(iter(strips), mask.shape[1]))


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    density=st.floats(0, 1),
    rows=st.integers(1, 12),
    cuts=st.lists(st.integers(1, 12), max_size=8),
)
def test_they_are_those_of_gdal(
    seed: int, height: int, width: int, density: float, rows: int, cuts: list[int]
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < density
    with strips_of(rows):
        found = drawn(mask, cuts)
    check(mask, found)


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
@pytest.mark.parametrize(
    "mask",
    [
        CHECKERBOARD, SPIRAL, SPIRAL.T, ~SPIRAL, COMB, COMB[::-1], CHAIN, CHAIN[::-1], PINCHED,
        NESTED, DIAGONALS, np.ones((7, 5), np.bool_), np.zeros((7, 5), np.bool_),
        np.ones((1, 1), np.bool_), np.ones((9, 1), np.bool_), np.ones((1, 9), np.bool_),
    ],
)  # fmt: skip
def test_awkward_masks(mask: NDArray[np.bool_], rows: int) -> None:
    with strips_of(rows):
        check(mask, drawn(mask, []))


def check(mask: NDArray[np.bool_], found: list[Outlines]) -> None:
    assert in_order([one for some in found for one in as_lists(some)]) == by_gdal(mask)
    padded = np.pad(mask, 1)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    meets = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    for some in found:
        x, y = some.corners.T
        np.testing.assert_array_equal(some.meeting, meets[y, x])
    assert sum(int(some.areas().sum()) for some in found) == np.count_nonzero(mask)


def test_columns_beyond_65536_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((6, 70_000)) < 0.5
    mask[:, 4000:65_000] = False
    with strips_of(2):
        check(mask, drawn(mask, []))


@given(seed=st.integers(0, 2**32 - 1), most=st.integers(1, 60))
def test_cut_they_are_the_same_polygons(seed: int, most: int) -> None:
    mask = np.random.default_rng(seed).random((20, 20)) < 0.55
    (whole,) = drawn(mask, [])
    parts = list(whole.cut(most))
    assert [one for part in parts for one in as_lists(part)] == list(as_lists(whole))
    assert all(len(part.corners) <= most or len(part.polygons) == 2 for part in parts)
    np.testing.assert_array_equal(np.concatenate([one.areas() for one in parts]), whole.areas())
    np.testing.assert_array_equal(np.concatenate([one.meeting for one in parts]), whole.meeting)


def test_a_region_is_given_when_its_last_row_has_been_read() -> None:
    mask = np.zeros((40, 8), np.bool_)
    mask[1:3, 1:3] = mask[10:30, 5] = True
    read = 0

    def rows() -> Iterator[NDArray[np.bool_]]:
        nonlocal read
        for row in mask:
            read += 1
            yield row[None]

    with strips_of(1):
        ends = [read for some in outlines(rows(), 8) for _ in range(len(some.polygons) - 1)]
    assert ends == [4, 31]
