"""Workers of a run are killed at random, and the run must end well, with the same bytes.

python tests/storm/storm_workers.py --runs 20 --workers 3 --every 4 --seed 0

Every run is done twice: with processes of its own (`--workers`), and on a running Dask cluster
(`--scheduler`) whose nannies start new workers in place of the killed ones. A worker takes some
seconds to start and to load the model: killed faster than that, no run could come to an end.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
os.environ["OMP_NUM_THREADS"] = "1"

import psutil  # noqa: E402
from dask.distributed import LocalCluster  # noqa: E402
from killing import table  # noqa: E402
from storm_refine import write_scene  # noqa: E402

import geothresh  # noqa: E402
from tests.support.flat import grouped  # noqa: E402
from tests.support.outputs import without_sides  # noqa: E402

#: Seconds that a worker takes to start, on a machine that is busy.
STARTING = 6.0
TILES: dict[str, Any] = {"tile_size": 256, "overlap": 192, "device": "cpu", "precision": "fp32"}


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Processes that Dask has started for this one, or any of its children."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


@contextmanager
def killer(
    rng: random.Random, every: float, counts: Counter[str], cluster: LocalCluster | None
) -> Iterator[None]:
    """Kill a random worker now and then, about once in so many seconds.

    Nannies of a running cluster start no worker again that died before it was there, and who
    started that cluster is not here to do so: of a cluster only workers are killed that its
    scheduler knows.
    """

    def victims() -> list[psutil.Process]:
        workers = workers_of(psutil.Process())
        if cluster is None:
            return workers
        nannies = list(cluster.workers.values())
        known = {one.pid for one in nannies if one.worker_address in cluster.scheduler.workers}
        return [one for one in workers if one.pid in known and not is_starting(one)]

    def is_starting(worker: psutil.Process) -> bool:
        return time.time() - worker.create_time() < STARTING

    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(rng.uniform(0.5, 1.5) * every):
            workers = victims()
            if workers:
                with suppress(psutil.NoSuchProcess):
                    worker = rng.choice(workers)
                    starting = is_starting(worker)
                    worker.kill()
                    counts["killed while they started" if starting else "workers killed"] += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def storm(folder: Path, *, runs: int, workers: int, every: float, seed: int) -> Counter[str]:
    """So many runs of each kind; what came of them."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter({"wrong files": 0, "failed": 0, "left over": 0})
    scene = write_scene(folder / "scene.tif")
    expected = geothresh.refine(
        scene, folder / "expected.tif", **grouped(**TILES)
    ).mask.read_bytes()
    place = folder / "out"
    place.mkdir()

    def run(kind: str, cluster: LocalCluster | None = None, **where: Any) -> None:
        with killer(rng, every, counts, cluster):
            try:
                result = geothresh.refine(
                    scene, place / "out.tif", **grouped(overwrite=True, **TILES | where)
                )
            except geothresh.GeothreshError as error:
                counts["failed"] += 1
                print(f"{kind}: {error}", file=sys.stderr)
                return
        counts[kind] += 1
        counts["wrong files"] += result.mask.read_bytes() != expected
        counts["left over"] += sum(name != "out.tif" for name in without_sides(place))

    for _ in range(runs):
        run("runs on own workers", workers=workers)
    with LocalCluster(
        n_workers=workers, threads_per_worker=2, host="127.0.0.1", dashboard_address=None,
        scheduler_kwargs={"dashboard": False}, memory_limit=0, silence_logs=50,
        local_directory=str(folder),
    ) as cluster:  # fmt: skip
        for _ in range(runs):
            run("runs on a cluster", cluster, scheduler=cluster.scheduler_address)
    counts["left over"] += len(workers_of(psutil.Process()))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = storm(
            Path(folder), runs=given.runs, workers=given.workers, every=given.every,
            seed=given.seed,
        )  # fmt: skip
    print(table(sorted(counts.items())))
    sys.exit(1 if counts["wrong files"] or counts["failed"] or counts["left over"] else 0)


if __name__ == "__main__":
    main()
