"""Open rasters with rasterio, find where their blocks lie in the file, and read windows.

A file whose writer was killed, or that was cut short, may open and read as zeros. Only the offsets
of its blocks show this. So they are checked before a file is read and after one is written.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import rasterio

from geothresh.errors import InputError
from geothresh.raster.gdal import (
    RASTER_ERRORS,
    filtered_warnings,
    gdal_environment,
    reason,
    with_retries,
)
from geothresh.raster.georeference import Georeference
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.raw_vrts import refuse_raw_bytes
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# Looking at a block takes about a microsecond. Of more blocks than this, an even sample is checked.
_MOST_BLOCKS = 500_000
# Least and most bytes of a cache for a row of blocks. The minimum covers GDAL's overhead and blocks
# of masks; the maximum is there because a small file may claim any width.
_LEAST_CACHE = 4 << 20
_MOST_CACHE = 512 << 20
# An offset beyond the end of any file. Damaged offsets may be larger than int64 holds.
_NOWHERE = 2**62

# Some writers round nodata such as the lowest float32 to six digits. No data is near such values.
_HUGE = 1e30
_PRINTED_DIGITS = 1e-5
Made = TypeVar("Made")
Decoded = TypeVar("Decoded")


class BlockLayout(RegularGrid):
    """Grid of the blocks of a band on the disk; the last blocks may reach beyond the raster."""

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
        """Whether blocks of one row are in fact rows of a single strip.

        GDAL presents a strip as high as the raster as blocks of one row if there are more than 2000
        rows, and knows only the offset of the first.

        Args:
            present: indices of the blocks that have an offset.
        """
        size = self.size
        rows = self.part_height == 1 and self.part_width == size.width and size.height > 2000
        return rows and present.tolist() == [0]

    def row_cache(self, dtype: np.dtype[Any]) -> int:
        """Bytes of a cache that keeps a row of blocks while it is read in windows of fewer rows.

        In a smaller cache each block would be decoded once for each window, as happens with rows of
        more than 400 MB.
        """
        row_of_blocks = self.columns * self.part_width * self.part_height
        return min(row_of_blocks * dtype.itemsize * 5 // 4 + _LEAST_CACHE, _MOST_CACHE)

    def describe(self, index: int) -> str:
        """Name block `index` for a message: its row and column of blocks, and its pixels."""
        row, column = divmod(index, self.columns)
        return f"block ({row}, {column}) of {self.rows} x {self.columns}, {self.window(index).text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockInventory:
    """Offsets of the blocks of one band, from the file's directory, without decoding any."""

    examined: NDArray[np.int64]
    """Indices of the blocks that were looked at, ascending; all of them in most files."""
    ends: NDArray[np.int64]
    """For each, the position in the file after its last byte; 0 where it is absent."""
    one_strip: bool = False
    """The raster is a single strip (`BlockLayout.is_one_strip`); `examined` is its first row."""
    without_offset: int = 0
    """Examined blocks that have a size and no offset: GDAL reads them from the file's header."""

    @classmethod
    def of(
        cls, dataset: DatasetReader, bidx: int, layout: BlockLayout, *, overview: int | None = None
    ) -> BlockInventory:
        """Ask an open GeoTIFF for the offset and size of the blocks of band `bidx`.

        Args:
            dataset: the open GeoTIFF.
            bidx: the band, counted from 1.
            layout: layout of the band, or of its overview.
            overview: the overview, counted from 0; None = the band itself.
        """
        examined = evenly_spread(layout.count, _MOST_BLOCKS)
        ends = np.zeros(len(examined), np.int64)
        without_offset = 0
        for position, index in enumerate(examined.tolist()):
            row, column = divmod(index, layout.columns)
            block = f"{column}_{row}"
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx, overview)
            size = int(dataset.get_tag_item(f"BLOCK_SIZE_{block}", "TIFF", bidx, overview) or 0)
            if offset is None or int(offset) == 0:
                without_offset += size > 0
                continue
            ends[position] = min(int(offset) + size, _NOWHERE)
        if layout.is_one_strip(np.flatnonzero(ends)):
            return cls(
                examined=examined[:1], ends=ends[:1], one_strip=True, without_offset=without_offset
            )
        return cls(examined=examined, ends=ends, without_offset=without_offset)

    @property
    def present(self) -> NDArray[np.int64]:
        """Indices of the examined blocks that are in the file."""
        return self.examined[self.ends > 0]

    @property
    def absent_count(self) -> int:
        """Number of examined blocks that are not in the file; they read as nodata or zero."""
        return int(np.count_nonzero(self.ends == 0))

    def first_beyond(self, file_size: int) -> int | None:
        """Index of the first block that ends after `file_size` bytes, None if all lie inside."""
        beyond = self.examined[self.ends > file_size]
        return int(beyond[0]) if beyond.size else None


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the integers 0 to count - 1, ascending, evenly spread.

    They are multiples of the golden ratio modulo 1: a constant step could hit the same column of
    blocks every time.
    """
    if count <= most:
        return np.arange(count, dtype=np.int64)
    fractions = (np.arange(most) * 0.6180339887498949) % 1.0
    return np.unique((fractions * count).astype(np.int64))


def open_dataset(source: RasterSource, **options: str) -> DatasetReader:
    """Open a raster with the driver of its source; `options` are open options of the driver.

    Raises:
        InputError: GDAL cannot open it.
    """
    try:
        with gdal_environment(**source.access), filtered_warnings():
            return with_retries(
                lambda: rasterio.open(
                    source.location, driver=source.driver, sharing=False, **options
                )
            )
    except (*RASTER_ERRORS, ValueError) as error:
        advice = "address, network and credentials" if source.remote else "that it is complete"
        if source.remote and "." not in source.location.rpartition("/")[2]:
            advice += "; the name of a directory in a store ends in a slash"
        raise InputError(
            f"{source.name}: cannot be opened as {source.driver} ({reason(error)}); check {advice}"
        ) from error


def open_raster(source: RasterSource, make: Callable[[RasterSource, DatasetReader], Made]) -> Made:
    """Open a raster and pass it to `make`, whose result owns the dataset.

    Raises:
        InputError: it cannot be opened, or GDAL reports a fault in its metadata.
    """
    dataset = open_dataset(source)
    try:
        # Reading metadata may make GDAL read the file, and fail.
        with gdal_environment(**source.access), filtered_warnings():
            if source.driver == "VRT":
                refuse_raw_bytes(source.name, dataset, remote=source.remote)
            return make(source, dataset)
    except RASTER_ERRORS as error:
        # GDAL may report a fault in the metadata at any later call.
        dataset.close()
        raise InputError(_metadata_fault(source, error)) from error
    except BaseException:
        dataset.close()
        raise


def reopen(source: RasterSource, make: Callable[[RasterSource, DatasetReader], Made]) -> Made:
    """`open_raster` for a file that was examined before, perhaps in another process.

    Raises:
        InputError: the file is gone, or has changed since it was first opened.
    """
    require_unchanged(source)
    return open_raster(source, make)


def _metadata_fault(source: RasterSource, error: BaseException) -> str:
    side = Path(f"{source.location}.aux.xml")
    # Path.exists() fails where a name is too long for a file system.
    if not source.remote and os.path.exists(side):  # noqa: PTH110
        advice = f"remove or mend {side.name} beside it, or write both again"
    else:
        advice = "write it again with gdal_translate"
    return f"{source.name}: the metadata cannot be understood ({reason(error)}); {advice}"


def require_unchanged(source: RasterSource) -> None:
    """Raise InputError if a file's size or time differ from when it was first looked at."""
    if source.remote:
        return
    now = find_raster(source.location, allow_vrt=source.driver == "VRT")
    if (now.file_size, now.modified_ns) != (source.file_size, source.modified_ns):
        raise InputError(
            f"{source.name}: the file changed while it was being read; "
            "run again when it is complete"
        )


