"""Statistics of a scene and its refined mask for the report page: overviews, histograms, places.

Both are read window by window, so that memory does not grow with the scene. An overview pixel holds
the shares of the pixels that it stands for, not one sample of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from geothresh.mosaic import RasterReader
from geothresh.run.changes import REGION
from geothresh.thresholding import best_thresholds, patch_histograms
from geothresh.types import BoolArray, Float32Array, Int64Array
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

ReadMask: TypeAlias = Callable[[PixelWindow], tuple[BoolArray, BoolArray]]
"""Foreground and validity of a window."""

BINS = 50
"""Bins of the histograms of confidences, equal parts of [0, 1]."""
PLACES, PLACE = 12, 256
"""Number of places that are shown, and side of one in pixels."""
_SIDE = 1600
# Pixels of a window along a row and down a column, where the overview is not coarser.
_WINDOW_WIDTH, _WINDOW_HEIGHT = 2048, 512


@dataclass(slots=True, kw_only=True)
class Survey:
    """The statistics. Shares are of the valid pixels that a pixel of the overview stands for."""

    size: RasterSize
    factor: int
    """Pixels of the scene along one of the overview; a power of two."""
    valid: NDArray[np.float32] = field(init=False)
    """Share of all pixels that have data, (h, w) of the overview."""
    before: NDArray[np.float32] = field(init=False)
    """Share of foreground in the input."""
    after: NDArray[np.float32] = field(init=False)
    """Share of foreground in the mask."""
    added: NDArray[np.float32] = field(init=False)
    removed: NDArray[np.float32] = field(init=False)
    thresholds: NDArray[np.float32] = field(init=False)
    """Mean of the region-specific thresholds; NaN where there is no data."""
    confidences: Int64Array = field(init=False)
    """Valid pixels of the input by confidence, (BINS,)."""
    refined: Int64Array | None = field(default=None)
    """The same of the refined confidences; None where they were not written."""
    places: tuple[PixelWindow, ...] = ()
    """Squares of `PLACE` pixels where most changed, the most first; smaller in a small scene."""

    def __post_init__(self) -> None:
        shape = -(-self.size.height // self.factor), -(-self.size.width // self.factor)
        for name in ("valid", "before", "after", "added", "removed"):
            setattr(self, name, np.zeros(shape, np.float32))
        self.thresholds = np.full(shape, np.nan, np.float32)
        self.confidences = np.zeros(BINS, np.int64)


def survey(
    scene: RasterReader,
    mask: ReadMask,
    *,
    threshold: float,
    refined: RasterReader | None = None,
) -> Survey:
    """Read a scene and its mask once, and collect the statistics.

    Args:
        scene: the input.
        mask: the refined mask on the same grid.
        threshold: at which the input is cut, for what was foreground before.
        refined: the refined confidences, if they were written.

    Raises:
        InputError: one of them cannot be read.
    """
    size = scene.size
    factor = 1
    while max(size.height, size.width) > factor * _SIDE:
        factor *= 2
    seen = Survey(size=size, factor=factor)
    if refined is not None:
        seen.refined = np.zeros(BINS, np.int64)
    places: list[tuple[int, int, int]] = []
    # All powers of two: windows are whole pixels of the overview, whole regions, whole places.
    for window in RegularGrid(
        size=size,
        part_height=max(_WINDOW_HEIGHT, factor),
        part_width=max(_WINDOW_WIDTH, factor),
    ).windows():
        confidence, _ = scene.read(window)
        after, valid = mask(window)
        before = (confidence >= np.float32(threshold)) & valid
        _add_overview(seen, window, before, after, valid)
        _add_thresholds(seen, window, confidence, after, valid)
        seen.confidences += _counted(confidence, valid)
        if refined is not None and seen.refined is not None:
            seen.refined += _counted(refined.read(window)[0], valid)
        _add_places(places, window, before, after)
    seen.places = tuple(
        PixelWindow(
            row=max(0, min(-row, size.height - PLACE)), col=max(0, min(-col, size.width - PLACE)),
            height=min(PLACE, size.height), width=min(PLACE, size.width),
        )
        for _, row, col in sorted(places, reverse=True)
    )  # fmt: skip
    return seen


def _add_overview(
    seen: Survey, window: PixelWindow, before: BoolArray, after: BoolArray, valid: BoolArray
) -> None:
    factor = seen.factor
    place = _overview_slices(window, factor)
    pixels = block_sums(np.ones(valid.shape, np.uint8), factor)
    with_data = block_sums(valid, factor)
    seen.valid[place] = with_data / pixels
    known = np.maximum(with_data, 1)
    for array, values in (
        (seen.before, before),
        (seen.after, after),
        (seen.added, after & ~before),
        (seen.removed, before & ~after),
    ):
        array[place] = block_sums(values, factor) / known


def _add_thresholds(
    seen: Survey,
    window: PixelWindow,
    confidence: Float32Array,
    after: BoolArray,
    valid: BoolArray,
) -> None:
    histograms = patch_histograms(confidence, after, patch=REGION, valid=valid)
    best = best_thresholds(histograms)
    best[histograms.sum(axis=(0, 1)) == 0] = np.nan
    if seen.factor <= REGION:
        repeated = best.repeat(REGION // seen.factor, axis=0).repeat(REGION // seen.factor, axis=1)
    else:
        each = seen.factor // REGION
        known = np.maximum(block_sums(np.isfinite(best), each), 1)
        total = block_sums(np.nan_to_num(best), each)
        repeated = np.where(total > 0, total / known, np.nan).astype(np.float32)
    rows, columns = _overview_slices(window, seen.factor)
    target = seen.thresholds[rows, columns]
    target[...] = repeated[: target.shape[0], : target.shape[1]]


def _add_places(
    places: list[tuple[int, int, int]],
    window: PixelWindow,
    before: BoolArray,
    after: BoolArray,
) -> None:
    changed = block_sums(after ^ before, PLACE)
    for row, col in np.argwhere(changed).tolist():
        # Of equal ones the first in raster order.
        top, left = window.row + row * PLACE, window.col + col * PLACE
        heapq.heappush(places, (int(changed[row, col]), -top, -left))
        if len(places) > PLACES:
            heapq.heappop(places)


def _overview_slices(window: PixelWindow, factor: int) -> tuple[slice, slice]:
    rows, columns = window.slices()
    return (
        slice(rows.start // factor, -(-rows.stop // factor)),
        slice(columns.start // factor, -(-columns.stop // factor)),
    )


def _counted(confidence: Float32Array, valid: BoolArray) -> Int64Array:
    bins = np.minimum((confidence[valid] * np.float32(BINS)).astype(np.intp), BINS - 1)
    return np.bincount(bins, minlength=BINS)


def block_sums(values: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    """Sums over blocks of `side` x `side` pixels, those at the right and lower edge smaller."""
    height, width = values.shape
    if side == 1:
        return values.astype(np.float32)
    rows = np.add.reduceat(values, np.arange(0, height, side), axis=0, dtype=np.float32)
    return np.add.reduceat(rows, np.arange(0, width, side), axis=1, dtype=np.float32)
