"""Output layers of a chunk (mask, confidence, changes, thresholds) and counts of changed pixels."""

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
"""Pixels along a region with a threshold of its own (the paper's P)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCounts:
    """Pixels of a chunk or of whole rasters, before and after refining."""

    valid: int = 0
    """With data."""
    foreground_before: int = 0
    """Valid, and in the input at least the threshold."""
    foreground_after: int = 0
    """Valid, and refined at least the threshold."""
    changed: int = 0
    """Foreground before or after, but not both."""

    @classmethod
    def of(cls, total: Callable[[str], int]) -> ChangeCounts:
        """Sums over many chunks; `total` gives the sum of each field by its name."""
        return cls(**{one.name: total(one.name) for one in fields(cls)})

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
        """Share of the valid pixels that changed, 0 to 1; 0 where none is valid."""
        return self.changed / max(self.valid, 1)

    def as_results(self) -> dict[str, Any]:
        """The counts by the names that the results of the public functions give them."""
        return {
            "valid_pixels": self.valid,
            "foreground_before": self.foreground_before,
            "foreground_after": self.foreground_after,
            "changed_pixels": self.changed,
        }


class ThresholdedInput:
    """A reader that remembers, in one bit per pixel, where the input reached the threshold.

    The engine reads each part of the scene shortly before the chunks there are finished. Each chunk
    asks once, and what all chunks have asked for is forgotten, so that little is kept.
    """

    def __init__(self, reader: RasterReader, threshold: float) -> None:
        self._reader = reader
        self._threshold = np.float32(threshold)
        self._lock = threading.Lock()
        self._seen: dict[PixelWindow, UInt8Array] = {}
        self._awaited: dict[PixelWindow, int] = {}
        """Pixels of each window that have not been asked for yet."""

    @property
    def size(self) -> RasterSize:
        """Extent of the raster."""
        return self._reader.size

    @property
    def source(self) -> RasterReader:
        """The reader below, for callers that need the confidences again."""
        return self._reader

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read one window, as the reader below does."""
        confidence, valid = self._reader.read(window)
        bits = np.packbits(confidence >= self._threshold, axis=1)
        with self._lock:
            self._seen[window] = bits
            self._awaited[window] = window.height * window.width
        return confidence, valid

    def at(self, window: PixelWindow) -> BoolArray:
        """Where the input reaches the threshold; arbitrary where there is no data.

        Each pixel may be asked for once.
        """
        seen = []
        with self._lock:
            for place in list(self._seen):
                common = place.intersection(window)
                if common is None:
                    continue
                seen.append((place, common, self._seen[place]))
                self._awaited[place] -= common.height * common.width
                if not self._awaited[place]:
                    del self._seen[place], self._awaited[place]
        foreground = np.zeros((window.height, window.width), np.bool_)
        for place, common, bits in seen:
            rows, columns = common.within(place)
            unpacked = np.unpackbits(bits[rows], axis=1, count=place.width)
            foreground[common.within(window)] = unpacked[:, columns]
        return foreground


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskLayers:
    """Makes the output layers of a chunk, and counts the pixels that changed."""

    threshold: float
    """Refined confidence from which on a pixel is foreground."""
    keep: float | None = None
    """The same for a pixel that is foreground in the input, see `cut_mask`."""
    confidence: Dtype | None
    """Type of the layer of refined confidences; None = no such layer."""
    changes: bool = False
    """Whether there is a layer of changes."""
    thresholds: bool = False
    """Whether there is a layer of region-specific thresholds."""

    def __call__(
        self, reader: RasterReader, window: PixelWindow, refined: Float32Array, valid: BoolArray
    ) -> Layers:
        """Make them, as `geothresh.mosaic.Finish` says."""
        if isinstance(reader, ThresholdedInput):
            before = reader.at(window)
        else:  # in a worker process, which may not have read this part
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
    """1 where a pixel became foreground, 2 where background, 0 elsewhere; 255 for no data."""
    after = mask == 1
    changes: UInt8Array = (after & ~before).view(np.uint8)
    changes += (before & ~after).view(np.uint8) * np.uint8(2)
    changes[mask == NODATA] = NODATA
    return changes


def threshold_values(confidence: Float32Array, mask: UInt8Array) -> UInt8Array:
    """The threshold of each region, in hundredths, at which the input is most like the mask.

    Nodata is as in the mask. Regions are `REGION` pixels wide, counted from the first pixel of the
    window. The threshold is that of section 3.2 of the paper with the mask as the truth.
    """
    valid = mask != NODATA
    histograms = patch_histograms(confidence, mask == 1, patch=REGION, valid=valid)
    hundredths = np.rint(best_thresholds(histograms) * 100).astype(np.uint8)
    values = hundredths.repeat(REGION, axis=0).repeat(REGION, axis=1)
    values = values[: mask.shape[0], : mask.shape[1]]
    return np.where(valid, values, np.uint8(NODATA))


def count_changes(before: BoolArray, after: BoolArray, valid: BoolArray) -> ChangeCounts:
    """Count the pixels of a chunk, given where input and output reach the threshold."""
    n_valid = int(np.count_nonzero(valid))
    if n_valid < valid.size:
        before, after = before & valid, after & valid
    return ChangeCounts(
        valid=n_valid,
        foreground_before=int(np.count_nonzero(before)),
        foreground_after=int(np.count_nonzero(after)),
        changed=int(np.count_nonzero(before != after)),
    )