class OpenRaster:
    """An open raster; several threads may read it."""

    def __init__(
        self,
        source: RasterSource,
        dataset: DatasetReader,
        bidx: int,
        *,
        box: Georeference | None = None,
    ) -> None:
        """Take over an open dataset.

        Args:
            source: what was opened.
            dataset: the open dataset; this object closes it.
            bidx: the band whose blocks and type represent all bands.
            box: georeference that replaces that of the file.
        """
        self.source = source
        self.name = source.name
        self.box = Georeference.of(dataset, source.name) if box is None else box
        self.size = self.box.size
        self.layout = BlockLayout.of(dataset, bidx)
        self.dtype = np.dtype(dataset.dtypes[bidx - 1])
        self.band_count: int = dataset.count
        self.compression: str = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "none")
        self._dataset = dataset
        self._access = source.access
        # One GDAL handle may be used by one thread at a time.
        self._lock = threading.Lock()

    def _decoded(
        self, window: PixelWindow, read: Callable[[DatasetReader, PixelWindow], Decoded]
    ) -> Decoded:
        """Call `read` for a window.

        Raises:
            InputError: a block cannot be decoded.
        """
        if window.row_stop > self.size.height or window.col_stop > self.size.width:
            raise ValueError(f"{window} reaches beyond {self.size}")
        try:
            with self._lock, gdal_environment(**self._access):
                return read(self._dataset, window)
        except RASTER_ERRORS as error:
            raise InputError(self._undecodable(window, read, error)) from error

    def _undecodable(
        self,
        window: PixelWindow,
        read: Callable[[DatasetReader, PixelWindow], object],
        error: BaseException,
    ) -> str:
        """The message about the first block of a window that cannot be decoded."""
        where = window.text
        for index in self.layout.touching(window):
            try:
                with self._lock, gdal_environment(**self._access):
                    read(self._dataset, self.layout.window(index))
            except RASTER_ERRORS as block_error:
                where, error = self.layout.describe(index), block_error
                break
        advice = "the file is damaged or cut short: copy or write it again"
        if self.source.driver == "VRT":
            advice = "check the files that the VRT names, and that they are rasters"
        return f"{self.name}: {where} cannot be decoded ({reason(error)}); {advice}"

    def require_unchanged(self) -> None:
        """Raise InputError if the file's size or time differ from when it was first opened."""
        require_unchanged(self.source)

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        with self._lock, gdal_environment():
            self._dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSpec:
    """One band of a file, and how its missing data is marked."""

    source: RasterSource
    """The file."""
    bidx: int
    """The band, counted from 1."""
    mask_band: int | None
    """The band whose zeros mark missing data (alpha), counted from 1."""
    has_mask: bool
    """Whether the band has a mask of its own, inside the file or in NAME.msk."""
    nodata: float | None
    """The stored value that marks missing data; NaN and infinities always do."""


