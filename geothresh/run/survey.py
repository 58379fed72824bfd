"""Statistics of a scene and its refined mask for the report page: overviews and histograms.

Both rasters are read window by window, so that memory does not grow with the scene. An overview
pixel holds shares over all pixels that it covers, not one sample of them.
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
SQUARES, SQUARE = 12, 256
"""Number of squares with the most changes that are shown, and side of a square in pixels."""
# Most pixels along a side of the overview.
_SIDE = 1600
# Columns and rows of a window, unless one overview pixel covers more.
_WINDOW_WIDTH, _WINDOW_HEIGHT = 2048, 512


@dataclass(slots=True, kw_only=True)
class SceneStatistics:
    """Statistics of a scene. Shares are of the valid pixels that an overview pixel covers."""

    size: RasterSize
    factor: int
    """Pixels of the scene along one pixel of the overview; a power of two."""
    valid: NDArray[np.float32] = field(init=False)
    """Share of all pixels that have data, (h, w) of the overview."""
    before: NDArray[np.float32] = field(init=False)
    """Share of foreground in the input."""
    after: NDArray[np.float32] = field(init=False)
    """Share of foreground in the mask."""
    added: NDArray[np.float32] = field(init=False)
    """Share of pixels that became foreground."""
    removed: NDArray[np.float32] = field(init=False)
    """Share of pixels that became background."""
    thresholds: NDArray[np.float32] = field(init=False)
    """Mean of the region-specific thresholds; NaN where there is no data."""
    confidences: Int64Array = field(init=False)
    """Valid pixels of the input by confidence, (BINS,)."""
    refined: Int64Array | None = field(default=None)
    """Valid pixels by refined confidence, (BINS,); None if these were not written."""
    squares: tuple[PixelWindow, ...] = ()
    """Squares of `SQUARE` pixels with the most changes, in descending order; smaller in a small
    scene."""

    def __post_init__(self) -> None:
        shape = -(-self.size.height // self.factor), -(-self.size.width // self.factor)
        for name in ("valid", "before", "after", "added", "removed"):
            setattr(self, name, np.zeros(shape, np.float32))
        self.thresholds = np.full(shape, np.nan, np.float32)
        self.confidences = np.zeros(BINS, np.int64)


def scene_statistics(
    scene: RasterReader,
    mask: ReadMask,
    *,
    threshold: float,
    refined: RasterReader | None = None,
) -> SceneStatistics:
    """Read a scene and its mask once, and collect the statistics.

    Args:
        scene: the input.
        mask: reads the refined mask, on the same grid.
        threshold: threshold of the input.
        refined: the refined confidences, if they were written.

    Raises:
        InputError: one of the rasters cannot be read.
    """
    size = scene.size
    factor = 1
    while max(size.height, size.width) > factor * _SIDE:
        factor *= 2
    seen = SceneStatistics(size=size, factor=factor)
    if refined is not None:
        seen.refined = np.zeros(BINS, np.int64)
    squares: list[tuple[int, int, int]] = []
    # All sizes are powers of two: windows hold whole overview pixels, regions and squares.
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
        _add_squares(squares, window, before, after)
    seen.squares = tuple(
        PixelWindow(
            row=max(0, min(-row, size.height - SQUARE)), col=max(0, min(-col, size.width - SQUARE)),
            height=min(SQUARE, size.height), width=min(SQUARE, size.width),
        )
        for _, row, col in sorted(squares, reverse=True)
    )  # fmt: skip
    return seen


def _add_overview(
    seen: SceneStatistics,
    window: PixelWindow,
    before: BoolArray,
    after: BoolArray,
    valid: BoolArray,
) -> None:
    factor = seen.factor
    covered = _overview_slices(window, factor)
    pixels = block_sums(np.ones(valid.shape, np.uint8), factor)
    with_data = block_sums(valid, factor)
    seen.valid[covered] = with_data / pixels
    known = np.maximum(with_data, 1)
    for array, values in (
        (seen.before, before),
        (seen.after, after),
        (seen.added, after & ~before),
        (seen.removed, before & ~after),
    ):
        array[covered] = block_sums(values, factor) / known


def _add_thresholds(
    seen: SceneStatistics,
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


def _add_squares(
    squares: list[tuple[int, int, int]],
    window: PixelWindow,
    before: BoolArray,
    after: BoolArray,
) -> None:
    changed = block_sums(after ^ before, SQUARE)
    for row, col in np.argwhere(changed).tolist():
        # Of squares with equal numbers, the first in raster order is kept.
        top, left = window.row + row * SQUARE, window.col + col * SQUARE
        heapq.heappush(squares, (int(changed[row, col]), -top, -left))
        if len(squares) > SQUARES:
            heapq.heappop(squares)


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
    """Sums over blocks of `side` x `side` pixels, which are smaller at the right and lower edge."""
    height, width = values.shape
    if side == 1:
        return values.astype(np.float32)
    rows = np.add.reduceat(values, np.arange(0, height, side), axis=0, dtype=np.float32)
    return np.add.reduceat(rows, np.arange(0, width, side), axis=1, dtype=np.float32)
