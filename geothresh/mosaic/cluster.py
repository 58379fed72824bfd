"""Run a mosaic on the worker processes of a Dask cluster.

Workers receive specs and windows, and each opens the raster and the model once. Finished chunks
come back in order to this process, which owns the sink.

If a worker dies, Dask gives its tasks to another one. If several die in a row, a task may be the
cause: the current chunk is then computed again, one group of tiles at a time, so that a group that
kills workers is identified with certainty.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from dask.distributed import Client, Future, KilledWorker, get_worker, wait

from geothresh.errors import ClusterError, DeadlyTileError
from geothresh.mosaic.blending import (
    Blended,
    FinishedChunk,
    Part,
    StripCounter,
    Weights,
    blend_chunk,
    deliver,
)
from geothresh.mosaic.clients import (
    LOST,
    WORKERLESS_SECONDS,
    client_of_run,
    is_stopped,
    start_missing,
    workerless,
)
from geothresh.mosaic.protocols import (
    ChunkSink,
    Finish,
    LayerSink,
    MosaicStats,
    RasterReader,
    ReaderSpec,
    RefinerSource,
    Scheduler,
    Workers,
)
from geothresh.mosaic.refining import GuardedRefiner, load_refiner, refine_group
from geothresh.mosaic.sizes import tell_dask
from geothresh.options import Blend, Progress
from geothresh.tiling import ChunkPlan, TileGroup
from geothresh.windows import PixelWindow

Result = TypeVar("Result")

_ROUNDS = 3
"""Times that a group of tiles is tried alone before it counts as deadly. In each, one worker more
than Dask's number of allowed failures has died."""
_LOOK_SECONDS = 5.0
"""Seconds between checks of the cluster while this process waits."""

tell_dask()
_opening = threading.Lock()


class _Stop:
    """Cancellation flag of one run, in a worker process."""

    def __init__(self, run: str) -> None:
        self._run = run

    def is_set(self) -> bool:
        return is_stopped(self._run)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJob:
    """The description of a run that workers receive; small, picklable, hashable."""

    plan: ChunkPlan
    """The groups and chunks."""
    reader: ReaderSpec
    """Opens the raster."""
    refiner: RefinerSource
    """Loads the model."""
    blend: Blend
    """How tiles are weighted."""
    batch_size: int
    """Most tiles in one call of the model."""
    finish: Finish | None = None
    """Makes layers of each chunk."""
    cores: int | None = None
    """Processor cores of each worker; None = one for each thread of the worker, as Dask starts
    workers with OMP_NUM_THREADS=1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What a worker has opened and loaded for a job."""

    reader: RasterReader
    refiner: GuardedRefiner
    weights: Weights


@lru_cache(maxsize=1)
def _open(job: WorkerJob) -> _Opened:
    return _Opened(
        reader=job.reader.open(),
        refiner=load_refiner(job.refiner, cores=job.cores or get_worker().state.nthreads),
        weights=Weights.build(job.blend, job.plan.grid),
    )


def _opened(job: WorkerJob) -> _Opened:
    with _opening:  # lru_cache alone would let two threads open the same job
        return _open(job)


def _refine(job: WorkerJob, group: TileGroup, run: str) -> dict[int, Part]:
    opened = _opened(job)
    return refine_group(
        group,
        plan=job.plan,
        reader=opened.reader,
        refiner=opened.refiner,
        weights=opened.weights,
        batch_size=job.batch_size,
        stop=_Stop(run),
    )


def _pick(parts: dict[int, Part], chunk: int) -> Part:
    return parts[chunk]


def _blend(job: WorkerJob, window: PixelWindow, parts: list[Part]) -> Blended | FinishedChunk:
    blended = blend_chunk(window, parts)
    if job.finish is None:
        return blended
    layers = job.finish(_opened(job).reader, window, blended.confidence, blended.valid)
    return FinishedChunk.of(blended, layers, pack=True).for_travel()


def run_on_workers(
    job: WorkerJob,
    sink: ChunkSink | LayerSink,
    *,
    where: Workers | Scheduler,
    strips: StripCounter,
    progress: Progress | None,
) -> MosaicStats:
    """Run a job on worker processes of this machine, or on a running cluster.

    When this returns or raises, all processes that it started have ended.

    Raises:
        DeadlyTileError: a group of tiles killed every worker.
        ClusterError: the scheduler or all workers were lost, or cannot be reached.
        UsageError: the cluster has other versions.
    """
    workers = where.number if isinstance(where, Workers) else 0
    run = uuid.uuid4().hex
    with client_of_run(where, run) as client:
        return _ClusterRun(
            client=client, job=job, sink=sink, workers=workers, strips=strips, progress=progress,
            id=run,
        ).do()  # fmt: skip


class _WorkersDied(Exception):
    """Several workers died in a row while one chunk was waited for."""

    def __init__(self, chunk: int) -> None:
        super().__init__(chunk)
        self.chunk = chunk


