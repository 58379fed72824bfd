"""Speed and memory on a GPU: the network alone in several forms, and `refine` around it.

    python tests/benchmarks/bench_gpu.py network      # tiles/s and memory, batch by batch
    python tests/benchmarks/bench_gpu.py compile      # --compile yes beside no, and its seconds
    python tests/benchmarks/bench_gpu.py refine       # a large raster over bare forward
    python tests/benchmarks/bench_gpu.py training     # steps/s of training, without data
    python tests/benchmarks/bench_gpu.py kernels      # where a pass spends its time
    python tests/benchmarks/bench_gpu.py all          # one after the other

Needs a GPU with CUDA. Presets have untrained weights, which correct nothing: what they give
compresses as the input does. "Busy" is how often the driver found a kernel at work.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import torch
from measuring import script_parser
from scenes import TILE, repeated

import geothresh
from geothresh.nn.config import PRESETS, LossWeights
from geothresh.nn.cuda import STREAMS_PER_DEVICE
from geothresh.nn.losses import threshnet_loss
from geothresh.nn.network import ThreshNet
from geothresh.nn.refiner import TorchRefiner

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.flat import grouped  # noqa: E402

BATCHES = (1, 2, 4, 8, 16, 32)


def weights(preset: str) -> dict[str, torch.Tensor]:
    """Untrained, of a network that corrects nothing yet."""
    torch.manual_seed(0)
    return ThreshNet(config(preset)).state_dict()


def config(preset: str) -> geothresh.nn.config.NetworkConfig:
    """Of a preset, with a head that starts from no correction."""
    return replace(PRESETS[preset], head="correction")


def refiner(preset: str, precision: str = "auto", batch_size: int | str = "auto") -> TorchRefiner:
    """On the GPU."""
    return TorchRefiner(
        weights(preset), config(preset), name=preset, sha256=preset, device="cuda",
        precision=precision, batch_size=batch_size,
    )  # fmt: skip


def seconds(call: Callable[[], object], *, least: float = 0.4) -> float:
    """Median seconds of a call that is over when it returns, once it is warm."""
    call()
    call()
    times: list[float] = []
    while sum(times) < least or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def network(presets: list[str]) -> None:
    """Print tiles/s of the network in several forms, and memory."""
    print(f"{'':32}" + "".join(f"{f'batch {size}':>11}" for size in BATCHES) + "   tiles/s")
    for preset in presets:
        _row(preset, "autocast, norms as trained", _as_trained(preset))
        folded = refiner(preset)
        _row(preset, f"folded, {str(folded.dtype)[6:]}", _folded(folded))
        _row(preset, "the same as a CUDA graph", _replayed(folded))
        _row(preset, "with copies from and to numpy", _called(preset))
        _row(preset, f"{STREAMS_PER_DEVICE} threads", _called(preset, threads=STREAMS_PER_DEVICE))
        for size in (1, 16):
            print(f"{preset:6}memory at batch {size}, one pass: {_memory(folded, size):,.0f} MB")


def compiled(presets: list[str], batch: int = 16) -> None:
    """Print what `--compile yes` takes and gives, beside the plain pass in turn.

    Compiling takes its full time in the first run on a machine alone: torch keeps the code.
    """
    for preset in presets:
        plain, made = refiner(preset, batch_size=batch), refiner(preset, batch_size=batch)
        tiles = np.random.default_rng(0).random((batch, TILE, TILE), np.float32)
        expected = plain(tiles)
        start = time.perf_counter()
        made.compile()
        found = made(tiles)
        first = time.perf_counter() - start
        rounds = [[seconds(partial(one, tiles)) for one in (plain, made)] for _ in range(3)]
        before, after = (statistics.median(column) for column in zip(*rounds, strict=True))
        graphs = [_replayed(one)(batch) for one in (plain, made)]
        other = ((found >= 0.5) != (expected >= 0.5)).mean()
        pays = first / max(before / batch - after / batch, 1e-9)
        print(
            f"{preset:6}batch {batch}: compiled in {first:.1f} s; as a CUDA graph "
            f"{graphs[0]:.1f} -> {graphs[1]:.1f} tiles/s, with copies {batch / before:.1f} -> "
            f"{batch / after:.1f}; pays from {pays:,.0f} tiles on; mask differs in "
            f"{100 * other:.4f} %, confidence by {np.abs(found - expected).max():.1e} at most"
        )


def _row(preset: str, name: str, tiles_per_second: Callable[[int], float]) -> None:
    print(f"{preset:6}{name:26}", end="", flush=True)
    for size in BATCHES:
        print(f"{tiles_per_second(size):11.1f}", end="", flush=True)
    print()


def _batch(size: int) -> torch.Tensor:
    tiles = torch.rand((size, 1, TILE, TILE), device="cuda")
    return tiles.contiguous(memory_format=torch.channels_last)


def _as_trained(preset: str) -> Callable[[int], float]:
    net = ThreshNet(config(preset)).cuda().to(memory_format=torch.channels_last).eval()

    def speed(size: int) -> float:
        tiles = _batch(size)

        def call() -> None:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                net.refine(tiles)
            torch.cuda.synchronize()

        return size / seconds(call)

    return speed


def _folded(made: TorchRefiner) -> Callable[[int], float]:
    def speed(size: int) -> float:
        tiles = _batch(size)

        def call() -> None:
            with torch.inference_mode():
                made.network.refine(tiles)
            torch.cuda.synchronize()

        return size / seconds(call)

    return speed


def _replayed(made: TorchRefiner) -> Callable[[int], float]:
    def speed(size: int) -> float:
        stream = made._streams._all[0]
        recorded = stream._record((size, TILE, TILE))

        def call() -> None:
            recorded.graph.replay()
            torch.cuda.synchronize()

        return size / seconds(call)

    return speed


def _called(preset: str, threads: int = 1) -> Callable[[int], float]:
    def speed(size: int) -> float:
        made = refiner(preset, batch_size=size)
        tiles = np.random.default_rng(0).random((size, TILE, TILE), np.float32)
        with ThreadPoolExecutor(threads) as pool:
            calls = 4 * threads

            def call() -> None:
                list(pool.map(made, [tiles] * calls))

            return calls * size / seconds(call)

    return speed


def _memory(made: TorchRefiner, size: int) -> float:
    tiles = _batch(size)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.inference_mode():
        made.network.refine(tiles)
    return (torch.cuda.max_memory_allocated() - before) / 1e6


@contextmanager
def busy() -> Iterator[list[int]]:
    """Percent of time with a kernel at work, sampled by the driver."""
    found: list[int] = []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms"]
    sampler = subprocess.Popen([*query, "100"], stdout=subprocess.PIPE, text=True)

    def collect() -> None:
        assert sampler.stdout is not None
        found.extend(int(line) for line in sampler.stdout if line.strip().isdigit())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield found
    finally:
        sampler.terminate()
        thread.join()


def refine(presets: list[str], side: int, repeat: int) -> None:
    """Print `refine` from file to file beside the same number of bare passes."""
    with tempfile.TemporaryDirectory() as scratch:
        scene = Path(scratch) / "scene.tif"
        repeated(scene, height=side, width=side)
        for preset, by_torch in product(presets, (False, True)):
            made = refiner(preset)
            if by_torch:
                made.compile()
            size = made.batch_size
            tiles = np.random.default_rng(0).random((size, TILE, TILE), np.float32)
            made(tiles)
            for outputs in ({}, {"confidence": Path(scratch) / "refined.tif"}):
                for run in range(repeat + 1):
                    with busy() as samples:
                        start = time.perf_counter()
                        done = geothresh.refine(
                            scene,
                            Path(scratch) / "mask.tif",
                            model=made,
                            **grouped(overwrite=True, resume=False, **outputs),
                        )
                        whole = time.perf_counter() - start
                    n_calls = -(-done.tiles_refined // size)
                    with ThreadPoolExecutor(made.parallel_calls) as pool:
                        start = time.perf_counter()
                        list(pool.map(made, [tiles] * n_calls))
                        bare = time.perf_counter() - start
                    if run == 0:
                        continue
                    print(
                        f"{preset:6}{'compiled, ' if by_torch else ''}"
                        f"{side} x {side}, batch {size}, mask"
                        f"{' and confidence' if outputs else '':15} {done.tiles_refined} tiles "
                        f"in {whole:6.2f} s: {done.tiles_refined / whole:7.1f} tiles/s, "
                        f"{side * side / 1e6 / whole:6.1f} MP/s; bare forward with copies "
                        f"{bare:6.2f} s, ratio {whole / bare:5.2f}; "
                        f"busy {statistics.fmean(samples or [0]):.0f} %"
                    )


def training(presets: list[str]) -> None:
    """Print steps/s of forward, loss, backward and AdamW on chips that lie on the GPU."""
    for preset in presets:
        for batch, side in ((8, 320), (8, 512)):
            net = ThreshNet(config(preset)).cuda().to(memory_format=torch.channels_last).train()
            optimizer = torch.optim.AdamW(net.parameters())
            chips = torch.rand((batch, 1, side, side), device="cuda")
            truth = (torch.rand_like(chips) > 0.5).float()

            def step(net=net, optimizer=optimizer, chips=chips, truth=truth) -> None:
                with torch.autocast("cuda", torch.bfloat16):
                    logits = net(chips.contiguous(memory_format=torch.channels_last))
                losses = threshnet_loss(
                    confidence=chips, logits=logits, region_target=truth, truth=truth, valid=None,
                    weights=LossWeights(overlap=1.0, centerline=0.5),
                )  # fmt: skip
                optimizer.zero_grad(set_to_none=True)
                losses["total"].backward()
                optimizer.step()
                torch.cuda.synchronize()

            print(f"{preset:6}{batch} chips of {side}: {1 / seconds(step):6.1f} steps/s")


def kernels(presets: list[str]) -> None:
    """Print the kernels of one pass that take most of its time, and what autotuning changes."""
    for preset in presets:
        made = refiner(preset, batch_size=4)
        tiles = _batch(4)

        def call(made=made, tiles=tiles) -> None:
            with torch.inference_mode():
                made.network.refine(tiles)
            torch.cuda.synchronize()

        for tuned in (False, True):
            with torch.backends.cudnn.flags(benchmark=tuned, allow_tf32=True):
                print(f"{preset:6}cudnn.benchmark {tuned}: {4 / seconds(call):.1f} tiles/s")
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
            call()
        print(f"{preset:6}us a tile, calls, operation and the shapes that it was given")
        ops = [
            event
            for event in profile.key_averages(group_by_input_shape=True)
            if event.key.startswith("aten::") and event.self_device_time_total
        ]
        for event in sorted(ops, key=lambda event: -event.self_device_time_total)[:25]:
            each = event.self_device_time_total / 4
            print(f"{each:9.1f} {event.count:4} {event.key[6:]:28} {event.input_shapes[:2]}")


def main() -> None:
    """Parse the command line, and do one part."""
    parser = script_parser(__doc__)
    parts = ["network", "compile", "refine", "training", "kernels", "all"]
    parser.add_argument("part", choices=parts)
    parser.add_argument("--preset", action="append", choices=list(PRESETS))
    parser.add_argument("--side", type=int, default=18000)
    parser.add_argument("--repeat", type=int, default=2)
    chosen = parser.parse_args()
    presets = chosen.preset or ["full", "small"]
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    print(
        f"{torch.cuda.get_device_name()}, {memory:.0f} GiB; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"dask {version('dask')}, rasterio {version('rasterio')}"
    )
    calls = {
        "network": partial(network, presets),
        "compile": partial(compiled, presets),
        "refine": partial(refine, presets, chosen.side, chosen.repeat),
        "training": partial(training, presets),
        "kernels": partial(kernels, presets),
    }
    for name, part in calls.items():
        if chosen.part in (name, "all"):
            part()


if __name__ == "__main__":
    main()
