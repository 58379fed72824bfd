"""A mosaic on worker processes: the same tasks, sent to a local Dask cluster.

Workers get specs and windows and open the raster and the model themselves, each once. Finished
chunks come back in order to this process, which owns the sink.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from dask.distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin

from geothresh.blending import Blend
from geothresh.errors import InputError
from geothresh.mosaic.protocols import (
    ChunkSink,
    MosaicStats,
    Progress,
    RasterReader,
    ReaderSpec,
    RefinerSource,
)
from geothresh.mosaic.refiners import GuardedRefiner, load_refiner
from geothresh.mosaic.tasks import Blended, Part, Weights, blend_chunk, refine_group
from geothresh.windows import ChunkPlan, PixelWindow, TileGroup

_THREADS_PER_WORKER = 2
"""One reads and weights while the other one is in the model."""
_opening = threading.Lock()
_stop = threading.Event()
"""Set in a worker once its run has failed elsewhere."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    reader: RasterReader
    refiner: GuardedRefiner
    weights: Weights


@lru_cache(maxsize=1)
def _open(job: WorkerJob) -> _Opened:
    return _Opened(
        reader=job.reader.open(),
        refiner=load_refiner(job.refiner),
        weights=Weights.build(job.blend, job.plan.grid),
    )


def _refine(job: WorkerJob, group: TileGroup) -> dict[int, Part]:
    with _opening:  # lru_cache alone would let two threads open the same job
        opened = _open(job)
    return refine_group(
        group,
        plan=job.plan,
        reader=opened.reader,
        refiner=opened.refiner,
        weights=opened.weights,
        batch_size=job.batch_size,
        stop=_stop,
    )


def _halt() -> None:
    _stop.set()


class _DeafToInterrupts(WorkerPlugin):
    """Ctrl-C goes to all processes of a terminal; this process alone answers it, and ends them."""

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pick(parts: dict[int, Part], chunk: int) -> Part:
    return parts[chunk]


def _blend(window: PixelWindow, parts: list[Part]) -> Blended:
    return blend_chunk(window, parts)


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    with (
        tempfile.TemporaryDirectory(prefix="geothresh-") as scratch,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=_THREADS_PER_WORKER,
            processes=True,
            host="127.0.0.1",
            # A port that is free; without a dashboard, a small page of health remains.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,  # chunks in flight are bounded here; nothing is to be spilled
            local_directory=scratch,
            silence_logs=logging.CRITICAL,  # what matters comes back as an exception
            env={name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_DeafToInterrupts())
        try:
            yield client
        except BaseException:
            # Closing waits for running tasks; these need not go on to their last batch.
            client.run(_halt, on_error="ignore")
            raise


def run_on_workers(
    job: WorkerJob, sink: ChunkSink, *, workers: int, progress: Progress | None
) -> MosaicStats:
    """Run a job on so many local worker processes; when this returns or raises, none is left."""
    with _local_client(workers) as client:
        try:
            return _run(client, job, sink, in_flight=2 * workers, progress=progress)
        except KilledWorker as killed:
            raise InputError(_deadly(job, str(killed.task))) from killed


def _deadly(job: WorkerJob, key: str) -> str:
    """One line about the task that no worker survived; its key ends in the group's index."""
    kind, _, index = key.rpartition("-")
    place = "blending a chunk"
    if kind.startswith("refine"):
        window = job.plan.groups()[int(index)].window
        place = (
            f"rows {window.row} to {window.row_stop - 1}, "
            f"columns {window.col} to {window.col_stop - 1}"
        )
    return (
        f"{place}: every worker process that worked on it died; "
        "use fewer workers or a smaller batch size, or look for a damaged part of the input there"
    )


def _run(
    client: Client, job: WorkerJob, sink: ChunkSink, *, in_flight: int, progress: Progress | None
) -> MosaicStats:
    plan = job.plan
    starting: dict[int, list[TileGroup]] = defaultdict(list)
    for group in plan.groups():
        starting[group.chunks[0]].append(group)
    parts: dict[int, list[Future[Part]]] = defaultdict(list)
    running: deque[Future[Blended]] = deque()
    refined = skipped = 0
    run = uuid.uuid4().hex

    def finish_first() -> None:
        nonlocal refined, skipped
        blended: Blended = running.popleft().result()
        refined += blended.tiles_refined
        skipped += blended.tiles_skipped
        sink(blended.window, blended.confidence, blended.valid)
        if progress is not None:
            progress(refined + skipped, plan.grid.n_tiles)

    for chunk in plan.chunks():
        for group in starting.pop(chunk.index, ()):
            key = f"refine-{run}-{group.index}"
            share = client.submit(_refine, job, group, key=key)
            for index in group.chunks:
                # Parts are futures of their own, so that only what a chunk needs moves and stays.
                parts[index].append(client.submit(_pick, share, index, pure=False))
        running.append(
            client.submit(_blend, chunk.window, parts.pop(chunk.index), pure=False, priority=1)
        )
        if len(running) == in_flight:
            finish_first()
    while running:
        finish_first()
    return MosaicStats(tiles=plan.grid.n_tiles, tiles_refined=refined, tiles_skipped=skipped)