class OpenBand(OpenRaster):
    """One band of an open raster, as it is stored."""

    def __init__(
        self, spec: BandSpec, dataset: DatasetReader, *, box: Georeference | None = None
    ) -> None:
        super().__init__(spec.source, dataset, spec.bidx, box=box)
        self._band = spec
        self.infinities_seen = False

    def stored(self, window: PixelWindow) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The stored values of a window, and where they are valid.

        Raises:
            InputError: a block cannot be decoded.
        """
        spec = self._band
        values, mask = self._decoded(
            window,
            lambda dataset, part: read_with_mask(
                dataset, part, spec.bidx, mask_band=spec.mask_band, has_mask=spec.has_mask
            ),
        )
        valid = valid_values(values, spec.nodata)
        if mask is not None:
            valid &= mask != 0
        if not self.infinities_seen and np.issubdtype(values.dtype, np.floating):
            self.infinities_seen = bool(np.isinf(values).any())
        return values, valid


def read_with_mask(
    dataset: DatasetReader,
    window: PixelWindow,
    bands: int | tuple[int, ...],
    *,
    mask_band: int | None,
    has_mask: bool,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The stored values of a window, and the mask or alpha band there if the raster has one."""
    values = dataset.read(bands, window=window.ranges)
    if mask_band is not None:
        return values, dataset.read(mask_band, window=window.ranges)
    if has_mask:
        first = bands if isinstance(bands, int) else bands[0]
        return values, dataset.read_masks(first, window=window.ranges)
    return values, None


def valid_values(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """True where a stored value is data: neither `nodata`, nor NaN, nor infinite."""
    valid = np.ones(values.shape, np.bool_)
    if nodata is not None:
        valid &= ~stands_for_nodata(values, nodata)
    if np.issubdtype(values.dtype, np.floating):
        valid &= np.isfinite(values)
    return valid


def stands_for_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """True where a pixel equals `nodata` in the pixel's own type; NaN is not found here."""
    if not np.issubdtype(values.dtype, np.floating):
        return np.asarray(values == values.dtype.type(int(nodata)))
    if abs(nodata) >= _HUGE and math.isfinite(nodata):
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = values.astype(np.float64) / nodata
        return np.asarray(np.abs(ratio - 1.0) < _PRINTED_DIGITS)
    with np.errstate(over="ignore"):
        return np.asarray(values == values.dtype.type(nodata))
