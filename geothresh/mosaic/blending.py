"""Blend tiles: the weights of tiles, weighted sums of groups, and chunks that are made of them.

The weight of a tile is the outer product of one profile per axis. Along each axis, the profiles of
all tiles that cover a pixel are divided by their sum, which depends on the grid only. So weights of
each pixel are known to add up to one before any pixel is read, and no border has weight zero.

Weighted tiles are summed as integers, in units of 2**-30. Integer sums do not depend on order, so
the result does not depend on groups, chunks, batches, threads or workers, to the last bit. Each
product of weight and confidence is truncated to the unit, 60 times finer than float32 near 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, cast, get_args

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.mosaic.protocols import (
    ChunkSink,
    Layers,
    LayerSink,
    MosaicStats,
    StripDone,
)
from geothresh.options import Blend
from geothresh.packed import PackedLayer
from geothresh.tiling import ChunkPlan, TileGrid, TileGroup
from geothresh.types import BoolArray, Float32Array, LayerArray
from geothresh.windows import PixelWindow

BLENDS: Final[tuple[Blend, ...]] = get_args(Blend)

_UNITS = 2.0**30
# The weights of a pixel add up to 1 and confidences are at most 1: sums stay below 2**31.
_BLENDED_AT_ONCE = 64
"""Rows of a chunk that are blended at a time, so that their sums stay in a core's cache."""
_PRODUCT_BYTES = 16 * 2**20
"""Most bytes of tile weights that are kept: all nine cases of tiles of the usual size."""

_GAUSSIAN_SIGMA = 1 / 8
"""Standard deviation divided by the tile's side; the profile falls to 3e-4 at the tile's edge."""


