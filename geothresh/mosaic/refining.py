"""Refine a group of tiles: read it in one go, call the model, weight the results.

Each process loads the model once. The number of threads that call it at once is limited, and its
output is checked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from geothresh.errors import ModelError
from geothresh.mosaic.blending import Part, Weights
from geothresh.mosaic.protocols import (
    RasterReader,
    Refiner,
    RefinerSource,
)
from geothresh.mosaic.readers import read_mirrored
from geothresh.tiling import Chunk, TileGrid, TileGroup
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow

# Refined flat tiles that are kept.
_REMEMBERED = 4
_loading = threading.Lock()


def parallel_calls(refiner: Refiner) -> int:
    """Number of threads that may call a refiner at once: its ``parallel_calls``, 1 without one."""
    return int(getattr(refiner, "parallel_calls", 1))


class GuardedRefiner:
    """A refiner with a limit on concurrent calls and a check of its output."""

    def __init__(self, refiner: Refiner) -> None:
        """Wrap a refiner; its ``parallel_calls`` is the limit, 1 without one."""
        self.refiner = refiner
        self.parallel_calls = parallel_calls(refiner)
        """Number of threads that may call the refiner at once."""
        self.takes_views = bool(getattr(refiner, "takes_views", False))
        """Whether tiles may be views of one array, to which the refiner does not write."""
        self._calls = threading.Semaphore(self.parallel_calls)
        self._flat_lock = threading.Lock()
        self._flat: OrderedDict[tuple[bytes, int], Float32Array] = OrderedDict()

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, float32 (batch, [bands,] tile, tile), and give (batch, tile, tile).

        Raises:
            ModelError: The refiner gave another shape, or values that are not in [0, 1].
        """
        with self._calls:
            refined = self.refiner(tiles)
        return self._checked(refined, tiles)

    def flat(self, value: Float32Array, tile: int) -> Float32Array:
        """Refine a tile that is ``value``, ([bands,] 1, 1), everywhere; gives (tile, tile).

        Empty land and open water give many such tiles. Equal ones need only one pass of the model:
        the last few results are kept.

        Raises:
            ModelError: See `__call__`.
        """
        with self._flat_lock:
            key = (value.tobytes(), tile)
            refined = self._flat.pop(key, None)
            if refined is None:
                shape = (1, *value.shape[:-2], tile, tile)
                refined = self(np.full(shape, value, np.float32))[0]
                if len(self._flat) == _REMEMBERED:
                    self._flat.popitem(last=False)
            self._flat[key] = refined
            return refined

    def _checked(self, refined: Float32Array, tiles: Float32Array) -> Float32Array:
        name = self.refiner.name
        if refined.shape != (len(tiles), *tiles.shape[-2:]):
            raise ModelError(
                f"model {name!r}: gave an array of shape {refined.shape} for tiles of shape "
                f"{tiles.shape}; use a model that keeps the shape"
            )
        # NaN fails both comparisons, as it should.
        if not (refined.min() >= 0 and refined.max() <= 1):
            raise ModelError(
                f"model {name!r}: gave values from {refined.min():g} to {refined.max():g} instead "
                "of 0 to 1; use a sound model file, or another precision"
            )
        return refined


@lru_cache(maxsize=1)
def _load(source: RefinerSource, cores: int | None) -> GuardedRefiner:
    return GuardedRefiner(source.load(cores=cores))


def load_refiner(refiner: Refiner | RefinerSource, *, cores: int | None = None) -> GuardedRefiner:
    """Guard a refiner; that of a source is loaded and cached.

    Only the refiner of the last source is kept, so that there are never two models in memory.

    Args:
        refiner: The model, or a source that loads it.
        cores: Processor cores that a loaded model may use; by default all that its library uses.
    """
    if callable(refiner):
        return GuardedRefiner(refiner)
    with _loading:  # lru_cache alone would let two threads load the same model
        return _load(refiner, cores)


def flat_value(tile: Float32Array) -> Float32Array | None:
    """The value of a flat tile ([bands,] height, width), as ([bands,] 1, 1); None if not flat."""
    value = tile[..., :1, :1]
    # For nearly all tiles, comparing the first row is enough.
    if (tile[..., :1, :] == value).all() and (tile == value).all():
        return value.copy()
    return None


