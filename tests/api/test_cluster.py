"""`refine` on a running Dask cluster: the same bytes, and what happens when the cluster fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from dask.distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError

import geothresh.mosaic.clients
from geothresh import Compute, refine
from geothresh.errors import ClusterError, DeadlyTileError, GeothreshWarning, UsageError
from geothresh.mosaic.cluster import chunks_in_flight
from geothresh.nn.refiner import resolved
from geothresh.run.models import choose_model
from tests.support.fakes import FakeSource, UnevenRefiner
from tests.support.flat import grouped
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster

TILES: dict[str, Any] = {"tile_size": 64, "overlap": 32, "creation_options": {"BLOCKYSIZE": "64"}}
WORK = ".out.tif.geothresh"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.random.default_rng(5).random((2100, 70), np.float32)
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", values)


@pytest.fixture(scope="module")
def expected(scene: Path) -> bytes:
    return refine(scene, model=UnevenRefiner(), **grouped(**TILES)).mask.read_bytes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
        scheduler_kwargs={"dashboard": False},
    ) as running:  # fmt: skip
        yield running


def on(address: str, scene: Path, folder: Path, kind: str = "uneven", **options: Any) -> Any:
    return refine(
        scene,
        folder / "out.tif",
        model=FakeSource(kind=kind),
        **grouped(scheduler=address, **TILES | options),
    )


def test_a_worker_of_a_running_cluster_has_as_many_cores_as_threads(tmp_path: Path) -> None:
    # Dask starts its workers with OMP_NUM_THREADS=1, by which torch would take a single core.
    with LocalCluster(
        n_workers=1, threads_per_worker=3, host="127.0.0.1", dashboard_address=None,
        scheduler_kwargs={"dashboard": False},
    ) as running:  # fmt: skip
        scene = write_raster(tmp_path / "scene.tif", np.full((100, 70), 0.5, np.float32))
        refined = tmp_path / "refined.tif"
        on(running.scheduler_address, scene, tmp_path, kind="cores", confidence=refined)
    with rasterio.open(refined) as dataset:
        assert (dataset.read(1) == round(254 * 0.03)).all()


def test_as_many_chunks_are_in_flight_as_keep_all_threads_busy() -> None:
    assert chunks_in_flight([], workers=0) == 2
    assert chunks_in_flight([2, 2], workers=3) == 6  # the third one is still starting
    assert chunks_in_flight([1, 16], workers=0) == 16


def test_a_running_cluster_gives_the_same(
    cluster: LocalCluster, scene: Path, expected: bytes, tmp_path: Path
) -> None:
    address = cluster.scheduler_address
    told: list[tuple[int, int]] = []
    for _ in range(2):  # workers serve several runs
        result = on(address, scene, tmp_path, overwrite=True, progress=lambda *at: told.append(at))
        assert result.mask.read_bytes() == expected
        assert told[-1] == (result.tiles, result.tiles)
    assert without_sides(tmp_path) == ["out.tif"]


@pytest.mark.catalogue(131)
def test_versions_must_agree(
    cluster: LocalCluster, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = version
    monkeypatch.setattr(
        geothresh.mosaic.clients, "version", lambda name: "0.1" if name == "numpy" else here(name)
    )
    with pytest.raises(UsageError) as caught:
        on(cluster.scheduler_address, scene, tmp_path)
    there = here("numpy")
    assert f"has numpy {there}, this process has 0.1; install the same version" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CommClosedError("Stream is closed"), None),
        (ModuleNotFoundError("No module named 'geothresh'"), "cannot run geothresh (No module"),
    ],
)
def test_a_worker_lost_while_versions_are_asked_for_is_not_one_without_geothresh(
    answer: Exception,
    said: str | None,
    cluster: LocalCluster,
    scene: Path,
    expected: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is missed by the run itself, or replaced."""
    plain = Client.run

    def run(self: Client, *args: Any, **options: Any) -> dict[str, Any]:
        assert options == {"on_error": "return"}
        return {**plain(self, *args, **options), "tcp://127.0.0.1:1": answer}

    monkeypatch.setattr(Client, "run", run)
    if said is None:
        assert on(cluster.scheduler_address, scene, tmp_path).mask.read_bytes() == expected
    else:
        with pytest.raises(UsageError) as caught:
            on(cluster.scheduler_address, scene, tmp_path)
        assert said in str(caught.value)


