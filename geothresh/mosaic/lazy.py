"""Build the graph that refines a Dask array into another one, without computing anything.

The graph is complete before any pixel is read. The tile grid begins at the array's first pixel, as
it does over a file, whatever the chunks are. There are four kinds of tasks, by their keys:

- ``geothresh-pixels-…``: the part of an input chunk that a group of tiles reads, if it is not the
  whole chunk, so that a worker receives only the border of a neighbour;
- ``geothresh-tiles-…``: reads a group of tiles from these parts, and refines and weights it, once;
- ``geothresh-share-…``: the contribution of a group to one of the chunks that it touches;
- the chunks themselves, which blend all groups that touch them.

Dask computes only the tasks that are needed: a slice of the result needs the groups that touch it.
"""

from __future__ import annotations

import sys
import threading
import uuid
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import getitem
from typing import Any, Protocol, TypeAlias

import dask.array as da
import numpy as np
from dask.base import compute, tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.mosaic.blending import Part, Weights, blend_chunk
from geothresh.mosaic.engine import group_tiles
from geothresh.mosaic.protocols import RasterReader, Refiner, RefinerSource
from geothresh.mosaic.readers import Decode, PiecesReader, window_read
from geothresh.mosaic.refining import GuardedRefiner, load_refiner, refine_group
from geothresh.mosaic.sizes import tell_dask
from geothresh.options import Blend
from geothresh.tiling import Chunk, TileGrid, TileGroup
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow

Key: TypeAlias = tuple[Any, ...]
"""Key of a task or chunk: a name and numbers."""

tell_dask()


class FinishArray(Protocol):
    """Makes a chunk of the result from blended confidences; small and picklable."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the result's values."""
        ...

    @property
    def reads_input(self) -> bool:
        """Whether it reads the chunk's input again."""
        ...

    def __call__(
        self, reader: RasterReader, window: PixelWindow, confidence: Float32Array, valid: BoolArray
    ) -> NDArray[Any]:
        """Make the chunk, (height, width); the arguments are those of `Finish`."""
        ...


class _SharedRefiner:
    """A refiner or its source, which all tasks of a process load and guard only once."""

    def __init__(self, refiner: Refiner | RefinerSource) -> None:
        self._refiner = refiner
        self._guarded = GuardedRefiner(refiner) if callable(refiner) else None

    def __reduce__(self) -> tuple[type[_SharedRefiner], tuple[Refiner | RefinerSource]]:
        return _SharedRefiner, (self._refiner,)

    def guarded(self) -> GuardedRefiner:
        """The refiner, which a source loads first."""
        if self._guarded is not None:
            return self._guarded
        return load_refiner(self._refiner, cores=_cores())


