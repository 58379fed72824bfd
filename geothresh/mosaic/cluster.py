"""Run a mosaic on the worker processes of a Dask cluster.

Workers get specs and windows and open the raster and the model themselves, each once. Finished
chunks come back in order to this process, which owns the sink.

A worker that dies is no failure: Dask gives its tasks to another one. Where several die in a row
one task may be the cause, or none: the chunk at hand is done again, one group of tiles at a time,
so that a deadly one is known for sure.
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
    Finished,
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
"""Times that a group of tiles runs by itself before it is held to be deadly; each time, Dask's
number of allowed failures and one more worker have died of it."""
_LOOK_SECONDS = 5.0
"""How often the cluster is looked at while there is nothing to do but wait."""

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
    """All that a worker needs to know of a run; small, picklable, hashable."""

    plan: ChunkPlan
    """Which groups and chunks there are."""
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
    """Processor cores of each worker; None for one to each of the worker's threads, which is how
    Dask starts workers, with OMP_NUM_THREADS=1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
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


def _blend(job: WorkerJob, window: PixelWindow, parts: list[Part]) -> Blended | Finished:
    blended = blend_chunk(window, parts)
    if job.finish is None:
        return blended
    layers = job.finish(_opened(job).reader, window, blended.confidence, blended.valid)
    return Finished.of(blended, layers, pack=True).for_travel()


def run_on_workers(
    job: WorkerJob,
    sink: ChunkSink | LayerSink,
    *,
    where: Workers | Scheduler,
    strips: StripCounter,
    progress: Progress | None,
) -> MosaicStats:
    """Run a job on worker processes of this machine, or on a running cluster.

    When this returns or raises, no process is left that it started.

    Raises:
        DeadlyTileError: the tiles at one place killed every worker.
        ClusterError: the scheduler or all workers were lost, or cannot be reached.
        UsageError: the cluster's versions are other ones.
    """
    workers = where.number if isinstance(where, Workers) else 0
    run = uuid.uuid4().hex
    with client_of_run(where, run) as client:
        return _ClusterRun(
            client=client, job=job, sink=sink, workers=workers, strips=strips, progress=progress,
            id=run,
        ).do()  # fmt: skip


class _WorkersDied(Exception):
    """Several workers in a row, while one chunk was waited for."""

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
    """To be kept alive here; 0 of another's cluster."""
    strips: StripCounter
    progress: Progress | None
    id: str

    def do(self) -> MosaicStats:
        """Do all chunks that are left, in order."""
        chunk = self.strips.first_chunk
        while chunk < self.job.plan.n_chunks:
            try:
                self._in_flight(chunk)
                break
            except _WorkersDied as died:
                self._store(self._carefully(died.chunk))
                chunk = died.chunk + 1
        return self.strips.stats()

    def _in_flight(self, start: int) -> None:
        """Do the chunks from `start` on, a few for each worker at a time."""
        parts: dict[int, list[Future[Part]]] = defaultdict(list)
        running: deque[tuple[int, Future[Blended | Finished]]] = deque()
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
                        # Parts are futures of their own, so that only what a chunk needs moves
                        # and stays.
                        parts[index].append(self.client.submit(_pick, share, index, pure=False))
            running.append((chunk, self._submit_blend(chunk, parts.pop(chunk))))
            if len(running) == most:
                finish_first()
        while running:
            finish_first()

    def _carefully(self, chunk: int) -> Blended | Finished:
        """Do one chunk, one group of tiles at a time."""
        for _ in range(_ROUNDS):
            parts = [self._alone(group, chunk) for group in self.job.plan.groups_of(chunk)]
            try:
                return self._result(self._submit_blend(chunk, parts))
            except KilledWorker as error:
                killed = error
        raise DeadlyTileError(_deadly("blending ", self.job.plan.chunk(chunk).window)) from killed

    def _alone(self, group: TileGroup, chunk: int) -> Future[Part]:
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

    def _submit_blend(self, chunk: int, parts: list[Future[Part]]) -> Future[Blended | Finished]:
        window = self.job.plan.chunk(chunk).window
        return self.client.submit(_blend, self.job, window, parts, pure=False, priority=1)

    def _store(self, chunk: Blended | Finished) -> None:
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
                    raise  # the task's own
                # The worker that held it has died since. It is made again, if there is another.
                if future.done() and not self.client.nthreads():
                    raise workerless() from error

    def _wait(self, future: Future[Result]) -> None:
        """Wait for a future for as long as the cluster is alive."""
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

    Two for each, of which one is sent while the other is made, or as many as give each thread a
    group of tiles: a chunk is the first to need about two.
    """
    each = max((2, *(-(-number // 2) for number in threads)))
    return each * max(1, workers, len(threads))


def _deadly(doing: str, window: PixelWindow) -> str:
    return (
        f"{doing}rows {window.row} to {window.row_stop - 1}, columns {window.col} to "
        f"{window.col_stop - 1}: every worker process that worked on it died; "
        "use fewer workers or a smaller batch size, or look for a damaged part of the input there"
    )
