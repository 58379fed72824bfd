"""Find which rasters share a pixel grid, and where each lies on it.

Only transforms and sizes are used; no pixel is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geothresh.geobox import GeoBox
from geothresh.types import Float64Array, Int64Array
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

SAME_PLACE = 0.01
"""Corners may lie off a grid by this share of a pixel and still count as on it, because programs
round coordinates."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Windows of rasters on one pixel grid, counted from the first pixel of their union."""

    rows: Int64Array
    """(n,) first row of each raster."""
    cols: Int64Array
    """(n,) first column of each."""
    heights: Int64Array
    """(n,) number of rows of each."""
    widths: Int64Array
    """(n,) number of columns of each."""

    @classmethod
    def of(cls, windows: Sequence[PixelWindow]) -> Placement:
        """Place at least one window; rows and columns may be negative."""
        numbers = np.array(
            [(window.row, window.col, window.height, window.width) for window in windows], np.int64
        ).T
        rows, cols, heights, widths = numbers
        return cls(rows - rows.min(), cols - cols.min(), heights, widths)

    @property
    def size(self) -> RasterSize:
        """Size of the union of all windows."""
        return RasterSize(
            height=int((self.rows + self.heights).max()),
            width=int((self.cols + self.widths).max()),
        )

    def window(self, index: int) -> PixelWindow:
        """The window of a raster."""
        return PixelWindow(
            row=int(self.rows[index]), col=int(self.cols[index]),
            height=int(self.heights[index]), width=int(self.widths[index]),
        )  # fmt: skip

    def ranges(self, indices: Sequence[int], window: PixelWindow) -> list[list[int]]:
        """[first row, row after the last, first column, column after the last] of some rasters.

        They are counted from the first pixel of `window`.
        """
        chosen = np.asarray(indices, np.int64)
        rows, cols = self.rows[chosen] - window.row, self.cols[chosen] - window.col
        ends = rows + self.heights[chosen], cols + self.widths[chosen]
        found: list[list[int]] = np.stack([rows, ends[0], cols, ends[1]], axis=1).tolist()
        return found

    @cached_property
    def _by_row(self) -> tuple[Int64Array, Int64Array, int]:
        order = np.argsort(self.rows, kind="stable")
        return order, self.rows[order], int(self.heights.max())

    def touching(self, window: PixelWindow) -> list[int]:
        """Indices of the rasters that share a pixel with a window, ascending.

        The rasters are sorted by row, so that few of a hundred thousand are compared.
        """
        order, sorted_rows, tallest = self._by_row
        first = np.searchsorted(sorted_rows, window.row - tallest, side="right")
        stop = np.searchsorted(sorted_rows, window.row_stop, side="left")
        near = order[first:stop]
        meets = (
            (self.rows[near] + self.heights[near] > window.row)
            & (self.cols[near] < window.col_stop)
            & (self.cols[near] + self.widths[near] > window.col)
        )
        found: list[int] = near[meets].tolist()
        return sorted(found)

    def in_order(self) -> list[int]:
        """Indices of the rasters, sorted by row and then by column."""
        order: list[int] = np.lexsort((self.cols, self.rows)).tolist()
        return order


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Rasters on one pixel grid."""

    box: GeoBox
    """Union of the rasters."""
    members: tuple[int, ...]
    """Indices of the rasters on this grid, ascending."""
    placement: Placement
    """Where each member lies in the union, in the same order."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Grid:
    """A pixel grid: its first raster, all that lie on it, and their windows."""

    anchor: GeoBox
    members: list[int]
    windows: list[PixelWindow]
    """Counted from the anchor's first pixel."""


def surfaces_of(boxes: Sequence[GeoBox]) -> list[Surface]:
    """Group rasters by pixel grid, in the order in which grids appear.

    Rasters on one grid have the same CRS, with the same WKT, and pixel grids that differ by whole
    pixels.

    Args:
        boxes: the rasters, each with a transform.
    """
    by_crs: dict[str | None, list[int]] = {}
    for index, box in enumerate(boxes):
        by_crs.setdefault(box.crs, []).append(index)
    grids = [grid for alike in by_crs.values() for grid in _grids_of(boxes, alike)]
    return [_surface(grid) for grid in sorted(grids, key=lambda grid: grid.members[0])]


def _grids_of(boxes: Sequence[GeoBox], alike: Sequence[int]) -> Iterator[_Grid]:
    """The grids of rasters of one CRS.

    The first raster that is left is an anchor; all others are compared with it at once.
    """
    own = np.stack([boxes[index].corners() for index in alike])
    places = np.stack([boxes[index].to_map(boxes[index].corners()) for index in alike])
    left = np.arange(len(alike))
    while len(left):
        anchor, left = alike[left[0]], left[1:]
        box = boxes[anchor]
        members, windows = [anchor], [box.size.window()]
        if len(left):
            on, shifts = _on_grid(box, own, places, left)
            for place, (col, row) in zip(left[on].tolist(), shifts.tolist(), strict=True):
                members.append(alike[place])
                windows.append(boxes[alike[place]].size.window().shifted(row, col))
            left = np.delete(left, on)
        yield _Grid(anchor=box, members=members, windows=windows)


def _on_grid(
    anchor: GeoBox, own: Float64Array, places: Float64Array, left: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Which rasters lie on the grid of an anchor, and the first column and row of each on it.

    Args:
        anchor: the first raster of the grid.
        own: (n, 4, 2) columns and rows of the corners of all rasters, on their own grids.
        places: (n, 4, 2) x and y of these corners.
        left: indices of the rasters to compare.

    Returns:
        Indices into `left`, ascending, and (m, 2) columns and rows.
    """
    start = anchor.to_pixels(places[left, 0])
    # Most rasters of other grids already begin off this one; twice the tolerance allows for
    # rounding.
    near = np.flatnonzero(np.abs(start - np.rint(start)).max(axis=1) <= 2 * SAME_PLACE)
    corners = left[near]
    shifts = anchor.to_pixels(places[corners].reshape(-1, 2)).reshape(-1, 4, 2) - own[corners]
    first = np.rint(shifts[:, 0])
    same = np.abs(shifts - first[:, None]).max(axis=(1, 2)) <= SAME_PLACE  # false for NaN
    return near[same], first[same].astype(np.int64)


def _surface(grid: _Grid) -> Surface:
    placement = Placement.of(grid.windows)
    row, col = min(w.row for w in grid.windows), min(w.col for w in grid.windows)
    box = GeoBox(
        size=placement.size,
        transform=grid.anchor.transform_at(col, row),
        crs=grid.anchor.crs,
        name=grid.anchor.name if len(grid.members) == 1 else f"{len(grid.members)} files",
    )
    return Surface(box=box, members=tuple(grid.members), placement=placement)


def pieces_of(size: RasterSize, side: int | None) -> list[tuple[str, PixelWindow]]:
    """Cut a raster into squares: (suffix of the file name, window); "" if there is only one."""
    whole = size.window()
    if side is None or max(size.height, size.width) <= side:
        return [("", whole)]
    grid = RegularGrid(size=size, part_height=side, part_width=side)
    digits = len(str(max(grid.rows, grid.columns) - 1))
    return [
        (f"_r{row:0{digits}}_c{column:0{digits}}", grid.window(row * grid.columns + column))
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]
