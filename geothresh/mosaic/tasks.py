"""The two steps of a mosaic: refine a group of tiles, blend a chunk from the groups' shares.

Shares are summed as integers, in units of 2**-30: integer sums do not depend on their order, so
neither does the result depend on groups, chunks, batches, threads or workers, to the last bit.
Each product of weight and confidence is cut to the unit, 60 times finer than float32 near 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geothresh.blending import AxisWeights, Blend
from geothresh.errors import ModelError, UsageError
from geothresh.mosaic.protocols import BoolArray, ConfidenceReader, Float32Array, Refiner
from geothresh.mosaic.reading import read_mirrored
from geothresh.windows import ChunkPlan, PixelWindow, TileGrid, TileGroup

_UNITS = 2.0**30
# The weights of a pixel add up to 1 and confidences are at most 1: sums stay below 2**31.


class Interrupted(Exception):
    """Raised inside a task whose run has already failed elsewhere; never seen by callers."""


class GuardedRefiner:
    """The one refiner of a process: called by one thread at a time, its output checked."""

    def __init__(self, refiner: Refiner) -> None:
        """Take the refiner into custody."""
        self.refiner = refiner
        self._lock = threading.Lock()

    def check(self, grid: TileGrid) -> None:
        """Raise UsageError where the grid does not keep to the refiner's patch."""
        patch = self.refiner.patch
        if grid.tile % patch or grid.stride % patch:
            raise UsageError(
                f"tile size {grid.tile} and overlap {grid.overlap}: model {self.refiner.name!r} "
                f"needs multiples of its patch, {patch}"
            )

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, float32 (batch, tile, tile).

        Raises:
            ModelError: The refiner gave another shape, or values that are not in [0, 1].
        """
        with self._lock:
            refined = self.refiner(tiles)
        if refined.shape != tiles.shape:
            raise ModelError(
                f"model {self.refiner.name!r}: gave an array of shape {refined.shape} "
                f"for tiles of shape {tiles.shape}; use a model that keeps the shape"
            )
        # NaN fails both comparisons, which is meant.
        if not (refined.min() >= 0 and refined.max() <= 1):
            raise ModelError(
                f"model {self.refiner.name!r}: gave values outside [0, 1], from "
                f"{refined.min():g} to {refined.max():g}; use a sound model file, "
                "or another precision"
            )
        return refined


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one group adds to one chunk."""

    window: PixelWindow
    """Pixels common to group and chunk."""
    total: NDArray[np.int32] | None
    """Weighted sum over the group's tiles in units of 2**-30, over ``window``; None = zero."""
    owned: PixelWindow | None
    """The pixels of the chunk whose validity this group reports, if any."""
    valid: BoolArray | None
    """Validity over ``owned``, True = valid; None = all valid."""
    tiles_refined: int = 0
    """Tiles the group refined; told to its first chunk only, so that sums count them once."""
    tiles_skipped: int = 0
    """Tiles the group skipped, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blended:
    """A finished chunk."""

    window: PixelWindow
    """Where it lies."""
    confidence: Float32Array
    """Float32 (height, width) in [0, 1], 0.0 where invalid."""
    valid: BoolArray
    """Bool (height, width), True = valid."""
    tiles_refined: int
    """Tiles refined by the groups that this chunk was the first to need."""
    tiles_skipped: int
    """Tiles skipped by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Blending weights of a grid."""

    rows: AxisWeights
    """Along a column of tiles."""
    cols: AxisWeights
    """Along a row of tiles."""

    @classmethod
    def build(cls, kind: Blend, grid: TileGrid) -> Weights:
        """Weights of ``grid`` for a blend."""
        return cls(
            rows=AxisWeights.build(kind, tile=grid.tile, overlap=grid.overlap, count=grid.n_rows),
            cols=AxisWeights.build(kind, tile=grid.tile, overlap=grid.overlap, count=grid.n_cols),
        )


def refine_group(
    group: TileGroup,
    *,
    plan: ChunkPlan,
    reader: ConfidenceReader,
    refiner: GuardedRefiner,
    weights: Weights,
    batch_size: int,
    on_tiles: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> dict[int, Part]:
    """Read, refine and weight the tiles of one group.

    Args:
        group: The tiles.
        plan: The plan that the group belongs to.
        reader: The raster.
        refiner: The model.
        weights: Weights of the plan's grid.
        batch_size: Most tiles in one call of the model.
        on_tiles: Told the number of tiles after each batch and for the skipped ones.
        stop: Once set, the task ends before its next batch.

    Returns:
        By chunk index, for every chunk that the group touches, what it adds there.

    Raises:
        Interrupted: ``stop`` was set.
    """
    grid = plan.grid
    tile, stride = grid.tile, grid.stride
    padded, valid = read_mirrored(
        reader,
        PixelWindow(
            row=group.window.row,
            col=group.window.col,
            height=tile,
            width=(group.n_tiles - 1) * stride + tile,
        ),
    )
    valid = valid[: group.window.height, : group.window.width]
    whole = bool(valid.all())
    live = [
        k for k in range(group.n_tiles) if whole or valid[:, k * stride : k * stride + tile].any()
    ]
    windows = {index: _common(group.window, plan.chunk(index).window) for index in group.chunks}
    totals = {
        index: np.zeros((window.height, window.width), np.int32) if live else None
        for index, window in windows.items()
    }
    skipped = group.n_tiles - len(live)
    if skipped and on_tiles:
        on_tiles(skipped)

    row_weights = weights.rows.of(group.row) * np.float32(_UNITS)
    products: dict[int, Float32Array] = {}
    units = np.empty((tile, tile), np.int32)
    for start in range(0, len(live), batch_size):
        if stop is not None and stop.is_set():
            raise Interrupted
        batch = live[start : start + batch_size]
        tiles = np.empty((len(batch), tile, tile), np.float32)
        for place, k in enumerate(batch):
            tiles[place] = padded[:, k * stride : k * stride + tile]
        refined = refiner(tiles)
        for place, k in enumerate(batch):
            case = weights.cols.case(group.col_start + k)
            if case not in products:
                products[case] = np.outer(row_weights, weights.cols.table[case])
            # `tiles` has served its purpose and takes the products.
            np.multiply(refined[place], products[case], out=tiles[place])
            np.copyto(units, tiles[place], casting="unsafe")
            for index, window in windows.items():
                _add_tile(totals[index], window, units, grid.window(group.row, group.col_start + k))
        if on_tiles:
            on_tiles(len(batch))
    return {
        index: _part(group, window, totals[index], valid, plan.chunk(index).window, skipped)
        for index, window in windows.items()
    }


def _common(first: PixelWindow, second: PixelWindow) -> PixelWindow:
    common = first.intersection(second)
    if common is None:
        raise AssertionError(f"the plan pairs {first} with {second}, which do not meet")
    return common


def _add_tile(
    total: NDArray[np.int32] | None,
    window: PixelWindow,
    units: NDArray[np.int32],
    tile: PixelWindow,
) -> None:
    common = window.intersection(tile)
    if total is not None and common is not None:
        total[common.within(window)] += units[common.within(tile)]


def _part(
    group: TileGroup,
    window: PixelWindow,
    total: NDArray[np.int32] | None,
    valid: BoolArray,
    chunk: PixelWindow,
    skipped: int,
) -> Part:
    owned = group.owned.intersection(chunk)
    owned_valid = None
    if owned is not None:
        owned_valid = valid[owned.within(group.window)]
        # A copy, so that the group's whole array is not kept for a piece of it.
        owned_valid = None if owned_valid.all() else owned_valid.copy()
    first = group.owned.row >= chunk.row and group.owned.col >= chunk.col
    return Part(
        window=window,
        total=total,
        owned=owned,
        valid=owned_valid,
        tiles_refined=group.n_tiles - skipped if first else 0,
        tiles_skipped=skipped if first else 0,
    )


def blend_chunk(window: PixelWindow, parts: Iterable[Part]) -> Blended:
    """Add up the parts of one chunk, in any order; they must be all that touch it."""
    shape = (window.height, window.width)
    total = np.zeros(shape, np.int32)
    valid = np.ones(shape, np.bool_)
    refined = skipped = 0
    for part in parts:
        refined += part.tiles_refined
        skipped += part.tiles_skipped
        if part.total is not None:
            total[part.window.within(window)] += part.total
        if part.owned is not None and part.valid is not None:
            valid[part.owned.within(window)] = part.valid
    confidence = total.astype(np.float32)
    confidence *= np.float32(1 / _UNITS)
    # Rounded weights can add up to a hair more than 1.
    np.minimum(confidence, np.float32(1), out=confidence)
    if not valid.all():
        confidence[~valid] = 0
    return Blended(
        window=window,
        confidence=confidence,
        valid=valid,
        tiles_refined=refined,
        tiles_skipped=skipped,
    )