def test_a_scheduler_lost_while_versions_are_compared_is_told(
    cluster: LocalCluster, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Client, *args: Any, **options: Any) -> dict[str, Any]:
        raise CommClosedError("Stream is closed")

    monkeypatch.setattr(Client, "run", run)
    with pytest.raises(ClusterError, match="was lost while versions were compared"):
        on(cluster.scheduler_address, scene, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "address", ["localhost:8786", "http://localhost:1", "tcp://", "tcp://localhost", "tcp://x:y"]
)
def test_what_is_no_address_is_refused(scene: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match="give tcp://HOST:PORT or tls://HOST:PORT"):
        on(address, scene, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_scheduler_that_is_not_there_is_one_line(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geothresh.mosaic.clients, "_CONNECT_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="cannot be reached within 1 s"):
        on("tcp://127.0.0.1:9", scene, tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_open_connection_to_another_machine_is_warned_about(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geothresh.mosaic.clients, "_CONNECT_SECONDS", 0.1)
    with (
        pytest.warns(GeothreshWarning, match="neither encrypted nor authenticated"),
        pytest.raises(ClusterError),
    ):
        on("tcp://192.0.2.1:8786", scene, tmp_path)  # an address that documents alone use


def test_workers_and_a_scheduler_contradict_each_other(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the one or the other"):
        on("tcp://localhost:8786", scene, tmp_path, workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_any_number_of_workers_gives_the_same(
    scene: Path, expected: bytes, tmp_path: Path, workers: int
) -> None:
    result = refine(
        scene,
        tmp_path / "out.tif",
        model=FakeSource(kind="uneven"),
        **grouped(workers=workers, **TILES),
    )
    assert result.mask.read_bytes() == expected


@pytest.mark.slow
@pytest.mark.catalogue(123)
def test_workers_that_die_are_replaced(scene: Path, expected: bytes, tmp_path: Path) -> None:
    """Half of the workers are killed again and again; nannies start new ones."""
    with LocalCluster(
        n_workers=4, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
        scheduler_kwargs={"dashboard": False},
    ) as cluster:  # fmt: skip
        ended = threading.Event()
        killed = []

        def kill() -> None:
            while not ended.wait(1.0):
                for nanny in list(cluster.workers.values())[:2]:
                    if nanny.pid is not None and not ended.is_set():
                        os.kill(nanny.pid, signal.SIGKILL)
                        killed.append(nanny.pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            result = on(cluster.scheduler_address, scene, tmp_path, kind="slow")
        finally:
            ended.set()
            killer.join()
        assert killed
        reference = refine(
            scene, tmp_path / "x.tif", model=FakeSource(kind="slow"), **grouped(**TILES)
        )
        assert result.mask.read_bytes() == reference.mask.read_bytes()


def test_a_result_that_is_lost_with_the_last_worker_is_not_waited_for(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (geothresh.mosaic.cluster, geothresh.mosaic.clients):
        monkeypatch.setattr(module, "WORKERLESS_SECONDS", 1.0)
    monkeypatch.setattr(geothresh.mosaic.cluster, "_LOOK_SECONDS", 0.5)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        ThreadPoolExecutor(1) as runner,
    ):  # fmt: skip
        wait = geothresh.mosaic.cluster._ClusterRun._wait

        def last_look(run: Any, future: Any) -> None:
            wait(run, future)
            cluster.scale(0)  # when the result is there, but not here
            while run.client.nthreads():
                time.sleep(0.01)

        monkeypatch.setattr(geothresh.mosaic.cluster._ClusterRun, "_wait", last_look)
        ended = runner.submit(on, cluster.scheduler_address, scene, tmp_path)
        with pytest.raises(ClusterError, match="no worker for 1 s; start some"):
            ended.result(timeout=60)


@pytest.mark.slow
@pytest.mark.catalogue(124)
def test_a_deadly_tile_ends_the_run_and_the_strips_above_stay(tmp_path: Path) -> None:
    values = np.full((2100, 70), 0.25, np.float32)
    values[1400:1410] = 0.75
    scene = write_raster(tmp_path / "scene.tif", values)
    with pytest.raises(DeadlyTileError, match=r"^rows 13\d\d to 14\d\d, columns 0 to 69") as caught:
        refine(
            scene,
            tmp_path / "out.tif",
            model=FakeSource(kind="deadly"),
            **grouped(workers=2, **TILES),
        )
    assert "goes on from 2 finished strips" in caught.value.__notes__[0]
    assert sorted(os.listdir(tmp_path)) == [WORK, "scene.tif"]


DYING = """
import os, sys

if "--multiprocessing-fork" in sys.orig_argv:
    path = os.environ["DEATHS"]
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= int(os.environ["MORTAL"]):
        os._exit(1)
"""


@pytest.mark.parametrize("mortal", [3, 99])
def test_workers_that_die_at_the_start_are_started_again(
    scene: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mortal: int
) -> None:
    """As for want of memory; also when it is all of them, but not for ever."""
    (tmp_path / "sitecustomize.py").write_text(DYING)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    monkeypatch.setenv("DEATHS", str(tmp_path / "deaths"))
    monkeypatch.setenv("MORTAL", str(mortal))
    out = tmp_path / "out"
    out.mkdir()

    def run() -> Any:
        return refine(
            scene, out / "out.tif", model=FakeSource(kind="uneven"), **grouped(workers=2, **TILES)
        )

    if mortal == 3:
        assert run().mask.read_bytes() == expected
    else:
        with pytest.raises(ClusterError, match="died in each of 4 attempts"):
            run()
        assert os.listdir(out) == []


SCHEDULER = """
import sys, time
from dask.distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError

if __name__ == "__main__":
    cluster = LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
        scheduler_kwargs={"dashboard": False},
    )
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


def test_the_workers_tell_device_and_number_format(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Compute(scheduler=cluster.scheduler_address)
    chosen = choose_model("roads", there)
    assert (chosen.device, chosen.precision) == resolved("auto", "auto")
    monkeypatch.setattr(
        geothresh.mosaic.clients,
        "ask_workers",
        lambda *_: [("cuda", "fp16"), ("cpu", "bf16"), ("cpu", "bf16")],
    )
    with pytest.raises(UsageError, match=r"differ .* \(cpu bf16; cuda fp16\)"):
        choose_model("roads", there)


@pytest.mark.slow
@pytest.mark.catalogue(125)
def test_a_lost_scheduler_ends_the_run_and_the_work_stays(scene: Path, tmp_path: Path) -> None:
    script = tmp_path / "cluster.py"
    script.write_text(SCHEDULER)
    root = Path(__file__).parents[2]
    out = tmp_path / "out"
    out.mkdir()
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def kill(done: int, total: int) -> None:
            if done > total / 2:
                process.kill()

        begun = time.monotonic()
        with pytest.raises(ClusterError, match="was lost") as caught:
            on(address, scene, out, kind="slow", progress=kill)
        assert time.monotonic() - begun < 120
    assert "finished strips, kept" in caught.value.__notes__[0]
    assert caught.value.exit_code == 1
    result = refine(scene, out / "out.tif", model=FakeSource(kind="slow"), **grouped(**TILES))
    assert result.strips_resumed >= 2
    reference = refine(scene, tmp_path / "x.tif", model=FakeSource(kind="slow"), **grouped(**TILES))
    assert result.mask.read_bytes() == reference.mask.read_bytes()
