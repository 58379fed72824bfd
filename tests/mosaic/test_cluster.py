"""The way of a run on a cluster, with a client that computes nothing."""

from __future__ import annotations

import weakref
from typing import Any
from unittest.mock import Mock

import pytest
from dask.distributed import KilledWorker

from geothresh.mosaic import cluster
from geothresh.mosaic.blending import StripCounter
from geothresh.tiling import ChunkPlan, TileGrid
from geothresh.windows import RasterSize


class Done:
    """A future of one task, done at once."""

    status = "finished"

    def __init__(self, task: str) -> None:
        self.task = task

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> None:
        if self.task == "_blend":
            raise KilledWorker(self.task, "a worker", 3)


def test_a_chunk_is_computed_carefully_while_nothing_else_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No future of another chunk is left: Dask would go on computing it."""
    futures: weakref.WeakSet[Done] = weakref.WeakSet()

    def submit(function: Any, *arguments: Any, **options: Any) -> Done:
        future = Done(function.__name__)
        futures.add(future)
        return future

    left: list[tuple[int, int]] = []

    def careful(self: Any, chunk: int) -> Mock:
        left.append((chunk, len(futures)))
        return Mock()

    monkeypatch.setattr(cluster._ClusterRun, "_compute_carefully", careful)
    monkeypatch.setattr(cluster._ClusterRun, "_store", lambda *arguments: None)
    grid = TileGrid(size=RasterSize(height=1024, width=1024), tile=512, overlap=128, patch=64)
    plan = ChunkPlan(grid=grid, area=None, chunk_height=512, chunk_width=512, group_tiles=2)
    client = Mock(submit=submit, status="running")
    client.nthreads.return_value = {"a": 2}
    run = cluster._ClusterRun(
        client=client, job=Mock(plan=plan), sink=Mock(), workers=1,
        strips=StripCounter(plan, None, start=0), progress=None, id="x",
    )  # fmt: skip
    run.do()
    assert left == [(chunk, 0) for chunk in range(plan.n_chunks)]
