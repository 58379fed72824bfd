"""Run a mosaic on local threads, as consecutive Dask graphs of some thousand tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

# Tasks are tuples, because Dask's newer class for tasks is not public. dask.delayed is no
# alternative: it merges graphs at each call, in quadratic time along the chain of writing tasks.
from dask.local import get_sync
from dask.threaded import get

from geothresh.machine import usable_cores
from geothresh.mosaic.blending import (
    Blended,
    FinishedChunk,
    Part,
    StripCounter,
    Weights,
    blend_chunk,
    deliver,
)
from geothresh.mosaic.protocols import MosaicStats, RasterReader, Sink
from geothresh.mosaic.refining import GuardedRefiner, refine_group
from geothresh.options import Progress
from geothresh.tiling import ChunkPlan, TileGroup

CHUNKS_PREFETCHED = 4
"""Chunks that are read and refined ahead of the writer, for each parallel call of the refiner. So
the graph itself limits memory if refining is faster than writing."""

CHUNKS_A_GRAPH = 1024
"""Chunks of one graph, about 1,000 million pixels. A graph of the whole scene would grow with it,
and would have to be built before the first pixel is read."""


def default_threads(parallel_calls: int = 1) -> int:
    """Number of threads with which reading, refining and writing go on at the same time.

    Args:
        parallel_calls: most concurrent calls of the refiner. Each stream of a GPU keeps about four
            threads busy with reading and weighting. On a CPU, more threads than cores gain nothing.
    """
    return max(3, min(4 * parallel_calls, usable_cores()))


Shares: TypeAlias = dict[int, Part]
"""The parts of a group that chunks have not used yet, by chunk index."""


@dataclass(eq=False, slots=True, kw_only=True)
class ThreadRun:
    """One run on local threads: its tasks and their shared state."""

    plan: ChunkPlan
    reader: RasterReader
    refiner: GuardedRefiner
    weights: Weights
    batch_size: int
    sink: Sink
    strips: StripCounter
    progress: Progress | None
    _progress_lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _tiles_done: int = field(default=0, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        self._tiles_done = self.strips.tiles_before

    def graph(self, chunks: range, carried: Mapping[TileGroup, Shares]) -> dict[str, Any]:
        """The tasks of some chunks as a Dask graph; its last task writes the last chunk.

        The graph maps the key of each task to a tuple of a function and its arguments; an argument
        that is a key stands for that task's result. There are three kinds of tasks:

        - ``refine-ROW-COL`` refines a group of tiles, after an earlier chunk is written;
        - ``blend-CHUNK`` blends a chunk from the groups that touch it;
        - ``write-CHUNK`` passes the chunk to the sink, after the chunk before it.

        Args:
            chunks: Indices of the chunks, in raster order.
            carried: Parts of groups of earlier graphs that these or later chunks need.
        """
        tasks: dict[str, Any] = {_key(group): left for group, left in carried.items()}
        steps = CHUNKS_PREFETCHED * self.refiner.parallel_calls

        def written(chunk: int) -> str | None:
            return f"write-{chunk}" if chunk in chunks else None

        for chunk in chunks:
            for group in self.strips.starting(chunk):
                tasks[_key(group)] = (self.refine, group, written(chunk - steps))
            shares = [_key(group) for group in self.plan.groups_of(chunk)]
            tasks[f"blend-{chunk}"] = (self.blend, chunk, shares)
            tasks[f"write-{chunk}"] = (self.write, f"blend-{chunk}", written(chunk - 1))
        return tasks

    def run(self, threads: int) -> MosaicStats:
        """Compute one graph after another on a number of threads; 0 = in the calling thread."""
        carried: dict[TileGroup, Shares] = {}
        n_chunks = self.plan.n_chunks
        with self._computing(threads) as compute:
            for start in range(self.strips.first_chunk, n_chunks, CHUNKS_A_GRAPH):
                chunks = range(start, min(start + CHUNKS_A_GRAPH, n_chunks))
                begun = [group for chunk in chunks for group in self.strips.starting(chunk)]
                kept = [group for group in (*carried, *begun) if group.chunks[-1] >= chunks.stop]
                wanted = [*map(_key, kept), f"write-{chunks[-1]}"]
                *left, _ = compute(self.graph(chunks, carried), wanted)
                carried = dict(zip(kept, left, strict=True))
        return self.strips.stats()

    @contextmanager
    def _computing(self, threads: int) -> Iterator[Callable[..., Sequence[Any]]]:
        """Give Dask's scheduler; at the end, all its threads have ended."""
        if threads == 0:
            yield get_sync
            return
        pool = ThreadPoolExecutor(threads, thread_name_prefix="geothresh-mosaic")
        try:
            yield partial(get, pool=pool)
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def refine(self, group: TileGroup, written: None) -> Shares:
        """Task: refine one group, after an earlier chunk is written."""
        return refine_group(
            group,
            plan=self.plan,
            reader=self.reader,
            refiner=self.refiner,
            weights=self.weights,
            batch_size=self.batch_size,
            on_tiles=self._count if self.strips.is_new(group) else None,
            stop=self._stop,
        )

    def blend(self, index: int, shares: list[Shares]) -> Blended | FinishedChunk:
        """Task: blend one chunk, and make its layers if the sink takes layers."""
        # Each part is used only here. Popping it frees its memory now; Dask would keep it until the
        # last chunk that the group touches, in the next strip, is done.
        parts = (share.pop(index) for share in shares)
        blended = blend_chunk(self.plan.chunk(index).window, parts)
        if self.sink.finish is None:
            return blended
        layers = self.sink.finish(self.reader, blended.window, blended.confidence, blended.valid)
        return FinishedChunk.of(blended, layers, pack=self.sink.pack)

    def write(self, chunk: Blended | FinishedChunk, previous: None) -> None:
        """Task: pass one chunk to the sink, after the chunk before it."""
        deliver(chunk, self.sink.store)
        self.strips.count(chunk)

    def _count(self, tiles: int) -> None:
        if self.progress is None:
            return
        with self._progress_lock:
            self._tiles_done += tiles
            self.progress(self._tiles_done, self.plan.n_tiles)


def _key(group: TileGroup) -> str:
    return f"refine-{group.row}-{group.col_start}"