class Stop(Protocol):
    """Cancellation flag that is checked before each batch, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


class Plan(Protocol):
    """Where tiles and chunks lie, such as a `ChunkPlan`."""

    @property
    def grid(self) -> TileGrid:
        """The tiles."""
        ...

    def chunk(self, index: int) -> Chunk:
        """A chunk that a group touches."""
        ...


class Interrupted(Exception):
    """Raised inside a task whose run has already failed elsewhere; never seen by callers."""


def refine_group(
    group: TileGroup,
    *,
    plan: Plan,
    reader: RasterReader,
    refiner: GuardedRefiner,
    weights: Weights,
    batch_size: int,
    on_tiles: Callable[[int], None] | None = None,
    stop: Stop | None = None,
) -> dict[int, Part]:
    """Read, refine and weight the tiles of one group.

    Args:
        group: The tiles.
        plan: The plan that the group belongs to.
        reader: The raster.
        refiner: The model.
        weights: Weights of the plan's grid.
        batch_size: Most tiles in one call of the model.
        on_tiles: Called with a number of tiles after each batch, for the skipped tiles, and for
            the flat ones.
        stop: Once set, the task ends before its next batch.

    Returns:
        The part that the group contributes to each chunk that it touches, by chunk index.

    Raises:
        Interrupted: ``stop`` was set.
    """
    tile, stride = plan.grid.tile, plan.grid.stride
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
    tiles = {k: padded[..., k * stride : k * stride + tile] for k in range(group.n_tiles)}
    if not valid.all():
        tiles = {k: t for k, t in tiles.items() if valid[:, k * stride : k * stride + tile].any()}
    skipped = group.n_tiles - len(tiles)
    shares = _Shares(group, plan, weights) if tiles else None

    def done(count: int) -> None:
        if on_tiles and count:
            on_tiles(count)
        if stop is not None and stop.is_set():
            raise Interrupted

    done(skipped)
    several = []
    for k, values in tiles.items():
        value = flat_value(values)
        if value is None:
            several.append(k)
        elif shares is not None:
            shares.add(k, refiner.flat(value, tile))
    done(len(tiles) - len(several))
    for start in range(0, len(several), batch_size):
        batch = several[start : start + batch_size]
        refined = refiner(_batch(padded, batch, plan.grid, views=refiner.takes_views))
        if shares is not None:
            for k, confidence in zip(batch, refined, strict=True):
                shares.add(k, confidence)
        done(len(batch))
    return {
        chunk: _part(
            group,
            plan.chunk(chunk),
            shares.totals[chunk] if shares is not None else None,
            valid,
            skipped,
        )
        for chunk in group.chunks
    }


def _batch(padded: Float32Array, batch: list[int], grid: TileGrid, *, views: bool) -> Float32Array:
    """A batch of tiles of a row for the refiner, (batch, [bands,] tile, tile).

    Args:
        padded: the row, ([bands,] tile, width).
        batch: indices of the tiles in the row, ascending.
        grid: tile side and stride.
        views: whether neighbouring tiles may be read-only views of the row, which saves a copy.
    """
    tile, stride = grid.tile, grid.stride
    if views and batch[-1] - batch[0] == len(batch) - 1:
        row = padded[..., batch[0] * stride : batch[-1] * stride + tile]
        return np.moveaxis(sliding_window_view(row, tile, axis=-1)[..., ::stride, :], -2, 0)
    return np.stack([padded[..., k * stride : k * stride + tile] for k in batch])


class _Shares:
    """Accumulates the weighted tiles of a group, separately for each chunk it touches."""

    def __init__(self, group: TileGroup, plan: Plan, weights: Weights) -> None:
        self._group = group
        self._grid = plan.grid
        self._weights = weights
        self._units = np.empty((plan.grid.tile, plan.grid.tile), np.int32)
        self._windows = {
            chunk: _common(group.window, plan.chunk(chunk).window) for chunk in group.chunks
        }
        self.totals = {
            chunk: np.zeros((window.height, window.width), np.int32)
            for chunk, window in self._windows.items()
        }

    def add(self, k: int, refined: Float32Array) -> None:
        """Add the refined tile ``k`` of the group, (tile, tile)."""
        col = self._group.col_start + k
        # float32 products are truncated to integers when stored, in one pass over the memory.
        np.multiply(
            refined,
            self._weights.of_tile(self._group.row, col),
            out=self._units,
            dtype=np.float32,
            casting="unsafe",
        )
        tile = self._grid.window(self._group.row, col)
        for chunk, window in self._windows.items():
            common = window.intersection(tile)
            if common is not None:
                self.totals[chunk][common.within(window)] += self._units[common.within(tile)]


def _common(first: PixelWindow, second: PixelWindow) -> PixelWindow:
    common = first.intersection(second)
    if common is None:
        raise AssertionError(f"the plan pairs {first} with {second}, which do not meet")
    return common


def _part(
    group: TileGroup,
    chunk: Chunk,
    total: NDArray[np.int32] | None,
    valid: BoolArray,
    skipped: int,
) -> Part:
    owned = group.owned.intersection(chunk.window)
    owned_valid = None
    if owned is not None:
        owned_valid = valid[owned.within(group.window)]
        # A copy, so that the group's whole array is not kept in memory for a piece of it.
        owned_valid = None if owned_valid.all() else owned_valid.copy()
    counts = chunk.index == group.chunks[0]
    return Part(
        window=_common(group.window, chunk.window),
        total=total,
        owned=owned,
        valid=owned_valid,
        tiles_refined=group.n_tiles - skipped if counts else 0,
        tiles_skipped=skipped if counts else 0,
    )
