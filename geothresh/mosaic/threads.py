"""Run a mosaic on local threads, as consecutive Dask graphs of some thousand tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

# Tasks are tuples, as of old: the class that Dask has for them since has no public home. Nor is
# dask.delayed a way round: it merges graphs at each call, in quadratic time along the chain of
# writing tasks.
from dask.local import get_sync
from dask.threaded import get

from geothresh.machine import usable_cores
from geothresh.mosaic.blending import (
    Blended,
    Finished,
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
"""Chunks read and refined ahead of the writer, for each call that the refiner takes at once. Memory
is bounded by the graph itself, however much faster refining is than writing."""

CHUNKS_A_GRAPH = 1024
"""Chunks of one graph, some 1,000 million pixels. A graph of the whole scene would grow with it,
and have to be made before the first pixel is read."""


def default_threads(parallel_calls: int = 1) -> int:
    """Threads that keep reading, refining and writing going at the same time.

    Args:
        parallel_calls: concurrent calls that the refiner takes. Each stream of a GPU keeps some
            four threads busy with reading and weighting; on a CPU more threads than cores gain
            nothing.
    """
    return max(3, min(4 * parallel_calls, usable_cores()))


Shares: TypeAlias = dict[int, Part]
"""What a group adds to the chunks that have not taken it yet, by their index."""


@dataclass(eq=False, slots=True, kw_only=True)
class ThreadRun:
    """One run on local threads: its tasks, and what they share."""

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
        """The tasks of some chunks as a Dask graph; it ends in the writing of the last one.

        By its key, each task is a tuple of a function and what it is called with, in which a key
        stands for that task's result. Three kinds:

        - ``refine-ROW-COL``: one group of tiles, once the chunk some places earlier is written;
        - ``blend-CHUNK``: a chunk, of the groups that touch it;
        - ``write-CHUNK``: the same chunk into the sink, once the one before it is there.

        Args:
            chunks: Which, in raster order.
            carried: What groups of earlier graphs have left for these chunks and later ones.
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
        """Compute graph after graph on so many threads, 0 for the one that calls."""
        carried: dict[TileGroup, Shares] = {}
        n_chunks = self.plan.n_chunks
        with self._computing(threads) as compute:
            for start in range(self.strips.first_chunk, n_chunks, CHUNKS_A_GRAPH):
                chunks = range(start, min(start + CHUNKS_A_GRAPH, n_chunks))
                begun = [group for chunk in chunks for group in self.strips.starting(chunk)]
                kept = [group for group in (*carried, *begun) if group.chunks[-1] >= chunks.stop]
                asked = [*map(_key, kept), f"write-{chunks[-1]}"]
                *left, _ = compute(self.graph(chunks, carried), asked)
                carried = dict(zip(kept, left, strict=True))
        return self.strips.stats()

    @contextmanager
    def _computing(self, threads: int) -> Iterator[Callable[..., Sequence[Any]]]:
        """The scheduler of Dask; of its threads none is left in the end."""
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
        """Task: refine one group, once an earlier chunk is written."""
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

    def blend(self, index: int, shares: list[Shares]) -> Blended | Finished:
        """Task: blend one chunk, and finish it if it is to be, which writing must not wait for."""
        # Each part has this one reader. Taking it out frees it now; Dask would keep it until the
        # last chunk that the group touches, in the next strip, is done.
        parts = (share.pop(index) for share in shares)
        blended = blend_chunk(self.plan.chunk(index).window, parts)
        if self.sink.finish is None:
            return blended
        layers = self.sink.finish(self.reader, blended.window, blended.confidence, blended.valid)
        return Finished.of(blended, layers, pack=self.sink.pack)

    def write(self, chunk: Blended | Finished, previous: None) -> None:
        """Task: hand one chunk to the sink, after the one before it."""
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
