"""The local cluster takes work from this machine alone: whoever reaches its ports can run code."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from geothresh.mosaic import Sink, Workers, mosaic
from geothresh.raster.scene import open_scene
from geothresh.tiling import TileGrid
from tests.support.fakes import FakeSource
from tests.support.rasters import write_raster


def listening() -> set[tuple[str, int]]:
    """Addresses at which this process and all below it wait for others."""
    found = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it ended between the two calls
        found |= {
            (connection.laddr.ip, process.pid)
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        }
    return found


def test_scheduler_and_workers_listen_on_this_machine_only(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", np.zeros((512, 64), np.uint8))
    before, seen = listening(), set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(listening() - before)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with open_scene(path) as scene:
            mosaic(
                scene,
                FakeSource(kind="slow"),
                Sink(lambda *_: None),
                grid=TileGrid(size=scene.size, tile=64, overlap=0, patch=16),
                where=Workers(1),
                reader_spec=scene.spec,
            )
    finally:
        done.set()
        watcher.join()
    assert {address for address, _ in seen} == {"127.0.0.1"}
    # The scheduler, in this process, and the worker or its nanny below it.
    assert {pid == os.getpid() for _, pid in seen} == {True, False}
    assert listening() == before
