"""Find which rasters share a pixel grid, and where each lies on it.

Only transforms and sizes are used; no pixel is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geothresh.geobox import GeoBox
from geothresh.types import Int64Array
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


@dataclass(eq=False, slots=True, kw_only=True)
class _Grid:
    """A pixel grid that is being filled: its first raster, and the windows of all so far."""

    anchor: GeoBox
    members: list[int]
    windows: list[PixelWindow]

    def window_of(self, box: GeoBox) -> PixelWindow | None:
        """Window of a raster, counted from the anchor's first pixel; None if not on this grid."""
        corners = box.corners()
        shifts = self.anchor.to_pixels(box.to_map(corners)) - corners
        first = np.rint(shifts[0])
        if not np.abs(shifts - first).max() <= SAME_PLACE:  # also true of NaN
            return None
        col, row = first.astype(np.int64).tolist()
        return box.size.window().shifted(row, col)


def surfaces_of(boxes: Sequence[GeoBox]) -> list[Surface]:
    """Group rasters by pixel grid, in the order in which grids appear.

    Rasters on one grid have the same CRS, with the same WKT, and pixel grids that differ by whole
    pixels.

    Args:
        boxes: the rasters, each with a transform.
    """
    by_crs: dict[str | None, list[_Grid]] = {}
    grids: list[_Grid] = []
    for index, box in enumerate(boxes):
        for grid in by_crs.setdefault(box.crs, []):
            window = grid.window_of(box)
            if window is not None:
                break
        else:
            window = box.size.window()
            grid = _Grid(anchor=box, members=[], windows=[])
            by_crs[box.crs].append(grid)
            grids.append(grid)
        grid.members.append(index)
        grid.windows.append(window)
    return [_surface(grid) for grid in grids]


def _surface(grid: _Grid) -> Surface:
    placement = Placement.of(grid.windows)
    row, col = min(w.row for w in grid.windows), min(w.col for w in grid.windows)
    a, b, c, d, e, f = grid.anchor.transform
    box = GeoBox(
        size=placement.size,
        transform=(a, b, a * col + b * row + c, d, e, d * col + e * row + f),
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
