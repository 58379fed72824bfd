"""A mosaic on local threads, as one Dask graph whose shape is known before a pixel is read."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

# The documented class for the tasks of a graph has no other home. dask.delayed is no way round: it
# merges graphs at each call, in quadratic time along the chain of writing tasks.
from dask._task_spec import List, Task, TaskRef
from dask.threaded import get

from geothresh.mosaic.protocols import (
    ChunkSink,
    Finish,
    LayerSink,
    MosaicStats,
    Progress,
    RasterReader,
)
from geothresh.mosaic.refiners import GuardedRefiner
from geothresh.mosaic.strips import StripCounter
from geothresh.mosaic.tasks import (
    Blended,
    Finished,
    Part,
    Weights,
    blend_chunk,
    deliver,
    refine_group,
)
from geothresh.windows import ChunkPlan

CHUNKS_AHEAD = 4
"""Tiles of a chunk are read once the chunk this many places earlier is written, or for refiners
that several threads may call, so many times this: memory is bounded by the graph itself, however
much faster refining is than writing."""


def default_threads(parallel_calls: int = 1) -> int:
    """Threads that keep reading, refining and writing going at the same time.

    Args:
        parallel_calls: threads that the refiner stands. Each lane of a GPU keeps some four threads
            busy with reading and weighting; on a CPU no more than the cores gain anything.
    """
    return max(3, min(4 * parallel_calls, os.cpu_count() or 1))


class ThreadRun:
    """The tasks of one run and what they share."""

    def __init__(
        self,
        *,
        plan: ChunkPlan,
        reader: RasterReader,
        refiner: GuardedRefiner,
        weights: Weights,
        batch_size: int,
        sink: ChunkSink | LayerSink,
        finish: Finish | None,
        pack: bool,
        strips: StripCounter,
        progress: Progress | None,
    ) -> None:
        """Take what the tasks need; nothing is read yet."""
        self._plan = plan
        self._strips = strips
        self._groups = {group.index: group for group in strips.groups}
        self._reader = reader
        self._refiner = refiner
        self._weights = weights
        self._batch_size = batch_size
        self._sink = sink
        self._finish = finish
        self._pack = pack
        self._progress = progress
        self._progress_lock = threading.Lock()
        self._tiles_done = strips.tiles_before
        self._stop = threading.Event()

    def graph(self) -> dict[str, Task]:
        """The whole run as a Dask graph; it ends in the writing of the last chunk."""
        needed: dict[int, list[TaskRef]] = defaultdict(list)
        for group in self._groups.values():
            for chunk in group.chunks:
                needed[chunk].append(TaskRef(f"refine-{group.index}"))
        starting = self._strips.starting()
        first = self._strips.first_chunk
        steps = CHUNKS_AHEAD * self._refiner.parallel_calls
        tasks: list[Task] = []
        for chunk in range(first, self._plan.n_chunks):
            ahead = chunk - steps
            leave = TaskRef(f"write-{ahead}") if ahead >= first else None
            for group in starting.pop(chunk, ()):
                tasks.append(Task(f"refine-{group.index}", self.refine, group.index, leave))
            shares = List(*needed.pop(chunk))
            tasks.append(Task(f"blend-{chunk}", self.blend, chunk, shares))
            previous = TaskRef(f"write-{chunk - 1}") if chunk > first else None
            blended = TaskRef(f"blend-{chunk}")
            tasks.append(Task(f"write-{chunk}", self.write, blended, previous))
        return {str(task.key): task for task in tasks}

    def run(self, threads: int) -> MosaicStats:
        """Compute the graph on so many threads; when this returns or raises, none is left."""
        graph = self.graph()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="geothresh-mosaic")
        try:
            get(graph, f"write-{self._plan.n_chunks - 1}", pool=pool)
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return self._strips.stats()

    def refine(self, index: int, leave: None) -> dict[int, Part]:
        """Task: refine one group, once there is leave to."""
        group = self._groups[index]
        return refine_group(
            group,
            plan=self._plan,
            reader=self._reader,
            refiner=self._refiner,
            weights=self._weights,
            batch_size=self._batch_size,
            on_tiles=self._count if self._strips.is_new(group) else None,
            stop=self._stop,
        )

    def blend(self, index: int, shares: list[dict[int, Part]]) -> Blended | Finished:
        """Task: blend one chunk, and finish it if it is to be, which writing must not wait for."""
        # Each part has this one reader. Taking it out frees it now; Dask would keep it until the
        # last chunk that the group touches, in the next strip, is done.
        parts = (share.pop(index) for share in shares)
        blended = blend_chunk(self._plan.chunk(index).window, parts)
        if self._finish is None:
            return blended
        layers = self._finish(self._reader, blended.window, blended.confidence, blended.valid)
        return Finished.of(blended, layers, pack=self._pack)

    def write(self, chunk: Blended | Finished, previous: None) -> None:
        """Task: hand one chunk to the sink, after the one before it."""
        deliver(chunk, self._sink)
        self._strips.count(chunk)

    def _count(self, tiles: int) -> None:
        if self._progress is None:
            return
        with self._progress_lock:
            self._tiles_done += tiles
            self._progress(self._tiles_done, self._plan.grid.n_tiles)
