"""The engine on worker processes: the same result, the same errors, nobody left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geothresh.errors import InputError, ModelError
from geothresh.mosaic import Workers, clients, mosaic_array
from geothresh.mosaic.clients import loop_without_interrupts
from tests.support.fakes import (
    FakeSource,
    UnevenRefiner,
)
from tests.support.rasters import coordinate_array


def test_worker_processes_give_the_same_to_the_last_bit() -> None:
    confidence = np.random.default_rng(2).random((300, 333), dtype=np.float32)
    confidence[40:140, 100:250] = np.nan
    told: list[tuple[int, int]] = []
    options = {"tile": 64, "overlap": 32, "chunk_height": 96, "chunk_width": 128}
    local = mosaic_array(confidence, UnevenRefiner(), **options)
    remote = mosaic_array(
        confidence,
        FakeSource(kind="uneven"),
        where=Workers(2),
        batch_size=3,
        progress=lambda done, total: told.append((done, total)),
        **options,
    )
    assert remote.tobytes() == local.tobytes()
    assert told[-1] == (90, 90)


@pytest.mark.parametrize(("workers", "cores_there", "cores_each"), [(1, 6, 6), (2, 5, 2)])
def test_workers_share_the_cores_out(
    workers: int, cores_there: int, cores_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geothresh.mosaic.clients.usable_cores", lambda: cores_there)
    refined = mosaic_array(
        coordinate_array(80, 40), FakeSource(kind="cores"), tile=32, overlap=16, chunk_height=40,
        where=Workers(workers),
    )  # fmt: skip
    np.testing.assert_allclose(refined, cores_each / 100, atol=1e-6)


def test_an_error_in_a_worker_comes_out_as_it_is() -> None:
    with pytest.raises(ModelError, match="^failing: 3 calls; use another model$"):
        mosaic_array(
            coordinate_array(200, 200),
            FakeSource(kind="failing"),
            tile=32,
            overlap=16,
            where=Workers(1),
        )


@pytest.mark.slow
def test_a_tile_that_kills_every_worker_is_one_error() -> None:
    place = r"^rows \d+ to \d+, columns 0 to 39: every worker process that worked on it died"
    with pytest.raises(InputError, match=place):
        mosaic_array(
            np.zeros((40, 40), np.float32),
            FakeSource(kind="dying"),
            tile=32,
            overlap=16,
            where=Workers(1),
        )


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}


_ENDLESS = """
import sys
import numpy as np
from tests.support.fakes import FakeSource
from geothresh.mosaic import mosaic_array, where_asked

if __name__ == "__main__":
    values = np.random.default_rng(0).random((2000, 2000), dtype=np.float32)
    mosaic_array(
        values, FakeSource(kind="slow"), tile=32, overlap=16, where=where_asked(int(sys.argv[1])),
        progress=lambda done, total: print(done, flush=True), chunk_height=32, chunk_width=32,
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupt_ends_all_processes_soon(workers: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_ENDLESS)
    run = subprocess.Popen(
        [sys.executable, str(script), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=_environment(),
    )
    assert run.stdout is not None and run.stderr is not None
    run.stdout.readline()
    for _ in range(5):
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        try:
            # The pipe ends when its last holder, parent or worker, is gone: none is left behind.
            _, problems = run.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            # Python drops a KeyboardInterrupt that meets a finaliser; one is sent again then.
            continue
    assert run.returncode == -signal.SIGINT
    dropped = problems.count("Exception ignored in")
    assert problems.count("Traceback") == 1 + dropped
    assert problems.endswith("KeyboardInterrupt\n")


_SCRIPT = """
import numpy as np
from tests.support.fakes import FakeSource
from geothresh.mosaic import Workers, mosaic_array

if __name__ == "__main__":
    result = mosaic_array(
        np.full((70, 70), 0.25, np.float32), FakeSource(kind="identity"),
        tile=32, overlap=16, where=Workers(1),
    )
    assert abs(result - 0.25).max() < 1e-6
    print("done")
"""


@pytest.mark.slow
def test_workers_start_from_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=_environment(),
    )
    assert done.stdout == "done\n", done.stderr
    assert done.stderr == ""


def test_dask_says_nothing_until_its_loop_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("distributed.batched")
    level = logging.getLogger("distributed").level
    at_the_end = []

    @contextmanager
    def watched_loop() -> Iterator[Any]:
        with loop_without_interrupts() as loop:
            yield loop
        # Connections that were broken off are told of up to here.
        at_the_end.append(logger.isEnabledFor(logging.ERROR))

    monkeypatch.setattr(clients, "loop_without_interrupts", watched_loop)
    with clients.local_client(1):
        pass
    assert at_the_end == [False]
    assert logging.getLogger("distributed").level == level
