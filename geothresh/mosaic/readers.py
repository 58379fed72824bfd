"""Readers of arrays, and reading of windows that reach beyond the raster's edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.mosaic.protocols import RasterReader
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize


class ArrayReader:
    """A reader of a confidence array; values that are not finite are invalid."""

    def __init__(self, confidence: NDArray[np.floating]) -> None:
        """Read from a 2-D floating-point array with values in [0, 1], or NaN for no data.

        It is not copied. Values are checked when they are read.

        Raises:
            InputError: The array is not 2-D, is empty or does not hold floating-point numbers.
        """
        if confidence.ndim != 2 or confidence.size == 0:
            band = confidence.ndim == 3 and confidence.shape[0] == 1
            raise InputError(
                f"confidence array of shape {confidence.shape}: give rows x columns, at least 1 x 1"
                + ("; squeeze the band away: confidence.squeeze(0)" if band else "")
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
        """Read one window, see `RasterReader.read`.

        Raises:
            InputError: A finite value lies outside [0, 1].
        """
        stored = self._confidence[window.slices()]
        valid = np.isfinite(stored)
        with np.errstate(over="ignore"):  # overflows to infinity, which is refused below
            confidence = stored.astype(np.float32, copy=False)
        if not valid.all():
            confidence = np.where(valid, confidence, np.float32(0))
        low, high = float(confidence.min()), float(confidence.max())
        if low < 0 or high > 1:
            raise InputError(
                f"confidence array, rows {window.row} to {window.row_stop - 1}: values from "
                f"{low:g} to {high:g}; scale them to [0, 1], and set NaN where there is no data"
            )
        return confidence, valid


class Decode(Protocol):
    """Turns stored values into confidences; small and picklable."""

    def __call__(
        self, stored: NDArray[Any], window: PixelWindow, /
    ) -> tuple[Float32Array, BoolArray]:
        """Give what `RasterReader.read` gives, from the stored values of a window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecesReader:
    """A reader of pieces of an array of stored values; windows must be covered by them."""

    size: RasterSize
    """Size of the whole array."""
    pieces: Sequence[tuple[PixelWindow, NDArray[Any]]]
    """Window and values of each piece."""
    decode: Decode
    """Turns the values into confidences."""

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read one window, see `RasterReader.read`."""
        for covered, values in self.pieces:
            if covered.intersection(window) == window:
                return self.decode(values[window.within(covered)], window)
        joined = np.empty((window.height, window.width), self.pieces[0][1].dtype)
        for covered, values in self.pieces:
            common = covered.intersection(window)
            if common is not None:
                joined[common.within(window)] = values[common.within(covered)]
        return self.decode(joined, window)


@dataclass(frozen=True, slots=True, kw_only=True)
class NpyReaderSpec:
    """A confidence array in a .npy file, which every process maps instead of loading it."""

    path: str
    """The file."""

    def open(self) -> ArrayReader:
        """Map the file into memory and read from there."""
        return ArrayReader(np.load(self.path, mmap_mode="r", allow_pickle=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class _MirroredAxis:
    """What to read along one axis for a window that may reach beyond the raster."""

    start: int
    """First pixel to read."""
    stop: int
    """The pixel after the last one to read."""
    before: int
    """Mirrored pixels to add at the start."""
    after: int
    """Mirrored pixels to add at the end."""
    skip: int
    """Pixels of the padded result before the window's first."""

    @classmethod
    def of(cls, start: int, length: int, extent: int) -> _MirroredAxis:
        """What to read for ``length`` pixels from ``start`` on, on an axis of ``extent`` pixels."""
        before, after = max(0, -start), max(0, start + length - extent)
        # If the window holds fewer raster pixels than are mirrored, more are read.
        first = max(0, min(start, extent - after))
        stop = min(extent, max(start + length, before))
        return cls(start=first, stop=stop, before=before, after=after, skip=max(0, start) - first)


def _mirrored_axes(window: PixelWindow, size: RasterSize) -> tuple[_MirroredAxis, _MirroredAxis]:
    return (
        _MirroredAxis.of(window.row, window.height, size.height),
        _MirroredAxis.of(window.col, window.width, size.width),
    )


def window_read(window: PixelWindow, size: RasterSize) -> PixelWindow:
    """The window inside the raster that `read_mirrored` reads for a window."""
    rows, cols = _mirrored_axes(window, size)
    return PixelWindow.between(rows.start, rows.stop, cols.start, cols.stop)


def read_mirrored(reader: RasterReader, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
    """Read a window that may reach beyond the raster, where the raster is mirrored.

    Mirroring is that of ``np.pad(mode="symmetric")``: the outermost pixel is repeated, and the
    raster is mirrored as often as necessary.

    Returns:
        Values and validity of the whole window, see `RasterReader.read`.
    """
    rows, cols = _mirrored_axes(window, reader.size)
    values, valid = reader.read(window_read(window, reader.size))
    padding = ((rows.before, rows.after), (cols.before, cols.after))
    if padding == ((0, 0), (0, 0)):
        return values, valid
    inside = np.s_[..., rows.skip : rows.skip + window.height, cols.skip : cols.skip + window.width]
    bands = ((0, 0),) * (values.ndim - 2)
    return (
        np.pad(values, (*bands, *padding), mode="symmetric")[inside],
        np.pad(valid, padding, mode="symmetric")[inside],
    )
