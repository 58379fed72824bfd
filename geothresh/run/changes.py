"""Make the output layers of a chunk (mask, confidence, changes, thresholds), and count changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from geothresh.mosaic import Layers, RasterReader
from geothresh.options import Dtype
from geothresh.raster.creation import NODATA
from geothresh.raster.writing import mask_values, stored_confidence
from geothresh.thresholding import best_thresholds, cut_mask, patch_histograms
from geothresh.types import BoolArray, Float32Array, LayerArray, UInt8Array
from geothresh.windows import PixelWindow, RasterSize

REGION = 64
"""Side in pixels of a region that has its own threshold (the paper's P)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCounts:
    """Counts of pixels of a chunk or of whole rasters, before and after refining."""

    valid: int = 0
    """Pixels with data."""
    foreground_before: int = 0
    """Valid pixels that are foreground in the input."""
    foreground_after: int = 0
    """Valid pixels that are foreground in the refined mask."""
    changed: int = 0
    """Valid pixels that are foreground in one of the two only."""

    @classmethod
    def of(cls, total: Callable[[str], int]) -> ChangeCounts:
        """Counts over many chunks; `total` gives the sum of a field by its name."""
        return cls(**{field.name: total(field.name) for field in fields(cls)})

    @property
    def added(self) -> int:
        """Pixels that became foreground."""
        return (self.changed + self.foreground_after - self.foreground_before) // 2

    @property
    def removed(self) -> int:
        """Pixels that became background."""
        return self.changed - self.added

    @property
    def changed_share(self) -> float:
        """Share of the valid pixels that changed, 0 to 1; 0 if no pixel is valid."""
        return self.changed / max(self.valid, 1)

    def as_results(self) -> dict[str, Any]:
        """The counts by their names in the results of public functions."""
        return {
            "valid_pixels": self.valid,
            "foreground_before": self.foreground_before,
            "foreground_after": self.foreground_after,
            "changed_pixels": self.changed,
        }


class ThresholdedInput:
    """A reader that keeps, in one bit per pixel, where the input reaches the threshold.

    The engine reads each part of the scene shortly before it finishes the chunks there. Each chunk
    takes its pixels once. Windows whose pixels were all taken are dropped, so that few are kept.
    """

    def __init__(self, reader: RasterReader, threshold: float) -> None:
        self._reader = reader
        self._threshold = np.float32(threshold)
        self._lock = threading.Lock()
        self._seen: dict[PixelWindow, UInt8Array] = {}
        self._awaited: dict[PixelWindow, int] = {}
        """Number of pixels of each window that were not taken yet."""

    @property
    def size(self) -> RasterSize:
        """Extent of the raster."""
        return self._reader.size

    @property
    def source(self) -> RasterReader:
        """The wrapped reader, for callers that need the confidences again."""
        return self._reader

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read one window with the wrapped reader."""
        confidence, valid = self._reader.read(window)
        bits = np.packbits(confidence >= self._threshold, axis=1)
        with self._lock:
            self._seen[window] = bits
            self._awaited[window] = window.height * window.width
        return confidence, valid

    def at(self, window: PixelWindow) -> BoolArray:
        """True where the input reaches the threshold; arbitrary where there is no data.

        Each pixel may be taken once.
        """
        overlapping = []
        with self._lock:
            for read in list(self._seen):
                common = read.intersection(window)
                if common is None:
                    continue
                overlapping.append((read, common, self._seen[read]))
                self._awaited[read] -= common.height * common.width
                if not self._awaited[read]:
                    del self._seen[read], self._awaited[read]
        foreground = np.zeros((window.height, window.width), np.bool_)
        for read, common, bits in overlapping:
            rows, columns = common.within(read)
            unpacked = np.unpackbits(bits[rows], axis=1, count=read.width)
            foreground[common.within(window)] = unpacked[:, columns]
        return foreground


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskLayers:
    """Makes the output layers of a chunk, and counts the pixels that changed."""

    threshold: float
    """Pixels of at least this refined confidence are foreground."""
    keep: float | None = None
    """Threshold for pixels that are foreground in the input, see `cut_mask`; None = the same."""
    confidence: Dtype | None
    """Type of the layer of refined confidences; None = no such layer."""
    changes: bool = False
    """Whether there is a layer of changes."""
    thresholds: bool = False
    """Whether there is a layer of region-specific thresholds."""

    def __call__(
        self, reader: RasterReader, window: PixelWindow, refined: Float32Array, valid: BoolArray
    ) -> Layers:
        """Make the layers, see `geothresh.mosaic.Finish`."""
        if isinstance(reader, ThresholdedInput):
            before = reader.at(window)
        else:  # a worker process, which may not have read this window
            before = reader.read(window)[0] >= np.float32(self.threshold)
        foreground = cut_mask(refined, before, threshold=self.threshold, keep=self.keep)
        mask = mask_values(foreground, valid)
        values: list[LayerArray] = [mask]
        if self.confidence is not None:
            values.append(stored_confidence(refined, valid, self.confidence))
        if self.changes:
            values.append(change_values(before, mask))
        if self.thresholds:
            source = reader.source if isinstance(reader, ThresholdedInput) else reader
            values.append(threshold_values(source.read(window)[0], mask))
        return Layers(values=tuple(values), counts=asdict(count_changes(before, foreground, valid)))


def change_values(before: BoolArray, mask: UInt8Array) -> UInt8Array:
    """Values of the changes: 1 became foreground, 2 became background, 0 unchanged, 255 no data."""
    after = mask == 1
    changes: UInt8Array = (after & ~before).view(np.uint8)
    changes += (before & ~after).view(np.uint8) * np.uint8(2)
    changes[mask == NODATA] = NODATA
    return changes


def threshold_values(confidence: Float32Array, mask: UInt8Array) -> UInt8Array:
    """Region-specific thresholds in hundredths: those at which the input is most like the mask.

    Regions are squares of `REGION` pixels, counted from the first pixel of the window. Nodata is
    that of the mask. The threshold is that of section 3.2 of the paper, with the mask as the truth.
    """
    valid = mask != NODATA
    histograms = patch_histograms(confidence, mask == 1, patch=REGION, valid=valid)
    hundredths = np.rint(best_thresholds(histograms) * 100).astype(np.uint8)
    values = hundredths.repeat(REGION, axis=0).repeat(REGION, axis=1)
    values = values[: mask.shape[0], : mask.shape[1]]
    return np.where(valid, values, np.uint8(NODATA))


def count_changes(before: BoolArray, after: BoolArray, valid: BoolArray) -> ChangeCounts:
    """Count the pixels of a chunk from the foreground of input and output."""
    n_valid = int(np.count_nonzero(valid))
    if n_valid < valid.size:
        before, after = before & valid, after & valid
    return ChangeCounts(
        valid=n_valid,
        foreground_before=int(np.count_nonzero(before)),
        foreground_after=int(np.count_nonzero(after)),
        changed=int(np.count_nonzero(before != after)),
    )
