"""How the cores are shared out among the threads that call torch."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from geothresh.api.models import load_model
from geothresh.machine import usable_cores
from geothresh.mosaic.clients import cores_of_worker
from geothresh.mosaic.threads import default_threads
from geothresh.nn.config import PRESETS
from geothresh.nn.device import ComputeThreads, passes_at_once


@pytest.fixture
def cores() -> Iterator[None]:
    """Torch takes itself to have eight."""
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def test_cores_that_are_not_ours_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 7, 9, 11, 13}, raising=False)
    assert usable_cores() == default_threads(4) == 6
    assert cores_of_worker(2) == 3


@pytest.mark.usefixtures("cores")
def test_each_thread_has_its_share_and_nobody_else_notices() -> None:
    threads = ComputeThreads(2)
    together = threading.Barrier(2, timeout=10)

    def look() -> tuple[str, int]:
        together.wait()  # were there one thread alone, this would break
        return threading.current_thread().name, torch.get_num_threads()

    with ThreadPoolExecutor(2) as callers:
        seen = [call.result() for call in [callers.submit(threads.run, look) for _ in range(2)]]
        assert len({name for name, _ in seen}) == 2
        assert [share for _, share in seen] == [4, 4]
        assert callers.submit(torch.get_num_threads).result() == 8
    assert torch.get_num_threads() == 8


@pytest.mark.usefixtures("cores")
def test_cores_that_torch_would_not_take_are_shared_out() -> None:
    torch.set_num_threads(1)  # as OMP_NUM_THREADS=1 has it in a worker that Dask started
    assert passes_at_once(PRESETS["small"], 16) == 16
    assert passes_at_once(PRESETS["full"], 16) == 4
    assert ComputeThreads(4, 16).run(torch.get_num_threads) == 4
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("cores")
def test_what_a_call_raises_comes_out_of_it() -> None:
    with pytest.raises(ZeroDivisionError):
        ComputeThreads(2).run(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("cores_there", "small", "full"),
    [(1, 1, 1), (2, 2, 2), (4, 4, 4), (6, 6, 3), (16, 16, 4), (64, 16, 4)],
)
@pytest.mark.usefixtures("cores")
def test_no_core_is_left_idle_and_memory_bounds_the_passes(
    cores_there: int, small: int, full: int
) -> None:
    torch.set_num_threads(cores_there)
    assert passes_at_once(PRESETS["small"]) == small
    assert passes_at_once(PRESETS["full"]) == full


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tiles_at_once_are_those_one_after_another(precision: str) -> None:
    model = load_model(precision=precision)
    tiles = np.random.default_rng(0).random((6, 1, 128, 128), dtype=np.float32)
    one_by_one = [model(tile) for tile in tiles]
    with ThreadPoolExecutor(6) as callers:
        at_once = list(callers.map(model, tiles))
    np.testing.assert_array_equal(at_once, one_by_one)
