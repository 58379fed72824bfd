"""Readers for arrays, and reading with padding beyond the raster's edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.mosaic.protocols import BoolArray, Float32Array, RasterReader
from geothresh.windows import PixelWindow, RasterSize


class ArrayReader:
    """A confidence array as a reader; what is not finite is invalid."""

    def __init__(self, confidence: NDArray[np.floating]) -> None:
        """Take a 2-D floating-point array with values in [0, 1], or NaN where there is no data.

        It is not copied; values are checked as they are read.

        Raises:
            InputError: The array is not 2-D, is empty or does not hold floating-point numbers.
        """
        if confidence.ndim != 2 or confidence.size == 0:
            raise InputError(
                f"confidence array of shape {confidence.shape}: give rows x columns, at least 1 x 1"
            )
        if not np.issubdtype(confidence.dtype, np.floating):
            raise InputError(
                f"confidence array of dtype {confidence.dtype}: "
                "give floating-point numbers from 0 to 1"
            )
        self._confidence = confidence

    @property
    def size(self) -> RasterSize:
        """Extent of the array."""
        height, width = self._confidence.shape
        return RasterSize(height=height, width=width)

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read one window, as `RasterReader.read` says.

        Raises:
            InputError: A finite value lies outside [0, 1].
        """
        confidence = self._confidence[window.slices()].astype(np.float32, copy=False)
        valid = np.isfinite(confidence)
        if not valid.all():
            confidence = np.where(valid, confidence, np.float32(0))
        low, high = float(confidence.min()), float(confidence.max())
        if low < 0 or high > 1:
            raise InputError(
                f"confidence array, rows {window.row} to {window.row_stop - 1}: values from "
                f"{low:g} to {high:g}; scale them to [0, 1], and set NaN where there is no data"
            )
        return confidence, valid


@dataclass(frozen=True, slots=True, kw_only=True)
class NpyReaderSpec:
    """A confidence array in a .npy file, which every process maps instead of loading it."""

    path: str
    """The file."""

    def open(self) -> ArrayReader:
        """Map the file into memory and read from there."""
        return ArrayReader(np.load(self.path, mmap_mode="r", allow_pickle=False))


def mirrored_indices(start: int, length: int, extent: int) -> NDArray[np.intp]:
    """Indices of ``length`` pixels from ``start`` on, mirrored at both ends of ``extent`` pixels.

    The outermost pixel is repeated and mirroring goes on as often as it takes: taking these from
    an axis gives what ``np.pad(mode="symmetric")`` gives.
    """
    index = np.arange(start, start + length) % (2 * extent)
    return np.minimum(index, 2 * extent - 1 - index)


def read_mirrored(reader: RasterReader, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
    """Read a window that may reach beyond the raster; there the raster is mirrored.

    Returns:
        Values and validity of the whole window, as `RasterReader.read` gives them.
    """
    size = reader.size
    inside = (
        window.row >= 0
        and window.col >= 0
        and window.row_stop <= size.height
        and window.col_stop <= size.width
    )
    if inside:
        return reader.read(window)
    rows = mirrored_indices(window.row, window.height, size.height)
    cols = mirrored_indices(window.col, window.width, size.width)
    row, col = int(rows.min()), int(cols.min())
    source = PixelWindow(
        row=row, col=col, height=int(rows.max()) - row + 1, width=int(cols.max()) - col + 1
    )
    values, valid = reader.read(source)
    rows, cols = np.ix_(rows - row, cols - col)
    return values[..., rows, cols], valid[rows, cols]
