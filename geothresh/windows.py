"""Pixel geometry: sizes, windows, and regular grids that cut a raster into parts.

It uses integers only: everything is known before a pixel is read. Row numbers grow downwards and
column numbers to the right, whatever the georeference says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geothresh.errors import UsageError


def _require_sides(what: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise UsageError(
            f"{what} {height} x {width} (rows x columns): both sides must be at least 1"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSize:
    """Height and width of a raster in pixels; both are at least 1."""

    height: int
    """Rows."""
    width: int
    """Columns."""

    def __post_init__(self) -> None:
        _require_sides("raster size", self.height, self.width)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def window(self) -> PixelWindow:
        """The window that covers the whole raster."""
        return PixelWindow(row=0, col=0, height=self.height, width=self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelWindow:
    """A pixel rectangle, half-open: rows [row, row + height), columns [col, col + width).

    It holds at least one pixel, and may reach beyond the raster.
    """

    row: int
    """First row, from the raster's first row."""
    col: int
    """First column, from the raster's first column."""
    height: int
    """Rows."""
    width: int
    """Columns."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"window of {self.height} x {self.width} (rows x columns) at row {self.row}, "
                f"column {self.col}: both sides must be at least 1"
            )

    @classmethod
    def between(cls, row: int, row_stop: int, col: int, col_stop: int) -> PixelWindow:
        """The window of rows [row, row_stop) and columns [col, col_stop)."""
        return cls(row=row, col=col, height=row_stop - row, width=col_stop - col)

    @property
    def row_stop(self) -> int:
        """The row after the last one."""
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        """The column after the last one."""
        return self.col + self.width

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def size(self) -> RasterSize:
        """Height and width of the window."""
        return RasterSize(height=self.height, width=self.width)

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((row, row after the last), (column, column after the last)), as rasterio takes it."""
        return (self.row, self.row_stop), (self.col, self.col_stop)

    @property
    def text(self) -> str:
        """The window in a message, counted from 0, both ends included."""
        return f"rows {self.row}-{self.row_stop - 1}, columns {self.col}-{self.col_stop - 1}"

    def slices(self) -> tuple[slice, slice]:
        """Row and column slices that cut this window out of the whole raster's array."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def within(self, outer: PixelWindow) -> tuple[slice, slice]:
        """Row and column slices that cut this window out of the array that covers ``outer``."""
        return (
            slice(self.row - outer.row, self.row_stop - outer.row),
            slice(self.col - outer.col, self.col_stop - outer.col),
        )

    def intersection(self, other: PixelWindow) -> PixelWindow | None:
        """The pixels that two windows share, or None if they share none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        row_stop = min(self.row_stop, other.row_stop)
        col_stop = min(self.col_stop, other.col_stop)
        if row >= row_stop or col >= col_stop:
            return None
        return PixelWindow.between(row, row_stop, col, col_stop)

    def shifted(self, rows: int, cols: int) -> PixelWindow:
        """The window moved down by `rows` and to the right by `cols` pixels."""
        return PixelWindow(
            row=self.row + rows, col=self.col + cols, height=self.height, width=self.width
        )

    def seen_from(self, outer: PixelWindow) -> PixelWindow:
        """The same pixels, counted from the first pixel of ``outer``."""
        return self.shifted(-outer.row, -outer.col)

    def grown(self, by: int, size: RasterSize) -> PixelWindow:
        """The window with `by` more pixels on each side, clipped to the raster."""
        return PixelWindow.between(
            max(self.row - by, 0),
            min(self.row_stop + by, size.height),
            max(self.col - by, 0),
            min(self.col_stop + by, size.width),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularGrid:
    """A raster cut into parts of equal size, from its first pixel on: blocks, strips, cells.

    Parts are disjoint and cover the raster; those at its lower and right edge are smaller. They are
    numbered from 0, row by row.
    """

    size: RasterSize
    """The raster."""
    part_height: int
    """Rows of a part."""
    part_width: int
    """Columns of a part."""

    def __post_init__(self) -> None:
        _require_sides("parts of", self.part_height, self.part_width)

    @property
    def rows(self) -> int:
        """Number of parts from top to bottom."""
        return -(-self.size.height // self.part_height)

    @property
    def columns(self) -> int:
        """Number of parts from left to right."""
        return -(-self.size.width // self.part_width)

    @property
    def count(self) -> int:
        """Number of parts."""
        return self.rows * self.columns

    def window(self, index: int) -> PixelWindow:
        """The pixels of a part."""
        row, column = divmod(index, self.columns)
        top, left = row * self.part_height, column * self.part_width
        return PixelWindow(
            row=top,
            col=left,
            height=min(self.part_height, self.size.height - top),
            width=min(self.part_width, self.size.width - left),
        )

    def windows(self) -> Iterator[PixelWindow]:
        """The pixels of all parts, row by row."""
        return map(self.window, range(self.count))

    def span(self, window: PixelWindow) -> tuple[slice, slice]:
        """Rows and columns of the parts that share a pixel with a window inside the raster."""
        return (
            slice(window.row // self.part_height, -(-window.row_stop // self.part_height)),
            slice(window.col // self.part_width, -(-window.col_stop // self.part_width)),
        )

    def touching(self, window: PixelWindow) -> Iterator[int]:
        """The parts that share a pixel with a window inside the raster."""
        rows, columns = self.span(window)
        for row in range(rows.start, rows.stop):
            for column in range(columns.start, columns.stop):
                yield row * self.columns + column
