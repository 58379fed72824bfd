"""Offsets of the blocks of a GeoTIFF in its file: what a reader trusts and a writer must prove.

A file whose writer was killed opens and reads as zeros, and one cut short opens too; only the
offsets of its blocks tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geothresh.windows import RasterSize, RegularGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# About a microsecond each; more blocks than this are looked at in an even sample.
_MOST_BLOCKS = 500_000
# Bytes of a cache for a row of blocks: beside it what GDAL keeps of each, and blocks of masks; and
# at most, since a small file may claim any width.
_LEAST_CACHE = 4 << 20
_MOST_CACHE = 512 << 20
# Beyond the end of any file: damaged offsets may be larger than int64 holds.
_NOWHERE = 2**62


class BlockLayout(RegularGrid):
    """How a band is cut into blocks on the disk, where the last of a column may reach beyond it."""

    __slots__ = ()

    @classmethod
    def of(cls, dataset: DatasetReader, bidx: int) -> BlockLayout:
        """The layout of band `bidx`, counted from 1."""
        block_height, block_width = dataset.block_shapes[bidx - 1]
        return cls(
            size=RasterSize(height=dataset.height, width=dataset.width),
            part_height=block_height,
            part_width=block_width,
        )

    def is_one_strip(self, present: NDArray[np.int64]) -> bool:
        """Whether rows that stand as blocks are rows of one strip, of which `present` are known.

        GDAL serves a strip that is as high as the raster row by row, where there are more than 2000
        of them, and knows of the offset of the first alone.
        """
        size = self.size
        rows = self.part_height == 1 and self.part_width == size.width and size.height > 2000
        return rows and present.tolist() == [0]

    def row_cache(self, dtype: np.dtype[Any]) -> int:
        """Bytes of a cache in which a row of blocks stays while it is read in lower windows.

        In a smaller one each block would be decoded once for each of them; so it is in rows of more
        than 400 MB.
        """
        row_of_blocks = self.columns * self.part_width * self.part_height
        return min(row_of_blocks * dtype.itemsize * 5 // 4 + _LEAST_CACHE, _MOST_CACHE)

    def describe(self, index: int) -> str:
        """Name block `index` in a message: its place among the blocks and its pixels."""
        row, column = divmod(index, self.columns)
        return f"block ({row}, {column}) of {self.rows} x {self.columns}, {self.window(index).text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockInventory:
    """The blocks of one band as the file's directory tells of them, without decoding any."""

    examined: NDArray[np.int64]
    """Indices of the blocks that were looked at, ascending; all of them in most files."""
    ends: NDArray[np.int64]
    """For each, the position in the file just after its last byte; 0 where it is absent."""
    one_strip: bool = False
    """The raster is one strip, of which GDAL makes a block of each row; `examined` is the first."""

    @classmethod
    def of(cls, dataset: DatasetReader, bidx: int, layout: BlockLayout) -> BlockInventory:
        """Ask an open GeoTIFF for the offset and size of the blocks of band `bidx`."""
        examined = evenly_spread(layout.count, _MOST_BLOCKS)
        ends = np.zeros(len(examined), np.int64)
        for place, index in enumerate(examined.tolist()):
            row, column = divmod(index, layout.columns)
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=bidx)
            if offset is None or int(offset) == 0:
                continue
            size = dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=bidx)
            ends[place] = min(int(offset) + int(size or 0), _NOWHERE)
        if layout.is_one_strip(np.flatnonzero(ends)):
            return cls(examined=examined[:1], ends=ends[:1], one_strip=True)
        return cls(examined=examined, ends=ends)

    @property
    def present(self) -> NDArray[np.int64]:
        """Indices of the examined blocks that are in the file."""
        return self.examined[self.ends > 0]

    @property
    def absent_count(self) -> int:
        """How many examined blocks the file does not hold; they read as nodata or zero."""
        return int(np.count_nonzero(self.ends == 0))

    def first_beyond(self, file_size: int) -> int | None:
        """Index of the first block that ends after `file_size` bytes, None if all lie inside."""
        beyond = self.examined[self.ends > file_size]
        return int(beyond[0]) if beyond.size else None


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the integers 0 to count - 1, ascending, evenly spread.

    By the multiples of the golden ratio modulo 1: an even step could fall on the same column of
    blocks every time.
    """
    if count <= most:
        return np.arange(count, dtype=np.int64)
    fractions = (np.arange(most) * 0.6180339887498949) % 1.0
    return np.unique((fractions * count).astype(np.int64))
