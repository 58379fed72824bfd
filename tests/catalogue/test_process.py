"""122-132: what happens to the process: closed terminals, little memory, poor surroundings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geothresh.errors import ModelError
from geothresh.nn.device import Batches
from tests.catalogue.bench import Bench, error_line
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster

REPOSITORY = Path(__file__).parent.parent.parent
ROWS, COLUMNS = np.mgrid[:90, :110]
SMOOTH = (0.5 + 0.5 * np.sin(ROWS / 7.3) * np.cos(COLUMNS / 5.1)).astype(np.float32)
SMALL = ("--tile-size", "64", "--overlap", "16")


def command(bench: Bench, *arguments: object) -> list[str]:
    return [
        sys.executable, "-m", "geothresh", "refine", *map(str, arguments), "-m", str(bench.model),
        *SMALL,
    ]  # fmt: skip


def environment(**changes: str | None) -> dict[str, str]:
    """What a process needs to find the package, and `changes`; None takes a variable away."""
    given: dict[str, str | None] = {**os.environ, "PYTHONPATH": str(REPOSITORY), **changes}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.catalogue(122)
def test_nobody_reads_the_output(bench: Bench) -> None:
    write_raster(Path("x.tif"), SMOOTH)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command(bench, "x.tif", "--json"), stdout=writer, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
    finally:
        os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
    with rasterio.open("x_mask.tif") as mask:
        assert mask.shape == SMOOTH.shape


@pytest.mark.slow
@pytest.mark.catalogue(122)
def test_no_output_at_all(bench: Bench) -> None:
    """Started by a program that closed stdout and stderr."""
    write_raster(Path("x.tif"), SMOOTH)
    line = " ".join(map(subprocess.list2cmdline, [[part] for part in command(bench, "x.tif")]))
    done = subprocess.run(["sh", "-c", f"{line} >&- 2>&-"], env=environment())
    assert done.returncode == 0
    with rasterio.open("x_mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), SMOOTH >= 0.5)


@pytest.mark.slow
@pytest.mark.catalogue(122)
def test_a_terminal_that_closes(bench: Bench) -> None:
    # Noise, so that no two tiles are one; a few seconds of work.
    noise = np.random.default_rng(0).random((3000, 3000), np.float32)
    write_raster(Path("x.tif"), noise)
    with subprocess.Popen(
        command(bench, "x.tif", "--progress", "bar"), stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = ""
        while "/" not in said.rpartition("%")[2]:
            said += process.stderr.read(1)
        start = time.monotonic()
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 128 + signal.SIGHUP
        # Well below 5 on a machine that has nothing else to do.
        assert time.monotonic() - start < 20
        said += process.stderr.read()
    assert "Traceback" not in said and "SIGHUP" in said.splitlines()[-1]
    assert not Path("x_mask.tif").exists()


@pytest.mark.catalogue(126)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_batches_are_halved_down_to_one(error: Exception) -> None:
    import torch

    calls: list[int] = []

    def forward(tiles: Any) -> Any:
        calls.append(len(tiles))
        if len(tiles) > 1:
            raise error
        return tiles

    batches = Batches(8, torch.device("cpu"))
    tiles = np.random.default_rng(0).random((5, 4, 4), np.float32)
    np.testing.assert_array_equal(batches.run(forward, tiles), tiles)
    assert calls == [5, 4, 2, 1, 1, 1, 1, 1] and batches.size == 1

    def never(tiles: Any) -> Any:
        raise error

    with pytest.raises(ModelError, match="one tile of 4 x 4 does not fit in the memory of cpu"):
        batches.run(never, tiles)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
from geothresh.cli import main
main(sys.argv[2:], prog_name="geothresh")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere RLIMIT_AS limits nothing")
@pytest.mark.catalogue(126)
@pytest.mark.parametrize(
    "megabytes",
    [220, 900, *(pytest.param(size, marks=pytest.mark.slow) for size in (700, 1000, 1030, 1100))],
)
def test_too_little_memory_is_one_line(bench: Bench, megabytes: int) -> None:
    """From what the interpreter needs to what the network does, wherever it runs out."""
    write_raster(Path("x.tif"), np.random.default_rng(0).random((600, 600), np.float32))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes), "refine", "x.tif", "-o", "m.tif", "-q"],
        capture_output=True, text=True, timeout=60, env=environment(OMP_NUM_THREADS="1"),
    )  # fmt: skip
    # Never a signal; which library notices first is another matter on every machine.
    assert done.returncode in (0, 1, 5), done.stderr
    assert without_sides() == (["x.tif"] if done.returncode else ["m.tif", "x.tif"])
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith("Error: ")
        assert done.stderr.count("Error: ") == 1 and "Traceback" not in done.stderr
    if megabytes < 1024:
        assert f"not enough memory (the limit on the address space is {megabytes} MiB" in (
            error_line(done.stderr)
        )


@pytest.mark.slow
@pytest.mark.catalogue(128)
def test_poor_surroundings(bench: Bench) -> None:
    """No terminal, home, locale or place for temporary files; a directory that takes no file."""
    scene = write_raster(bench.place / "straße.tif", SMOOTH)
    poor = environment(
        LANG="C", LC_ALL="C", HOME=None, TMPDIR="/proc/none", USER=None,
        XDG_CACHE_HOME=None, TERM=None, PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    done = subprocess.run(
        command(bench, scene),
        stdin=subprocess.DEVNULL, capture_output=True, env=poor, cwd="/proc",
        start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(b"e_mask.tif")
    with rasterio.open(bench.place / "straße_mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), SMOOTH >= 0.5)
    missing = subprocess.run(
        command(bench, bench.place / "café.tif"), capture_output=True, env=poor, cwd="/proc"
    )
    assert missing.returncode == 3
    assert missing.stderr.count(b"\n") == 1 and missing.stderr.startswith(b"Error: ")


WORKERS = """
if __name__ == "__main__":
    # In here, since every worker imports this file.
    import sys
    import torch
    from tests.support.fakes import FakeSource
    from geothresh import Compute, Tiling, refine

    # The thread pool that a fork would inherit, locked.
    torch.set_num_threads(2)
    torch.nn.functional.conv2d(torch.rand(1, 8, 300, 300), torch.rand(8, 8, 3, 3)).sum().item()
    options = {"model": FakeSource(kind="uneven"), "tiling": Tiling(tile_size=64, overlap=16)}
    refine("x.tif", "a.tif", **options)
    refine("x.tif", "b.tif", compute=Compute(workers=int(sys.argv[1])), **options)