@dataclass(eq=False, slots=True, kw_only=True)
class _ClusterRun:
    """One run on a cluster: submits chunks, and retries them when workers die."""

    client: Client
    job: WorkerJob
    sink: ChunkSink | LayerSink
    workers: int
    """Number of local workers to keep alive; 0 for a running cluster."""
    strips: StripCounter
    progress: Progress | None
    id: str

    def do(self) -> MosaicStats:
        """Compute all chunks that are left, in order."""
        chunk = self.strips.first_chunk
        while (deadly := self._first_deadly(chunk)) is not None:
            self._store(self._compute_carefully(deadly))
            chunk = deadly + 1
        return self.strips.stats()

    def _first_deadly(self, start: int) -> int | None:
        """Compute the chunks from `start` on; gives the first one for which several workers died.

        The exception is gone when it returns: its frames would keep the futures of other chunks,
        and Dask would go on computing these.
        """
        if start < self.job.plan.n_chunks:
            try:
                self._compute_from(start)
            except _WorkersDied as died:
                return died.chunk
        return None

    def _compute_from(self, start: int) -> None:
        """Compute the chunks from `start` on, a few for each worker at a time."""
        parts: dict[int, list[Future[Part]]] = defaultdict(list)
        running: deque[tuple[int, Future[Blended | FinishedChunk]]] = deque()
        most = chunks_in_flight(self.client.nthreads().values(), workers=self.workers)

        def finish_first() -> None:
            chunk, future = running.popleft()
            try:
                blended = self._result(future)
            except KilledWorker as killed:
                raise _WorkersDied(chunk) from killed
            self._store(blended)

        for chunk in range(start, self.job.plan.n_chunks):
            for group in self.job.plan.groups_from(chunk, first=start):
                share = self.client.submit(_refine, self.job, group, self.id, pure=False)
                for index in group.chunks:
                    if index >= start:
                        # Each part is a future, so that only what a chunk needs is sent and kept.
                        parts[index].append(self.client.submit(_pick, share, index, pure=False))
            running.append((chunk, self._submit_blend(chunk, parts.pop(chunk))))
            if len(running) == most:
                finish_first()
        while running:
            finish_first()

    def _compute_carefully(self, chunk: int) -> Blended | FinishedChunk:
        """Compute one chunk, one group of tiles at a time."""
        for _ in range(_ROUNDS):
            parts = [self._refine_alone(group, chunk) for group in self.job.plan.groups_of(chunk)]
            try:
                return self._result(self._submit_blend(chunk, parts))
            except KilledWorker as error:
                killed = error
        raise DeadlyTileError(_deadly("blending ", self.job.plan.chunk(chunk).window)) from killed

    def _refine_alone(self, group: TileGroup, chunk: int) -> Future[Part]:
        """Refine a group while nothing else runs."""
        for _ in range(_ROUNDS):
            share = self.client.submit(_refine, self.job, group, self.id, pure=False)
            part = self.client.submit(_pick, share, chunk, pure=False)
            del share
            try:
                self._wait(part)
                if part.status == "finished":
                    return part
                self._result(part)
            except KilledWorker as error:
                killed = error
        raise DeadlyTileError(_deadly("", group.window)) from killed

    def _submit_blend(
        self, chunk: int, parts: list[Future[Part]]
    ) -> Future[Blended | FinishedChunk]:
        window = self.job.plan.chunk(chunk).window
        return self.client.submit(_blend, self.job, window, parts, pure=False, priority=1)

    def _store(self, chunk: Blended | FinishedChunk) -> None:
        deliver(chunk, self.sink)
        self.strips.count(chunk)
        if self.progress is not None:
            done = self.strips.tiles_before + self.strips.tiles
            self.progress(done, self.job.plan.n_tiles)

    def _result(self, future: Future[Result]) -> Result:
        while True:
            self._wait(future)
            try:
                result: Result = future.result(timeout=WORKERLESS_SECONDS)
                return result
            except TimeoutError as error:
                if future.status == "error":
                    raise  # the task itself raised it
                # The worker that held the result has died. Another worker computes it again.
                if future.done() and not self.client.nthreads():
                    raise workerless() from error

    def _wait(self, future: Future[Result]) -> None:
        """Wait for a future as long as the cluster is alive."""
        seen = time.monotonic()
        while not future.done():
            try:
                with self.client.as_current():
                    wait(future, timeout=_LOOK_SECONDS)
            except TimeoutError as error:
                if self.client.status != "running":
                    raise ClusterError(LOST) from error
                start_missing(self.client, self.workers)
                if self.client.nthreads():
                    seen = time.monotonic()
                elif time.monotonic() - seen > WORKERLESS_SECONDS:
                    raise workerless() from error


def chunks_in_flight(threads: Collection[int], *, workers: int) -> int:
    """Number of chunks to submit at once, so that all workers are busy.

    Each worker gets two, so that one is sent while the other is computed, or more if its threads
    need more groups of tiles: a chunk is the first to need about two groups.
    """
    each = max((2, *(-(-number // 2) for number in threads)))
    return each * max(1, workers, len(threads))


def _deadly(doing: str, window: PixelWindow) -> str:
    return (
        f"{doing}rows {window.row} to {window.row_stop - 1}, columns {window.col} to "
        f"{window.col_stop - 1}: every worker process that worked on it died; "
        "use fewer workers or a smaller batch size, or look for a damaged part of the input there"
    )
