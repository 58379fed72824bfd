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
    """A raster that tiles are read from: confidences, or an image of several bands.

    ``read`` is called from several threads at once, and only with windows inside the raster.
    """

    @property
    def size(self) -> RasterSize:
        """Extent of the raster."""
        ...

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read one window.

        Returns:
            The confidence, float32 (height, width) in [0, 1], which the network sees where it is
            invalid too: 0.0 where there is no data; or
            the bands of an image, float32 (bands, height, width), with one value per band, always
            the same, where it is invalid. And the validity, bool (height, width), True = valid.
            Neither is changed by the engine.
        """
        ...


class ReaderSpec(Hashable, Protocol):
    """A small, frozen, picklable description from which a process opens its own reader."""

    def open(self) -> RasterReader:
        """Open the raster that this describes."""
        ...


class Refiner(Protocol):
    """A model that corrects confidence tiles, or makes confidences of tiles of an image.

    It is called by one thread at a time; one that has an attribute ``parallel_calls``, by so many.
    One whose ``takes_views`` is True gets tiles that it must not write to: they overlap in memory.
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
        """sha256 of the model, hexadecimal; empty for what is not a file."""
        ...

    def __call__(self, tiles: Float32Array, /) -> Float32Array:
        """Refine tiles.

        Args:
            tiles: float32 (batch, tile, tile) in [0, 1], or (batch, bands, tile, tile) where the
                reader gives bands. Without gaps: nodata is what the reader puts there, and what
                lies beyond the raster mirrors it.

        Returns:
            float32 (batch, tile, tile) in [0, 1]. The engine does not write into it.
        """
        ...


class RefinerSource(Hashable, Protocol):
    """A small, frozen, picklable description from which a process loads its own refiner.

    It is not callable, which tells it from a refiner.
    """

    @property
    def patch(self) -> int:
        """As the refiner's, known before it is loaded."""
        ...

    def load(self, *, cores: int | None = None) -> Refiner:
        """Load the model that this describes.

        Args:
            cores: Processor cores that it may use; by default all that its library takes.
        """
        ...


class ChunkSink(Protocol):
    """Takes finished chunks in raster order, one call at a time."""

    def __call__(self, window: PixelWindow, confidence: Float32Array, valid: BoolArray, /) -> None:
        """Store one chunk.

        Args:
            window: Where it lies; chunks are disjoint and cover the raster.
            confidence: float32 (height, width) in [0, 1], 0.0 where it is invalid.
            valid: bool (height, width), True = valid.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Arrays to be stored for a finished chunk."""

    values: tuple[LayerArray, ...]
    """Each (height, width)."""
    counts: Mapping[str, int]
    """What was counted on the way, to be summed over chunks."""


class Finish(Hashable, Protocol):
    """Makes layers of a finished chunk where it was blended; small, frozen and picklable.

    Layers are a fraction of the confidences they are made of, which need not go from one process
    to another then.
    """

    def __call__(
        self,
        reader: RasterReader,
        window: PixelWindow,
        confidence: Float32Array,
        valid: BoolArray,
        /,
    ) -> Layers:
        """Make them; several threads do so at once, each for a chunk, in any order.

        Args:
            reader: The raster; on local threads the reader that tiles were read with.
            window: Where the chunk lies.
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
            window: Where it lies.
            layers: The layers.
            packed: The same, packed where they were made; of no length if that was not asked for.
        """
        ...


StripDone = Callable[[int, int], None]
"""Called with (tiles refined, tiles skipped) once the sink has the last chunk of a strip: the tiles
that this strip was the first to need. Strips come from the top; the sink is not called meanwhile.
"""


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
    """Rows and columns of a block of the output. Chunks are whole blocks, and so larger than asked
    for if need be."""
    finish: Finish | None = None
    """Makes layers of each chunk, in the worker process where there is one."""
    pack: bool = True
    """Whether the layers are wanted packed as well, of local threads too."""
    start_strip: int = 0
    """First strip to be made, from 0; those above it were made by an earlier run."""
    on_strip: StripDone | None = None
    """Told when the sink has all chunks of a strip."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of this process."""

    number: int | None = None
    """By default 3 or 4, more for a GPU, of which ``parallel_calls`` of the refiner call it at
    once. 0 does everything in the calling thread."""

    def __post_init__(self) -> None:
        if self.number is not None and self.number < 0:
            raise UsageError(f"{self.number} threads: give at least 0")


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker processes of this machine, started for the run."""

    number: int
    """At most so many; no more than there are chunks."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise UsageError(f"{self.number} workers: give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """The workers of a running Dask cluster."""

    address: str
    """Of its scheduler: ``tcp://HOST:PORT`` or ``tls://HOST:PORT``."""


Where: TypeAlias = Threads | Workers | Scheduler
"""Where tiles are refined."""


def where_asked(workers: int, scheduler: str | None = None) -> Where:
    """Local threads, unless worker processes or the address of a scheduler are asked for."""
    if scheduler is not None:
        return Scheduler(address=scheduler)
    return Workers(workers) if workers else Threads()


@dataclass(frozen=True, slots=True, kw_only=True)
class MosaicStats:
    """Statistics of a run."""

    tiles: int
    """Tiles of the grid."""
    tiles_refined: int
    """Tiles with a valid pixel; each went through the refiner, but equal tiles of one value
    throughout may have shared a pass."""
    tiles_skipped: int
    """Tiles without a valid pixel, which did not."""
