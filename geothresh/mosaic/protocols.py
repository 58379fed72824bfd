"""Protocols of the engine: readers, refiners and sinks, and the statistics of a run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Protocol, TypeAlias

from geothresh.errors import UsageError
from geothresh.packed import PackedLayer
from geothresh.types import BoolArray, Float32Array, LayerArray
from geothresh.windows import PixelWindow, RasterSize


class RasterReader(Protocol):
    """A raster whose tiles are refined: confidences, or an image of several bands.

    ``read`` is called from several threads at once, and only with windows inside the raster.
    """

    @property
    def size(self) -> RasterSize:
        """Extent of the raster."""
        ...

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read one window.

        Returns:
            values: The confidence, float32 (height, width) in [0, 1]; or the bands of an image,
                float32 (bands, height, width). The network sees invalid pixels, too: confidences
                are 0.0 where there is no data, and each band of an image has one constant value.
            valid: bool (height, width), True = valid.

            The engine does not write into these arrays.
        """
        ...


class ReaderSpec(Hashable, Protocol):
    """A small, frozen, picklable description with which a process opens its own reader."""

    def open(self) -> RasterReader:
        """Open the raster that this describes."""
        ...


class Refiner(Protocol):
    """A model that corrects confidence tiles, or computes confidences from tiles of an image.

    One thread at a time calls it, or as many as its attribute ``parallel_calls``, if it has one. If
    its attribute ``takes_views`` is True, it must not write to tiles: they overlap in memory.
    """

    @property
    def patch(self) -> int:
        """Tile side and stride must be multiples of this many pixels."""
        ...

    @property
    def name(self) -> str:
        """The model's name, for messages and tags."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of the model file, hexadecimal; empty if there is no file."""
        ...

    def __call__(self, tiles: Float32Array, /) -> Float32Array:
        """Refine tiles.

        Args:
            tiles: float32 (batch, tile, tile) in [0, 1], or (batch, bands, tile, tile) if the
                reader gives bands. Missing pixels have the value that the reader gives them, and
                pixels beyond the raster mirror it.

        Returns:
            float32 (batch, tile, tile) in [0, 1]. The engine does not write into it.
        """
        ...


class RefinerSource(Hashable, Protocol):
    """A small, frozen, picklable description with which a process loads its own refiner.

    It is not callable, which distinguishes it from a refiner.
    """

    @property
    def patch(self) -> int:
        """The refiner's patch, known before it is loaded."""
        ...

    def load(self, *, cores: int | None = None) -> Refiner:
        """Load the model that this describes.

        Args:
            cores: Processor cores that it may use; by default all that its library uses.
        """
        ...


class ChunkSink(Protocol):
    """Takes finished chunks in raster order, one call at a time."""

    def __call__(self, window: PixelWindow, confidence: Float32Array, valid: BoolArray, /) -> None:
        """Store one chunk.

        Args:
            window: The pixels of the chunk; chunks are disjoint and cover the raster.
            confidence: float32 (height, width) in [0, 1], 0.0 where it is invalid.
            valid: bool (height, width), True = valid.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The arrays that are stored for a finished chunk."""

    values: tuple[LayerArray, ...]
    """The arrays, (height, width) each."""
    counts: Mapping[str, int]
    """Counts over the chunk by name, which are summed over all chunks."""


class Finish(Hashable, Protocol):
    """Makes the layers of a chunk in the process that blended it; small, frozen and picklable.

    Layers are far smaller than the confidences, which then need not be sent to another process.
    """

    def __call__(
        self,
        reader: RasterReader,
        window: PixelWindow,
        confidence: Float32Array,
        valid: BoolArray,
        /,
    ) -> Layers:
        """Make the layers of a chunk; called by several threads at once, in any order.

        Args:
            reader: The raster; on local threads, the reader of the tiles.
            window: The pixels of the chunk.
            confidence: float32 (height, width) in [0, 1], 0.0 where it is invalid.
            valid: bool (height, width), True = valid.
        """
        ...


class LayerSink(Protocol):
    """Takes the layers of chunks in raster order, one call at a time."""

    def __call__(
        self, window: PixelWindow, layers: Layers, packed: Sequence[PackedLayer], /
    ) -> None:
        """Store one chunk.

        Args:
            window: The pixels of the chunk.
            layers: The layers.
            packed: The packed layers; empty if `Sink.pack` is False.
        """
        ...


StripDone = Callable[[int, int], None]
"""Called with (tiles refined, tiles skipped) when the sink has the last chunk of a strip: counts of
the tiles that this strip was the first to need. Strips come from top to bottom; the sink is not
called at the same time."""


@dataclass(frozen=True, slots=True)
class Sink:
    """Where finished chunks go, and in what form."""

    store: ChunkSink | LayerSink
    """Takes the chunks, or with `finish` their layers; called by one thread at a time."""
    _: KW_ONLY
    chunk_height: int | None = None
    """Rows of a chunk; by default 512."""
    chunk_width: int | None = None
    """Most columns of a chunk; by default 2048, for worker processes 4096."""
    block: tuple[int, int] = (1, 1)
    """Rows and columns of a block of the output. Chunks are rounded up to whole blocks."""
    finish: Finish | None = None
    """Makes layers of each chunk, in the worker process if there are workers."""
    pack: bool = True
    """Whether local threads pack the layers, too; worker processes always do."""
    start_strip: int = 0
    """First strip to be made, from 0; an earlier run made those above it."""
    on_strip: StripDone | None = None
    """Called when the sink has all chunks of a strip."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of this process."""

    number: int | None = None
    """Number of threads; ``parallel_calls`` of them call the refiner at once. 0 = everything runs
    in the calling thread. None = at least 3, more for a GPU, see `default_threads`."""

    def __post_init__(self) -> None:
        if self.number is not None and self.number < 0:
            raise UsageError(f"{self.number} threads: give at least 0")


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker processes of this machine, started for the run."""

    number: int
    """Most workers; not more are started than there are chunks."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise UsageError(f"{self.number} workers: give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """The workers of a running Dask cluster."""

    address: str
    """Address of its scheduler: ``tcp://HOST:PORT`` or ``tls://HOST:PORT``."""


Where: TypeAlias = Threads | Workers | Scheduler
"""Where tiles are refined."""


def where_asked(workers: int, scheduler: str | None = None) -> Where:
    """A running cluster if `scheduler` is given, else `workers` processes, else local threads."""
    if scheduler is not None:
        return Scheduler(address=scheduler)
    return Workers(workers) if workers else Threads()


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicStats:
    """Statistics of a run."""

    tiles: int
    """Tiles of the grid."""
    tiles_refined: int
    """Tiles with a valid pixel. All were refined; equal tiles with one value throughout may have
    shared a pass."""
    tiles_skipped: int
    """Tiles without a valid pixel, which were not refined."""