def blend_profile(kind: Blend, tile: int, overlap: int) -> NDArray[np.float64]:
    """Weight of one inner tile along one axis, before division by the sum over tiles.

    Args:
        kind: Which profile. ``hann``, ``gaussian`` and ``linear`` fall from the tile's centre to
            its edge and are positive everywhere; ``crop`` is 1 on the ``tile - overlap`` pixels
            in the middle and 0 outside.
        tile: Side of the tile in pixels.
        overlap: Pixels shared with the next tile; only ``crop`` depends on it.

    Returns:
        float64 of shape (tile,), in [0, 1].

    Raises:
        UsageError: ``kind`` is none of the four.
    """
    # Pixel centres are half a pixel inside of the edges, so the outermost weight is never zero.
    centre = np.arange(tile, dtype=np.float64) + 0.5
    if kind == "hann":
        return np.sin(np.pi * centre / tile) ** 2
    if kind == "gaussian":
        return np.exp(-0.5 * ((centre / tile - 0.5) / _GAUSSIAN_SIGMA) ** 2)
    if kind == "linear":
        return np.minimum(centre, tile - centre) / (tile / 2)
    if kind == "crop":
        margin = overlap // 2
        profile = np.zeros(tile)
        profile[margin : margin + tile - overlap] = 1.0
        return profile
    raise UsageError(f"blend {kind!r}: choose one of {', '.join(BLENDS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisWeights:
    """Normalised weights of all tiles along one axis; at every pixel they add up to one.

    Tiles far enough from both ends have the same weights and share one row of ``table``.
    """

    table: NDArray[np.float32]
    """Shape (distinct, tile), in [0, 1], read-only."""
    count: int
    """Number of tiles along the axis."""

    @classmethod
    def build(cls, kind: Blend, *, tile: int, overlap: int, count: int) -> AxisWeights:
        """Weights for ``count`` tiles of side ``tile`` (pixels), ``tile - overlap`` apart.

        Raises:
            UsageError: ``kind`` is none of the four.
        """
        # A tile overlaps `reach` others on each side: 2 * reach + 1 tiles have all distinct cases.
        stride = tile - overlap
        reach = -(-tile // stride) - 1
        distinct = min(count, 2 * reach + 1)
        profiles = np.tile(blend_profile(kind, tile, overlap), (distinct, 1))
        if kind == "crop":
            # No other tile covers the outer margins of the outermost tiles.
            margin = overlap // 2
            profiles[0, :margin] = 1.0
            profiles[-1, margin:] = 1.0
        total = np.zeros((distinct - 1) * stride + tile)
        for k in range(distinct):
            total[k * stride : k * stride + tile] += profiles[k]
        for k in range(distinct):
            profiles[k] /= total[k * stride : k * stride + tile]
        table = profiles.astype(np.float32)
        table.setflags(write=False)
        return cls(table=table, count=count)

    def case(self, index: int) -> int:
        """Row of ``table`` that holds the weights of tile ``index``, 0 <= index < count."""
        distinct = len(self.table)
        return max(min(index, distinct // 2), index - (self.count - distinct))

    def of(self, index: int) -> NDArray[np.float32]:
        """Weights of tile ``index``: float32 of shape (tile,)."""
        weights: NDArray[np.float32] = self.table[self.case(index)]
        return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Blending weights of a grid."""

    rows: AxisWeights
    """Weights along a column of tiles."""
    cols: AxisWeights
    """Weights along a row of tiles."""
    _products: dict[tuple[int, int], Float32Array] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Cache of products, by the cases along both axes."""

    @classmethod
    def build(cls, kind: Blend, grid: TileGrid) -> Weights:
        """The weights of a grid for a kind of blend."""
        return cls(
            rows=AxisWeights.build(kind, tile=grid.tile, overlap=grid.overlap, count=grid.n_rows),
            cols=AxisWeights.build(kind, tile=grid.tile, overlap=grid.overlap, count=grid.n_cols),
        )

    def of_tile(self, row: int, col: int) -> Float32Array:
        """Weights of the tile at tile row ``row`` and column ``col``, (tile, tile), times 2**30.

        Nearly all tiles of a raster share one array. It does no harm if two threads compute it at
        the same time.
        """
        case = self.rows.case(row), self.cols.case(col)
        product = self._products.get(case)
        if product is None:
            product = np.outer(self.rows.of(row) * np.float32(_UNITS), self.cols.of(col))
            if (len(self._products) + 1) * product.nbytes <= _PRODUCT_BYTES:
                self._products[case] = product
        return product


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
    """Tiles of the group with a valid pixel; counted in the part of its first chunk only."""
    tiles_skipped: int = 0
    """Tiles that the group skipped; also counted in that part only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blended:
    """The blended confidences of a chunk."""

    window: PixelWindow
    """The pixels of the chunk."""
    confidence: Float32Array
    """Float32 (height, width) in [0, 1], 0.0 where invalid."""
    valid: BoolArray
    """Bool (height, width), True = valid."""
    tiles_refined: int
    """Tiles refined by the groups that this chunk was the first to need."""
    tiles_skipped: int
    """Tiles that these groups skipped."""


def blend_chunk(window: PixelWindow, parts: Iterable[Part]) -> Blended:
    """Add up the parts of a chunk, in any order; they must be complete."""
    parts = list(parts)
    valid = np.ones((window.height, window.width), np.bool_)
    for part in parts:
        if part.owned is not None and part.valid is not None:
            valid[part.owned.within(window)] = part.valid
    sums = [(part.window, part.total) for part in parts if part.total is not None]
    confidence = np.empty(valid.shape, np.float32)
    for row in range(window.row, window.row_stop, _BLENDED_AT_ONCE):
        stop = min(row + _BLENDED_AT_ONCE, window.row_stop)
        rows = PixelWindow.between(row, stop, window.col, window.col_stop)
        _add_up(sums, rows, out=confidence[rows.within(window)])
    if not valid.all():
        confidence[~valid] = 0  # tiles that are partly valid are refined there, too
    return Blended(
        window=window,
        confidence=confidence,
        valid=valid,
        tiles_refined=sum(part.tiles_refined for part in parts),
        tiles_skipped=sum(part.tiles_skipped for part in parts),
    )


def _add_up(
    sums: Iterable[tuple[PixelWindow, NDArray[np.int32]]], window: PixelWindow, *, out: Float32Array
) -> None:
    """Compute the confidences of a window from the weighted sums that touch it."""
    total = np.zeros(out.shape, np.int32)
    for covered, addend in sums:
        common = covered.intersection(window)
        if common is not None:
            total[common.within(window)] += addend[common.within(covered)]
    np.multiply(total, np.float32(1 / _UNITS), out=out, dtype=np.float32, casting="unsafe")
    # Rounded weights can add up to slightly more than 1. Checking takes a tenth of clipping.
    if out.max() > 1:
        np.minimum(out, np.float32(1), out=out)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedChunk:
    """The layers of a chunk, which `Finish` has made."""

    window: PixelWindow
    """The pixels of the chunk."""
    values: tuple[LayerArray, ...]
    """The layers, (height, width) each; empty while they are sent from a worker, packed."""
    packed: tuple[PackedLayer, ...]
    """The packed layers; empty if they were not packed."""
    counts: tuple[tuple[str, int], ...]
    """Names and values of the counts (`Layers.counts`)."""
    tiles_refined: int
    """See `Blended.tiles_refined`."""
    tiles_skipped: int
    """See `Blended.tiles_skipped`."""

    @classmethod
    def of(cls, blended: Blended, layers: Layers, *, pack: bool) -> FinishedChunk:
        """Join a blended chunk and its layers, which are packed if `pack`."""
        return cls(
            window=blended.window,
            values=layers.values,
            packed=tuple(map(PackedLayer.of, layers.values)) if pack else (),
            counts=tuple(layers.counts.items()),
            tiles_refined=blended.tiles_refined,
            tiles_skipped=blended.tiles_skipped,
        )

    def for_travel(self) -> FinishedChunk:
        """A copy with the packed layers only, to be sent to another process."""
        return replace(self, values=())

    def layers(self) -> Layers:
        """The layers, unpacked if necessary."""
        values = self.values or tuple(layer.unpack() for layer in self.packed)
        return Layers(values=values, counts=dict(self.counts))


def deliver(chunk: Blended | FinishedChunk, sink: ChunkSink | LayerSink) -> None:
    """Pass a chunk to the sink: its layers if it has them, else its confidences."""
    if isinstance(chunk, FinishedChunk):
        cast(LayerSink, sink)(chunk.window, chunk.layers(), chunk.packed)
    else:
        cast(ChunkSink, sink)(chunk.window, chunk.confidence, chunk.valid)


class StripCounter:
    """Counts the tiles of finished chunks, and reports each strip when it is complete."""

    def __init__(self, plan: ChunkPlan, done: StripDone | None, *, start: int) -> None:
        """Start counting.

        Args:
            plan: the chunks.
            done: called for each complete strip.
            start: first strip to be made, from 0; an earlier run made those above it.
        """
        self._plan = plan
        self._done = done
        self._refined = self._skipped = 0
        self._reported_refined = self._reported_skipped = 0
        self._start = start
        self.first_chunk = start * plan.chunks_per_strip
        """Index of the first chunk to be made."""

    def starting(self, chunk: int) -> list[TileGroup]:
        """The groups that a chunk is the first of the chunks to be made to need."""
        return self._plan.groups_from(chunk, first=self.first_chunk)

    def is_new(self, group: TileGroup) -> bool:
        """Whether no strip above needed the group, so that its tiles have not been counted."""
        return group.chunks[0] >= self.first_chunk

    @property
    def tiles_before(self) -> int:
        """Tiles that strips above needed."""
        return self._plan.tiles_before(self._start)

    @property
    def tiles(self) -> int:
        """Tiles of the chunks counted so far."""
        return self._refined + self._skipped

    def count(self, chunk: Blended | FinishedChunk) -> None:
        """Count a chunk that the sink has taken; the next one in raster order."""
        self._refined += chunk.tiles_refined
        self._skipped += chunk.tiles_skipped
        if chunk.window.col_stop < self._plan.written.col_stop:
            return
        refined = self._refined - self._reported_refined
        skipped = self._skipped - self._reported_skipped
        self._reported_refined, self._reported_skipped = self._refined, self._skipped
        if self._done is not None:
            self._done(refined, skipped)

    def stats(self) -> MosaicStats:
        """The statistics of the run so far."""
        return MosaicStats(
            tiles=self._plan.n_tiles,
            tiles_refined=self._refined,
            tiles_skipped=self._skipped,
        )
