"""A raster that is open: what confidence rasters and images have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import rasterio

from geothresh.errors import InputError
from geothresh.places import RasterPlace
from geothresh.raster.blocks import BlockLayout
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.wording import in_own_words
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Decoded = TypeVar("Decoded")


class OpenRaster:
    """An open raster; several threads may read it."""

    def __init__(self, source: RasterSource, dataset: DatasetReader, bidx: int) -> None:
        """Take an open dataset into custody; `bidx` is the band that stands for the others."""
        self.source = source
        self.name = source.name
        self.grid = RasterGrid.of(dataset)
        self.size = RasterSize(height=dataset.height, width=dataset.width)
        self.layout = BlockLayout.of(dataset, bidx)
        self.dtype = np.dtype(dataset.dtypes[bidx - 1])
        self.band_count: int = dataset.count
        self.compression: str = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "none")
        self._dataset = dataset
        # One GDAL handle may be used by one thread at a time.
        self._lock = threading.Lock()

    @property
    def place(self) -> RasterPlace:
        """Where its pixels lie."""
        return RasterPlace(
            name=self.name,
            crs=None if self.grid.crs is None else self.grid.crs.to_wkt(),
            transform=tuple(self.grid.transform)[:6],
            size=self.size,
        )

    def _decoded(
        self, window: PixelWindow, read: Callable[[DatasetReader, PixelWindow], Decoded]
    ) -> Decoded:
        """What `read` gives of a window.

        Raises:
            InputError: a block cannot be decoded.
        """
        if window.row_stop > self.size.height or window.col_stop > self.size.width:
            raise ValueError(f"{window} reaches beyond {self.size}")
        try:
            with self._lock, gdal_environment(**self.source.access):
                return read(self._dataset, window)
        except RASTER_ERRORS as error:
            raise InputError(self._undecodable(window, read, error)) from error

    def _undecodable(
        self,
        window: PixelWindow,
        read: Callable[[DatasetReader, PixelWindow], object],
        error: BaseException,
    ) -> str:
        """Name the first block of a window that fails by itself."""
        place = window.text
        for index in self.layout.touching(window):
            try:
                with self._lock, gdal_environment(**self.source.access):
                    read(self._dataset, self.layout.window(index))
            except RASTER_ERRORS as found:
                place, error = self.layout.describe(index), found
                break
        advice = "the file is damaged or cut short: copy or write it again"
        if self.source.driver == "VRT":
            advice = "check the files that the VRT names, and that they are rasters"
        return f"{self.name}: {place} cannot be decoded ({reason(error)}); {advice}"

    def require_unchanged(self) -> None:
        """Raise InputError if the file's size or time differ from when it was first opened."""
        require_unchanged(self.source)

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        with self._lock, gdal_environment():
            self._dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_dataset(source: RasterSource) -> DatasetReader:
    """Open a raster with the one driver that it may have.

    Raises:
        InputError: GDAL cannot make sense of it.
    """
    try:
        with gdal_environment(**source.access), in_own_words():
            return rasterio.open(source.location, driver=source.driver, sharing=False)
    except (*RASTER_ERRORS, ValueError) as error:
        advice = "address, network and credentials" if source.remote else "that it is complete"
        raise InputError(
            f"{source.name}: cannot be opened as {source.driver} ({reason(error)}); check {advice}"
        ) from error


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
