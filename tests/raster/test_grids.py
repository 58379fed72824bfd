"""Which rasters share a pixel grid: the grouping is that of one raster after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geothresh.geobox import GeoBox
from geothresh.raster.grids import SAME_PLACE, surfaces_of
from geothresh.windows import PixelWindow, RasterSize

# Shares of a pixel on both sides of the tolerance, never at it, where rounding decides.
SHARES = (0.0, 0.004, -0.008, 0.012, 0.018, -0.022, 0.5, 0.996)
LINEAR = (
    (1.0, 0.0, 0.0, -1.0),
    (1.00002, 0.0, 0.0, -1.0),
    (0.3, 0.0, 0.0, -0.3),
    (1.0, 0.0, 0.0, 1.0),
    (0.8, 0.6, 0.6, -0.8),
)


def one_after_another(boxes: Sequence[GeoBox]) -> list[tuple[list[int], list[PixelWindow]]]:
    """Members and windows of the grids: each raster joins the first grid that it lies on."""
    grids: list[tuple[GeoBox, list[int], list[PixelWindow]]] = []
    for index, box in enumerate(boxes):
        for anchor, members, windows in grids:
            window = window_on(anchor, box)
            if anchor.crs == box.crs and window is not None:
                members.append(index)
                windows.append(window)
                break
        else:
            grids.append((box, [index], [box.size.window()]))
    return [(members, windows) for _, members, windows in grids]


def window_on(anchor: GeoBox, box: GeoBox) -> PixelWindow | None:
    """Window of a raster on the grid of another; None if it lies off."""
    corners = box.corners()
    shifts = anchor.to_pixels(box.to_map(corners)) - corners
    first = np.rint(shifts[0])
    if not np.abs(shifts - first).max() <= SAME_PLACE:
        return None
    col, row = first.astype(np.int64).tolist()
    return box.size.window().shifted(row, col)


@st.composite
def boxes(draw: st.DrawFn) -> GeoBox:
    a, b, d, e = draw(st.sampled_from(LINEAR))
    col, row = (draw(st.integers(-3, 3)) * 256 + draw(st.sampled_from(SHARES)) for _ in range(2))
    height, width = (draw(st.sampled_from([1, 100, 512, 3000])) for _ in range(2))
    return GeoBox(
        size=RasterSize(height=height, width=width),
        transform=(a, b, 5e5 + a * col + b * row, d, e, 6e6 + d * col + e * row),
        crs=draw(st.sampled_from(["one", "other", None])),
    )


@given(st.lists(boxes(), max_size=25))
def test_grids_are_those_of_one_raster_after_another(drawn: list[GeoBox]) -> None:
    expected = one_after_another(drawn)
    found = surfaces_of(drawn)
    assert [list(surface.members) for surface in found] == [members for members, _ in expected]
    for surface, (_, windows) in zip(found, expected, strict=True):
        top, left = min(w.row for w in windows), min(w.col for w in windows)
        placed = [surface.placement.window(i) for i in range(len(windows))]
        assert placed == [window.shifted(-top, -left) for window in windows]


def test_a_raster_without_a_sound_transform_is_on_a_grid_of_its_own() -> None:
    size = RasterSize(height=8, width=8)
    far = GeoBox(size=size, transform=(float("nan"), 0.0, 0.0, 0.0, -1.0, 0.0))
    sound = GeoBox(size=size, transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    assert [s.members for s in surfaces_of([sound, far, far, sound])] == [(0, 3), (1,), (2,)]
