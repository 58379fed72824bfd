"""Tiling geometry: the grid of tiles over a raster, and the plan of chunks and groups of tiles.

It uses integers only, like `geothresh.windows`: everything is known before a pixel is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from geothresh.errors import UsageError
from geothresh.windows import PixelWindow, RasterSize, RegularGrid


def _tiles_along(extent: int, tile: int, stride: int) -> int:
    return 1 if extent <= tile else -(-(extent - tile) // stride) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Square tiles at multiples of the stride, from the raster's first pixel on.

    The last tile of a row or column may reach beyond the raster; the reader pads it. The stride
    is a multiple of the patch, so that all tiles share one patch grid.
    """

    size: RasterSize
    """The raster."""
    tile: int = 512
    """Side of a tile in pixels; a multiple of ``patch``."""
    overlap: int = 128
    """Pixels that neighbouring tiles share; ``tile - overlap`` is a multiple of ``patch``."""
    patch: int = 64
    """Side of the network's patch in pixels."""

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise UsageError(f"patch {self.patch}: must be at least 1 pixel")
        if self.tile < 1 or self.tile % self.patch:
            raise UsageError(
                f"tile size {self.tile}: must be a positive multiple of the patch, {self.patch}"
            )
        if not 0 <= self.overlap < self.tile or self.overlap % self.patch:
            raise UsageError(
                f"overlap {self.overlap}: must be a multiple of the patch, {self.patch}, "
                f"from 0 to {self.tile - self.patch}"
            )

    @property
    def stride(self) -> int:
        """Pixels from one tile's origin to the next one's."""
        return self.tile - self.overlap

    @property
    def n_rows(self) -> int:
        """Number of tile rows."""
        return _tiles_along(self.size.height, self.tile, self.stride)

    @property
    def n_cols(self) -> int:
        """Number of tile columns."""
        return _tiles_along(self.size.width, self.tile, self.stride)

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return self.n_rows * self.n_cols

    def window(self, row: int, col: int) -> PixelWindow:
        """The tile at tile row ``row`` and tile column ``col``; it may reach beyond the raster."""
        return PixelWindow(
            row=row * self.stride, col=col * self.stride, height=self.tile, width=self.tile
        )

    def over(self, window: PixelWindow) -> tuple[range, range]:
        """Tile rows and tile columns of the tiles that hold a pixel of a window."""
        return (
            _tiles_over(window.row, window.row_stop, self.n_rows, self),
            _tiles_over(window.col, window.col_stop, self.n_cols, self),
        )

    def covering(self, window: PixelWindow) -> PixelWindow:
        """The pixels of all tiles that hold a pixel of a window; it may reach beyond the raster."""
        rows, cols = self.over(window)
        return PixelWindow.between(
            rows.start * self.stride,
            (rows.stop - 1) * self.stride + self.tile,
            cols.start * self.stride,
            (cols.stop - 1) * self.stride + self.tile,
        )

    def tiles(self) -> Iterator[PixelWindow]:
        """All tiles, row by row."""
        for row in range(self.n_rows):
            for col in range(self.n_cols):
                yield self.window(row, col)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of the raster that is blended and written in one go."""

    index: int
    """Number in raster order, from 0: strip by strip, from left to right within a strip."""
    window: PixelWindow
    """Its pixels; chunks are disjoint and cover the raster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGroup:
    """Neighbouring tiles of one tile row that are read and refined in one go."""

    row: int
    """Tile row."""
    col_start: int
    """First tile column."""
    col_stop: int
    """The tile column after the last one."""
    window: PixelWindow
    """The pixels that the tiles cover, cut at the raster's edges."""
    owned: PixelWindow
    """The pixels whose validity this group reports; those of all groups are disjoint."""
    chunks: tuple[int, ...]
    """Indexes of the chunks that ``window`` touches, in order."""

    @classmethod
    def of(
        cls,
        grid: TileGrid,
        row: int,
        col_start: int,
        col_stop: int,
        *,
        touching: Callable[[PixelWindow], Iterable[int]],
    ) -> TileGroup:
        """The group of the tiles from `col_start` to `col_stop` of a tile row.

        Args:
            grid: the tiles.
            row: tile row.
            col_start: first tile column.
            col_stop: the tile column after the last one.
            touching: gives the indexes of the chunks that a window touches, in order.
        """
        size = grid.size
        top, left = row * grid.stride, col_start * grid.stride
        last_row, last_col = row == grid.n_rows - 1, col_stop == grid.n_cols
        bottom = min(top + grid.tile, size.height)
        right = min((col_stop - 1) * grid.stride + grid.tile, size.width)
        window = PixelWindow.between(top, bottom, left, right)
        owned_bottom = size.height if last_row else top + grid.stride
        owned_right = size.width if last_col else col_stop * grid.stride
        return cls(
            row=row,
            col_start=col_start,
            col_stop=col_stop,
            window=window,
            owned=PixelWindow.between(top, owned_bottom, left, owned_right),
            chunks=tuple(touching(window)),
        )

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return self.col_stop - self.col_start


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPlan:
    """Which chunks are written, and which groups of tiles each chunk needs."""

    grid: TileGrid
    """The tiles."""
    area: PixelWindow | None = None
    """The part of the raster that is written; None = all of it. Chunks begin at its first pixel,
    but tiles at the raster's, so that pixels do not depend on the part."""
    chunk_height: int = 512
    """Rows of a strip; a multiple of the output's block, so that no block is written in parts."""
    chunk_width: int = 4096
    """Columns of a chunk; a multiple of the block, too. A raster up to this width has one chunk per
    strip."""
    group_tiles: int = 8
    """Most tiles in one group."""

    def __post_init__(self) -> None:
        for name, number in (
            ("chunk height", self.chunk_height),
            ("chunk width", self.chunk_width),
            ("tiles per group", self.group_tiles),
        ):
            if number < 1:
                raise UsageError(f"{name} {number}: must be at least 1")
        whole = self.grid.size.window()
        if self.area is not None and self.area.intersection(whole) != self.area:
            raise ValueError(f"{self.area} reaches beyond {self.grid.size}")

    @property
    def written(self) -> PixelWindow:
        """The pixels that are written."""
        return self.grid.size.window() if self.area is None else self.area

    @property
    def _chunks(self) -> RegularGrid:
        return RegularGrid(
            size=self.written.size,
            part_height=self.chunk_height,
            part_width=self.chunk_width,
        )

    @property
    def n_strips(self) -> int:
        """Number of strips."""
        return self._chunks.rows

    @property
    def chunks_per_strip(self) -> int:
        """Chunks side by side in a strip."""
        return self._chunks.columns

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return self._chunks.count

    @property
    def n_tiles(self) -> int:
        """Number of tiles that hold a pixel of the written area."""
        rows, cols = self.grid.over(self.written)
        return len(rows) * len(cols)

    def tiles_before(self, strip: int) -> int:
        """Number of tiles that the strips above this one need."""
        written = self.written
        if not strip:
            return 0
        stop = min(written.row + strip * self.chunk_height, written.row_stop)
        above = PixelWindow.between(written.row, stop, written.col, written.col_stop)
        rows, cols = self.grid.over(above)
        return len(rows) * len(cols)

    def chunk(self, index: int) -> Chunk:
        """The chunk with the number ``index``."""
        written = self.written
        window = self._chunks.window(index).shifted(written.row, written.col)
        return Chunk(index=index, window=window)

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in raster order."""
        return map(self.chunk, range(self.n_chunks))

    def groups_of(self, chunk: int) -> list[TileGroup]:
        """The groups that touch a chunk, in raster order."""
        rows, columns = self.grid.over(self.chunk(chunk).window)
        spans = sorted({self._column_span(column) for column in columns})
        return [self._group(row, *span) for row in rows for span in spans]

    def groups_from(self, chunk: int, *, first: int = 0) -> list[TileGroup]:
        """The groups of a chunk that no earlier chunk from `first` on touches."""
        return [
            group
            for group in self.groups_of(chunk)
            if next(index for index in group.chunks if index >= first) == chunk
        ]

    def _column_span(self, tile_col: int) -> tuple[int, int]:
        # A group ends where a tile's origin enters the next chunk, so that the first chunks of a
        # strip never wait for tiles that they do not show. Tiles that begin left of the written
        # area belong to its first chunks.
        stride, width, left = self.grid.stride, self.chunk_width, self.written.col
        _, needed = self.grid.over(self.written)
        column = max(0, (tile_col * stride - left) // width)
        first = needed.start if column == 0 else -(-(column * width + left) // stride)
        stop = -(-((column + 1) * width + left) // stride)
        start = tile_col - (tile_col - first) % self.group_tiles
        return start, min(start + self.group_tiles, stop, needed.stop)

    def _group(self, row: int, col_start: int, col_stop: int) -> TileGroup:
        return TileGroup.of(self.grid, row, col_start, col_stop, touching=self._touching)

    def _touching(self, window: PixelWindow) -> Iterator[int]:
        common = window.intersection(self.written)
        return iter(()) if common is None else self._chunks.touching(common.seen_from(self.written))


def _tiles_over(start: int, stop: int, count: int, grid: TileGrid) -> range:
    """The tiles, of `count` along an axis, that hold a pixel of [start, stop)."""
    first = max(0, (start - grid.tile) // grid.stride + 1)
    return range(first, min(count, (stop - 1) // grid.stride + 1))
