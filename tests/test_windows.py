"""Windows and regular grids: the same pixels as slices of an array, none left out, none twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.errors import UsageError
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

sides = st.integers(1, 300)
windows = st.builds(
    PixelWindow,
    row=st.integers(0, 20),
    col=st.integers(0, 20),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)


@given(windows, windows)
def test_intersection_is_the_common_pixels(first: PixelWindow, second: PixelWindow) -> None:
    counts = np.zeros((40, 40), int)
    counts[first.slices()] += 1
    counts[second.slices()] += 1
    common = first.intersection(second)
    assert common == second.intersection(first)
    expected = np.zeros((40, 40), bool)
    if common is not None:
        expected[common.slices()] = True
    np.testing.assert_array_equal(counts == 2, expected)


@given(windows, windows)
def test_within_cuts_the_same_pixels(outer: PixelWindow, other: PixelWindow) -> None:
    inner = outer.intersection(other)
    if inner is None:
        return
    raster = np.arange(1600).reshape(40, 40)
    np.testing.assert_array_equal(
        raster[outer.slices()][inner.within(outer)], raster[inner.slices()]
    )


def test_a_raster_without_pixels_is_refused() -> None:
    with pytest.raises(UsageError, match="0 x 7"):
        RasterSize(height=0, width=7)


@given(sides, sides, st.integers(1, 90), st.integers(1, 90))
def test_the_parts_of_a_regular_grid_cover_the_raster_once(
    height: int, width: int, part_height: int, part_width: int
) -> None:
    size = RasterSize(height=height, width=width)
    grid = RegularGrid(size=size, part_height=part_height, part_width=part_width)
    owner = np.full((height, width), -1)
    for index, window in enumerate(grid.windows()):
        assert (owner[window.slices()] == -1).all()
        owner[window.slices()] = index
    assert owner.min() == 0 and owner.max() == grid.count - 1
    around = PixelWindow(row=height // 2, col=width // 3, height=1, width=1).grown(20, size)
    assert list(grid.touching(around)) == np.unique(owner[around.slices()]).tolist()


@pytest.mark.parametrize(("height", "width"), [(0, 3), (3, 0), (-1, 3)])
def test_a_window_holds_a_pixel(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{height} x {width}.*at row 7, column 8"):
        PixelWindow(row=7, col=8, height=height, width=width)
