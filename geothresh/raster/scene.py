"""A confidence raster that is open: windows of confidences, from any thread, in any process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.windows import Window

from geothresh.errors import InputError
from geothresh.raster.blocks import BlockLayout, span
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, quiet_georeference, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.nodata import stands_for_nodata
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.scaling import Contradiction, Scaling, contradiction_hint
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# Said when the sample shows it, or else when the reading has.
INFINITIES = "holds infinite values, which are taken as missing data"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """What is known and decided about a confidence raster; opens it again in any process."""

    source: RasterSource
    """The file."""
    bidx: int
    """The band with the confidence, counted from 1."""
    mask_band: int | None
    """The band whose zeros mark missing data (alpha), counted from 1."""
    has_mask: bool
    """Whether the band has a mask of its own, inside the file or in NAME.msk."""
    nodata: float | None
    """The stored value that marks missing data; NaN and infinities always do."""
    scaling: Scaling
    """How stored values become confidences."""

    def open(self) -> Scene:
        """Open the raster without deciding anything again.

        Raises:
            InputError: the file is gone, or has changed since it was first opened.
        """
        _require_unchanged(self.source)
        dataset = open_dataset(self.source)
        with gdal_environment(remote=self.source.remote), quiet_georeference():
            return Scene(self, dataset)


class Scene:
    """An open confidence raster; several threads may read it."""

    def __init__(self, spec: SceneSpec, dataset: DatasetReader) -> None:
        self.spec = spec
        self.name = spec.source.name
        self.grid = RasterGrid.of(dataset)
        self.size = RasterSize(height=dataset.height, width=dataset.width)
        self.layout = BlockLayout.of(dataset, spec.bidx)
        self.dtype = np.dtype(dataset.dtypes[spec.bidx - 1])
        self.band_count: int = dataset.count
        self.compression: str = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "none")
        self.infinities_seen = False
        self._dataset = dataset
        # One GDAL handle may be used by one thread at a time.
        self._lock = threading.Lock()

    def read(self, window: PixelWindow) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window that lies inside the raster.

        Returns:
            confidence: (height, width) float32 in [0, 1], 0 where there is no data.
            valid: (height, width) bool, True where there is data.

        Raises:
            InputError: a block cannot be decoded, or a value contradicts the scaling.
        """
        if window.row_stop > self.size.height or window.col_stop > self.size.width:
            raise ValueError(f"{window} reaches beyond {self.size}")
        values, valid = self.stored(window)
        try:
            return self.spec.scaling.apply(values, valid), valid
        except Contradiction as found:
            row, column = window.row + found.row, window.col + found.column
            hint = contradiction_hint(found.value, self.dtype, self.spec.scaling)
            raise InputError(
                f"{self.name}: the value {found.value:.6g} at row {row}, column {column} (in "
                f"{span(window)}) contradicts the scaling decided from a sample, "
                f"{self.spec.scaling.text}; {hint}"
            ) from None

    def stored(self, window: PixelWindow) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The values of a window as they stand in the file, and which of them are data.

        Raises:
            InputError: a block cannot be decoded.
        """
        spec = self.spec
        try:
            with self._lock, gdal_environment(remote=spec.source.remote):
                values, mask = _read_band(self._dataset, spec, window)
        except RASTER_ERRORS as error:
            raise InputError(self._undecodable(window, error)) from error
        valid = np.ones(values.shape, np.bool_) if mask is None else mask != 0
        if spec.nodata is not None:
            valid &= ~stands_for_nodata(values, spec.nodata)
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values)
            if not self.infinities_seen and np.isinf(values).any():
                self.infinities_seen = True
        return values, valid

    def _undecodable(self, window: PixelWindow, error: BaseException) -> str:
        """Name the first block of a window that fails by itself."""
        place = span(window)
        for index in self.layout.touching(window):
            try:
                with self._lock, gdal_environment(remote=self.spec.source.remote):
                    _read_band(self._dataset, self.spec, self.layout.window(index))
            except RASTER_ERRORS as found:
                place, error = self.layout.describe(index), found
                break
        return (
            f"{self.name}: {place} cannot be decoded ({reason(error)}); "
            "the file is damaged or cut short: copy or write it again"
        )

    def require_unchanged(self) -> None:
        """Raise InputError if the file's size or time differ from when it was first opened."""
        _require_unchanged(self.spec.source)

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        with self._lock, gdal_environment():
            self._dataset.close()

    def __enter__(self) -> Scene:
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
        with gdal_environment(remote=source.remote), quiet_georeference():
            return rasterio.open(source.location, driver=source.driver, sharing=False)
    except (*RASTER_ERRORS, ValueError) as error:
        advice = "address, network and credentials" if source.remote else "that it is complete"
        raise InputError(
            f"{source.name}: cannot be opened as {source.driver} ({reason(error)}); check {advice}"
        ) from error


def _require_unchanged(source: RasterSource) -> None:
    if source.remote:
        return
    now = find_raster(source.location, allow_vrt=source.driver == "VRT")
    if (now.file_size, now.modified_ns) != (source.file_size, source.modified_ns):
        raise InputError(
            f"{source.name}: the file changed while it was being read; "
            "run again when it is complete"
        )


def _read_band(
    dataset: DatasetReader, spec: SceneSpec, window: PixelWindow
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The stored values of a window, and the mask or alpha band there if the raster has one."""
    place = Window(window.col, window.row, window.width, window.height)
    values = dataset.read(spec.bidx, window=place)
    if spec.mask_band is not None:
        return values, dataset.read(spec.mask_band, window=place)
    if spec.has_mask:
        return values, dataset.read_masks(spec.bidx, window=place)
    return values, None
