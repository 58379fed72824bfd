"""The two tasks of a mosaic: refine a group of tiles, and blend a chunk of their weighted sums.

Shares are summed as integers, in units of 2**-30: integer sums do not depend on their order, so
neither does the result depend on groups, chunks, batches, threads or workers, to the last bit.
Each product of weight and confidence is cut to the unit, 60 times finer than float32 near 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from geothresh.blending import AxisWeights
from geothresh.layers import PackedLayer
from geothresh.mosaic.protocols import (
    ChunkSink,
    Layers,
    LayerSink,
    RasterReader,
)
from geothresh.mosaic.reading import read_mirrored
from geothresh.mosaic.refiners import GuardedRefiner, flat_value
from geothresh.options import Blend
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.windows import ChunkPlan, PixelWindow, TileGrid, TileGroup

_UNITS = 2.0**30
# The weights of a pixel add up to 1 and confidences are at most 1: sums stay below 2**31.
_PRODUCT_BYTES = 16 * 2**20
"""Weights of whole tiles that are kept: of the usual tiles all nine that there are."""


class Stop(Protocol):
    """Cancellation flag, looked at before each batch; a `threading.Event` is one."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...


class Interrupted(Exception):
    """Raised inside a task whose run has already failed elsewhere; never seen by callers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Weighted sum and validity that one group contributes to one chunk."""

    window: PixelWindow
    """Pixels common to group and chunk."""
    total: NDArray[np.int32] | None
    """Weighted sum over the group's tiles in units of 2**-30, over ``window``; None = zero."""
    owned: PixelWindow | None
    """The pixels of the chunk whose validity this group reports, if any."""
    valid: BoolArray | None
    """Validity over ``owned``, True = valid; None = all valid."""
    tiles_refined: int = 0
    """Tiles of the group with a valid pixel; told to its first chunk alone, to count them once."""
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
    _products: dict[tuple[int, int], Float32Array] = field(
        default_factory=dict, repr=False, compare=False
    )
    """By the cases along both axes, the products made so far that are kept."""

    @classmethod
    def build(cls, kind: Blend, grid: TileGrid) -> Weights:
        """Weights of ``grid`` for a blend."""
        return cls(
            rows=AxisWeights.build(kind, tile=grid.tile, overlap=grid.overlap, count=grid.n_rows),
            cols=AxisWeights.build(kind, tile=grid.tile, overlap=grid.overlap, count=grid.n_cols),
        )

    def of_tile(self, row: int, col: int) -> Float32Array:
        """Weights of the tile at tile row ``row`` and column ``col``, (tile, tile), times 2**30.

        Nearly all tiles of a raster share one array. Two threads may make it at the same time,
        which does no harm.
        """
        case = self.rows.case(row), self.cols.case(col)
        found = self._products.get(case)
        if found is None:
            found = np.outer(self.rows.of(row) * np.float32(_UNITS), self.cols.of(col))
            if (len(self._products) + 1) * found.nbytes <= _PRODUCT_BYTES:
                self._products[case] = found
        return found


def refine_group(
    group: TileGroup,
    *,
    plan: ChunkPlan,
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
        on_tiles: Told the number of tiles after each batch, for the skipped ones, and for those
            of one value throughout.
        stop: Once set, the task ends before its next batch.

    Returns:
        By chunk index, for every chunk that the group touches, what it adds there.

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
        refined = refiner(np.stack([tiles[k] for k in batch]))
        if shares is not None:
            for k, confidence in zip(batch, refined, strict=True):
                shares.add(k, confidence)
        done(len(batch))
    return {
        chunk: _part(
            group,
            plan.chunk(chunk).window,
            shares.totals[chunk] if shares is not None else None,
            valid,
            skipped,
        )
        for chunk in group.chunks
    }


class _Shares:
    """Accumulates the weighted tiles of a group, separately for each chunk it touches."""

    def __init__(self, group: TileGroup, plan: ChunkPlan, weights: Weights) -> None:
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
        # Products of float32, cut to integers as they are stored, in one pass over the memory.
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
    chunk: PixelWindow,
    total: NDArray[np.int32] | None,
    valid: BoolArray,
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
        window=_common(group.window, chunk),
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
    confidence = np.multiply(total, np.float32(1 / _UNITS), dtype=np.float32, casting="unsafe")
    # Rounded weights can add up to a hair more than 1. Looking takes a tenth of what cutting does.
    if confidence.max() > 1:
        np.minimum(confidence, np.float32(1), out=confidence)
    if not valid.all():
        confidence[~valid] = 0  # partly valid tiles were refined there too
    return Blended(
        window=window,
        confidence=confidence,
        valid=valid,
        tiles_refined=refined,
        tiles_skipped=skipped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The layers of a chunk."""

    window: PixelWindow
    """Where it lies."""
    values: tuple[UInt8Array, ...]
    """Each (height, width); none where they are on their way from a worker, packed."""
    packed: tuple[PackedLayer, ...]
    """The same, packed; none where that was not asked for."""
    counts: tuple[tuple[str, int], ...]
    """What was counted on the way."""
    tiles_refined: int
    """As the chunk's."""
    tiles_skipped: int
    """As the chunk's."""

    @classmethod
    def of(cls, blended: Blended, layers: Layers, *, pack: bool) -> Finished:
        """Take the layers of a chunk, and pack them if asked to."""
        return cls(
            window=blended.window,
            values=layers.values,
            packed=tuple(map(PackedLayer.of, layers.values)) if pack else (),
            counts=tuple(layers.counts.items()),
            tiles_refined=blended.tiles_refined,
            tiles_skipped=blended.tiles_skipped,
        )

    def for_travel(self) -> Finished:
        """The same, packed alone."""
        return replace(self, values=())

    def layers(self) -> Layers:
        """The layers as they were made."""
        values = self.values or tuple(layer.unpack() for layer in self.packed)
        return Layers(values=values, counts=dict(self.counts))


def deliver(chunk: Blended | Finished, sink: ChunkSink | LayerSink) -> None:
    """Hand a chunk to its sink, which takes layers where it is finished."""
    if isinstance(chunk, Finished):
        cast(LayerSink, sink)(chunk.window, chunk.layers(), chunk.packed)
    else:
        cast(ChunkSink, sink)(chunk.window, chunk.confidence, chunk.valid)