"""


def same_by_workers(workers: int, **options: Any) -> None:
    """Refine in threads and by workers, and compare; the workers load no torch."""
    write_raster(Path("x.tif"), SMOOTH)
    Path("run.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "run.py", str(workers)], capture_output=True, text=True, timeout=900,
        env=environment(), **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path("a.tif").read_bytes() == Path("b.tif").read_bytes()


@pytest.mark.slow
@pytest.mark.catalogue(130)
def test_workers_after_torch_has_threads(bench: Bench) -> None:
    """A fork would hang; workers are started anew."""
    same_by_workers(1)


@pytest.mark.storm
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPUs cannot be chosen here")
@pytest.mark.catalogue(129)
def test_64_workers_on_one_cpu(bench: Bench) -> None:
    start = time.perf_counter()
    same_by_workers(64, preexec_fn=lambda: os.sched_setaffinity(0, {0}))
    print(f"64 workers on one CPU: {time.perf_counter() - start:.0f} s")


@pytest.mark.catalogue(132)
def test_a_gpu_that_is_not_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    write_raster(Path("x.tif"), SMOOTH)
    bench.refine_refused(3, "0 CUDA devices are there; say auto", "x.tif", "--device", "cuda")
    bench.refine_refused(2, "device 'gpu' is unknown", "x.tif", "--device", "gpu")
    bench.refined("x.tif", "--device", "auto", expected=SMOOTH)


@pytest.mark.catalogue(132)
def test_a_gpu_that_cannot_be_used_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from geothresh.nn import device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "nvidia_gpus", lambda: 1)
    write_raster(Path("x.tif"), SMOOTH)
    # A model that is loaded already has its device.
    fresh = replace(bench, model=shutil.copy(bench.model, "fresh.safetensors"))
    fresh.refined("x.tif", expected=SMOOTH, warned=["the GPU of this machine cannot be used"])
    fresh.refined("x.tif", "--device", "cpu", expected=SMOOTH)


@pytest.mark.catalogue(132)
def test_a_gpu_that_is_lost_ends_a_run_that_goes_on_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is refined by another device than the rest: on the CPU its last bits would differ."""
    import torch

    from geothresh.nn import refiner

    passes: list[int] = []

    def lost(self: refiner.TorchRefiner, tiles: Any) -> Any:
        passes.append(len(tiles))
        if len(passes) > 50:  # of some 70, of which each strip of 512 rows needs 17
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore of it")
        time.sleep(0.01)  # for the thread that writes
        return real(self, tiles)

    rows, columns = np.mgrid[:2300, :64]
    values = (0.5 + 0.4 * np.sin(rows / 13.3) * np.cos(columns / 9.1)).astype(np.float32)
    write_raster(Path("x.tif"), values)
    options = ("--tile-size", "64", "--overlap", "32", "-m", bench.model)
    whole = bench.run("refine", "x.tif", "-o", "whole.tif", *options)
    assert whole.exit_code == 0, whole.stderr
    real = refiner.TorchRefiner._forward
    with monkeypatch.context() as patch:
        patch.setattr(refiner.TorchRefiner, "_forward", lost)
        ended = bench.run("refine", "x.tif", "-o", "out.tif", *options)
    assert ended.exit_code == 1
    assert "is lost (CUDA error: unspecified launch failure); look at it with" in ended.stderr
    assert "finished strips, kept" in ended.stderr and not Path("out.tif").exists()
    goes_on = bench.run("refine", "x.tif", "-o", "out.tif", *options, "--json")
    assert goes_on.exit_code == 0, goes_on.stderr
    assert json.loads(goes_on.stdout)["strips_resumed"] >= 1
    assert Path("out.tif").read_bytes() == Path("whole.tif").read_bytes()
