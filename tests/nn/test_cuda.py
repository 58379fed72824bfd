"""Which stream a caller gets, how large a batch may be, and the streams of a real GPU."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import geothresh
from geothresh.api.models import load_model
from geothresh.errors import ModelError
from geothresh.mosaic import clients
from geothresh.mosaic.refining import GuardedRefiner
from geothresh.mosaic.threads import default_threads
from geothresh.nn.cuda import STREAMS_PER_DEVICE, StreamPool, fitting, recorded_size
from geothresh.nn.device import devices_of
from geothresh.nn.refiner import ModelSource
from geothresh.nn.wrappers import SymmetricRefiner, WrappedSource
from geothresh.options import Compute
from geothresh.run.models import choose_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
SCENE = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"


class Slow:
    """A refiner that two threads may call, and that says how many did at once."""

    patch, name, digest, parallel_calls = 1, "slow", "", 2

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.met = threading.Barrier(2, timeout=10)
        self._lock = threading.Lock()

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.met.wait()
        with self._lock:
            self.inside -= 1
        return tiles


def test_as_many_threads_call_a_refiner_as_it_stands() -> None:
    refiner = Slow()
    guarded = GuardedRefiner(refiner)
    tiles = np.zeros((1, 4, 4), np.float32)
    callers = [threading.Thread(target=guarded, args=(tiles,)) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    # Each call waits for another one inside: were there only one place, the barrier would break.
    assert refiner.most == 2 and not refiner.met.broken
    assert SymmetricRefiner(refiner).parallel_calls == 2
    assert default_threads(2) >= default_threads()


def test_a_stream_is_used_by_one_caller_at_a_time_and_comes_back() -> None:
    streams: StreamPool = StreamPool(["first", "second"])  # type: ignore[list-item]
    assert len(streams) == 2
    with streams.free() as one, streams.free() as other:
        assert {one, other} == {"first", "second"}
        assert streams._free.empty()
    with pytest.raises(ValueError, match="midway"), streams.free():
        raise ValueError("midway")
    with streams.free() as one, streams.free() as other:
        assert {one, other} == {"first", "second"}


def test_batches_are_filled_up_to_few_sizes() -> None:
    sizes = [recorded_size(n, most=16) for n in range(1, 17)]
    assert sizes == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16]
    assert [recorded_size(n, most=6) for n in range(1, 7)] == [1, 2, 4, 4, 6, 6]


@pytest.mark.parametrize(
    ("each", "free", "expected"),
    [(1, 10**6, 16), (100, 100 * STREAMS_PER_DEVICE * 8 * 4 // 3 + 1, 8), (100, 10, 1)],
)
def test_the_batch_follows_free_memory(each: int, free: int, expected: int) -> None:
    assert fitting(each, free=free, most=16) == expected


def test_a_gpu_without_a_number_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(d) for d in devices_of(torch.device("cuda"))] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [str(d) for d in devices_of(torch.device("cuda:1"))] == ["cuda:1"]


def test_worker_processes_take_turns_at_the_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    assert clients.visible_gpus({}, tmp_path) == ["0", "1"]
    assert clients.visible_gpus({"CUDA_VISIBLE_DEVICES": "2, GPU-ab,5"}) == ["2", "GPU-ab", "5"]
    assert clients.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    three = ["2", "GPU-ab", "5"]
    found = [
        clients.environment_of_worker(number, three)["CUDA_VISIBLE_DEVICES"] for number in range(4)
    ]
    assert found == ["2,GPU-ab,5", "GPU-ab,5,2", "5,2,GPU-ab", "2,GPU-ab,5"]
    assert clients.environment_of_worker(3, ["0"]) == {}


def test_workers_use_one_gpu_each() -> None:
    model = choose_model("roads", Compute(workers=1)).refiner
    assert isinstance(model, WrappedSource)  # it reads smoothed maps
    assert isinstance(model.source, ModelSource) and not model.source.all_gpus
    alone = ModelSource.find("roads")
    assert alone.all_gpus


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_what_the_processor_gives(precision: str) -> None:
    tiles = np.random.default_rng(0).random((7, 128, 128), np.float32) ** 2
    expected = load_model(device="cpu", precision="fp32")(tiles)
    refiner = load_model(device="cuda", precision=precision, batch_size=4)
    refined = refiner(tiles)  # batches of 4 and of 3
    limit = 1e-3 if precision == "fp32" else 0.06
    np.testing.assert_allclose(refined, expected, atol=limit)
    assert refiner.parallel_calls == STREAMS_PER_DEVICE * torch.cuda.device_count()


@needs_gpu
def test_threads_share_a_gpu() -> None:
    tiles = np.random.default_rng(1).random((12, 8, 128, 128), np.float32)
    refiner = load_model(device="cuda", batch_size=8)
    expected = [refiner(batch) for batch in tiles]
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = refiner(tiles[number])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(tiles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, one in enumerate(expected):
        np.testing.assert_allclose(found[number], one, atol=0.02)


@needs_gpu
def test_a_scene_on_a_gpu(tmp_path: Path) -> None:
    import rasterio

    masks = []
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.tif"
        geothresh.refine(SCENE, path, compute=Compute(device=device))
        with rasterio.open(path) as mask:
            masks.append(mask.read(1))
    assert (masks[0] != masks[1]).mean() < 1e-3


@needs_gpu
def test_a_batch_that_a_gpu_cannot_hold_is_halved() -> None:
    refiner = load_model(device="cuda", batch_size=4096)
    total = torch.cuda.get_device_properties(0).total_memory
    blocker = torch.empty(int(total * 0.9) // 4, device="cuda")
    try:
        refined = refiner(np.random.default_rng(0).random((600, 512, 512), np.float32))
    except ModelError:
        pytest.fail("not even one tile fitted")
    finally:
        del blocker
    assert refined.shape == (600, 512, 512)
    assert refiner.batch_size < 4096