def _cores() -> int | None:
    """Cores for a model: the number of threads of a Dask worker; None = all, outside of one."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return int(get_worker().state.nthreads)
        except ValueError:  # not a worker, but for example a process with a client
            return None
    return None


_weighing = threading.Lock()


@lru_cache(maxsize=4)
def _weights(blend: Blend, grid: TileGrid) -> Weights:
    return Weights.build(blend, grid)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The arguments that all tasks share: picklable, and small if the refiner is a source."""

    grid: TileGrid
    blend: Blend
    batch_size: int
    refiner: _SharedRefiner
    decode: Decode
    finish: FinishArray

    def reader(self, pieces: Sequence[tuple[PixelWindow, NDArray[Any]]]) -> PiecesReader:
        return PiecesReader(size=self.grid.size, pieces=pieces, decode=self.decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupPlan:
    """The part of a plan that one group needs, see `geothresh.mosaic.refining.Plan`."""

    grid: TileGrid
    windows: tuple[tuple[int, PixelWindow], ...]

    def chunk(self, index: int) -> Chunk:
        return Chunk(index=index, window=dict(self.windows)[index])


def _refine(
    job: _Job,
    group: TileGroup,
    windows: tuple[tuple[int, PixelWindow], ...],
    read: tuple[PixelWindow, ...],
    pixels: list[NDArray[Any]],
) -> dict[int, Part]:
    with _weighing:
        weights = _weights(job.blend, job.grid)
    return refine_group(
        group,
        plan=_GroupPlan(grid=job.grid, windows=windows),
        reader=job.reader(list(zip(read, pixels, strict=True))),
        refiner=job.refiner.guarded(),
        weights=weights,
        batch_size=job.batch_size,
    )


def _only(shares: dict[int, Part]) -> Part:
    (part,) = shares.values()
    return part


def _blend(
    job: _Job, window: PixelWindow, parts: list[Part], stored: NDArray[Any] | None
) -> NDArray[Any]:
    blended = blend_chunk(window, parts)
    reader = job.reader([] if stored is None else [(window, stored)])
    return job.finish(reader, window, blended.confidence, blended.valid)


class _Chunks:
    """The chunks of a Dask array, of any sizes."""

    def __init__(self, chunks: tuple[tuple[int, ...], ...]) -> None:
        self._rows, self._columns = (list(accumulate(axis, initial=0)) for axis in chunks)
        self.columns = len(chunks[1])
        self.count = len(chunks[0]) * self.columns

    def position(self, index: int) -> tuple[int, int]:
        """Row and column of a chunk among the chunks."""
        return divmod(index, self.columns)

    def window(self, index: int) -> PixelWindow:
        """The pixels of a chunk."""
        row, col = self.position(index)
        return PixelWindow.between(*self._rows[row : row + 2], *self._columns[col : col + 2])

    def touching(self, window: PixelWindow) -> Iterator[int]:
        """The chunks that share a pixel with a window, in order."""
        columns = range(self.column_of(window.col), self.column_of(window.col_stop - 1) + 1)
        for row in range(
            bisect_right(self._rows, window.row) - 1,
            bisect_right(self._rows, window.row_stop - 1),
        ):
            for col in columns:
                yield row * self.columns + col

    def column_of(self, col: int) -> int:
        """The column of chunks that holds a column of pixels."""
        return bisect_right(self._columns, col) - 1


def _spans(grid: TileGrid, chunks: _Chunks, most: int) -> Iterator[tuple[int, int]]:
    """(first tile column, column after the last) of each group in a row of tiles.

    A group ends where a tile's origin enters the next chunk, so that a slice of the result refines
    few tiles outside of it.
    """
    start = 0
    for col in range(1, grid.n_cols + 1):
        if (
            col == grid.n_cols
            or col - start == most
            or chunks.column_of(col * grid.stride) != chunks.column_of(start * grid.stride)
        ):
            yield start, col
            start = col


def mosaic_lazily(
    stored: da.Array,
    refiner: Refiner | RefinerSource,
    *,
    grid: TileGrid,
    decode: Decode,
    finish: FinishArray,
    blend: Blend = "hann",
    batch_size: int = 1,
) -> da.Array:
    """Build the refined array of a Dask array; its pixels are those of `mosaic`, to the last bit.

    Args:
        stored: (H, W) stored values, in chunks of any sizes.
        refiner: the model, or a source that loads it. Other processes need a source if the model
            cannot be pickled.
        grid: the tiles; their raster size is the array's.
        decode: turns stored values into confidences.
        finish: makes a chunk of the result from blended confidences.
        blend: how overlapping tiles are weighted.
        batch_size: most tiles in one call of the model, at least 1.

    Returns:
        (H, W) array of `finish.dtype`, in the same chunks.

    Raises:
        InputError: the sizes of the chunks are unknown.
    """
    if any(size != size for axis in stored.chunks for size in axis):
        raise InputError(
            "a Dask array whose chunks have no known sizes; call compute_chunk_sizes() first"
        )
    if any(0 in axis for axis in stored.chunks):  # boolean indexing may leave such chunks
        stored = stored.rechunk(tuple(tuple(filter(None, axis)) for axis in stored.chunks))
    job = _Job(
        grid=grid, blend=blend, batch_size=batch_size, refiner=_SharedRefiner(refiner),
        decode=decode, finish=finish,
    )  # fmt: skip
    # Dask cannot hash a callable by its content, so each call gets a token of its own.
    same = uuid.uuid4().hex if callable(refiner) else refiner
    token = tokenize(stored.name, same, grid, decode, finish, blend, batch_size)
    name = f"geothresh-refined-{token}"
    above: Any = [stored]  # Dask's type hints do not accept its own arrays
    graph = HighLevelGraph.from_collections(name, _tasks(stored, job, name, token), above)
    return da.Array(graph, name, chunks=stored.chunks, dtype=finish.dtype)


def _tasks(stored: da.Array, job: _Job, name: str, token: str) -> dict[Any, Any]:
    """All tasks by key, as tuples of a function and its arguments.

    Dask's newer class for tasks is not public.
    """
    chunks = _Chunks(stored.chunks)
    tasks: dict[Key, Any] = {}
    shares: dict[int, list[Key]] = defaultdict(list)
    spans = list(_spans(job.grid, chunks, group_tiles(job.grid.tile, job.batch_size)))
    for row in range(job.grid.n_rows):
        for span in spans:
            group = TileGroup.of(job.grid, row, *span, touching=chunks.touching)
            key = (f"geothresh-tiles-{token}", row, span[0])
            tasks[key] = _group_task(tasks, stored, job, group, chunks, key)
            for chunk in group.chunks:
                share = (f"geothresh-share-{token}", row, span[0], chunk)
                tasks[share] = (getitem, key, chunk) if len(group.chunks) > 1 else (_only, key)
                shares[chunk].append(share)
    for index in range(chunks.count):
        position = chunks.position(index)
        own_input = (stored.name, *position) if job.finish.reads_input else None
        tasks[name, *position] = (_blend, job, chunks.window(index), shares[index], own_input)
    return tasks


def _group_task(
    tasks: dict[Key, Any],
    stored: da.Array,
    job: _Job,
    group: TileGroup,
    chunks: _Chunks,
    key: Key,
) -> tuple[Any, ...]:
    """The task of a group; tasks for the pixels that it reads are added to `tasks`."""
    grid = job.grid
    read = window_read(
        PixelWindow(
            row=group.window.row,
            col=group.window.col,
            height=grid.tile,
            width=(group.n_tiles - 1) * grid.stride + grid.tile,
        ),
        grid.size,
    )
    windows_read, pixels = [], []
    for chunk in chunks.touching(read):
        whole = chunks.window(chunk)
        common = whole.intersection(read)
        if common is None:
            raise AssertionError(f"{read} does not meet {whole}")
        source: Key = (stored.name, *chunks.position(chunk))
        if common != whole:
            piece = (key[0].replace("-tiles-", "-pixels-"), *key[1:], chunk)
            tasks[piece] = (getitem, source, common.within(whole))
            source = piece
        windows_read.append(common)
        pixels.append(source)
    windows = tuple((chunk, chunks.window(chunk)) for chunk in group.chunks)
    return (_refine, job, group, windows, tuple(windows_read), pixels)


def compute_together(arrays: Sequence[da.Array]) -> list[NDArray[Any]]:
    """Compute several Dask arrays together, so that their common chunks are computed once."""
    return list(compute(*arrays))
