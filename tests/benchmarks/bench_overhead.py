"""What `refine` does beside refining: step by step, and what survival costs.

python tests/benchmarks/bench_overhead.py parts     # where the time around the network goes
python tests/benchmarks/bench_overhead.py feed      # pixels a second, to the host alone
python tests/benchmarks/bench_overhead.py survival  # what journal and verification cost
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from identity import Identity
from measuring import Seconds, in_turn, least, machine, table, timed
from scenes import SCENE, repeated

import geothresh
from geothresh import packed
from geothresh.api.models import load_model
from geothresh.durability import Journal
from geothresh.machine import keep_freed_memory
from geothresh.mosaic import refining, threads
from geothresh.options import Outputs, Writing
from geothresh.raster.dataset import OpenBand
from geothresh.raster.writing import RasterWriter
from geothresh.types import Float32Array


@click.group()
def main() -> None:
    """Benchmarks of what `refine` does around the network; each is one command."""
    keep_freed_memory()  # as where a GPU is fed


@main.command()
@click.option("--side", default=9_000, help="Rows and columns.")
@click.option("--repeat", default=5, help="Rounds.")
@click.option("--mask-alone", is_flag=True, help="Without the confidence.")
def parts(side: int, repeat: int, mask_alone: bool) -> None:
    """Print what `refine` takes of the processor, step by step, with a model that costs nothing."""
    print(machine("torch", "numpy", "dask", "rasterio"))
    steps: dict[str, tuple[Any, str]] = {
        "read: decode": (OpenBand, "stored"),
        "read: scale, mirror": (refining, "read_mirrored"),
        "model: a copy": (Identity, "__call__"),
        "weight tiles": (refining._Shares, "add"),
        "blend chunks": (threads, "blend_chunk"),
        "pack strips": (packed.PackedLayer, "of"),
        "keep strips": (Journal, "add"),
        "write: deflate": (RasterWriter, "write"),
        "verify": (RasterWriter, "finish"),
    }
    spent: dict[str, float] = {}
    lock = threading.Lock()

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                with lock:
                    spent[name] = spent.get(name, 0.0) + time.thread_time() - start

        return run

    for name, (home, method) in steps.items():
        call = vars(home)[method]
        if isinstance(call, classmethod):
            setattr(home, method, classmethod(watched(name, call.__func__)))
        else:
            setattr(home, method, watched(name, call))
    free = Identity()
    free.digest = "identity"  # without one, nothing would be kept
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        source = repeated(Path(scratch) / "in.tif", height=side, width=side)
        outputs = Outputs(confidence=None if mask_alone else Path(scratch) / "refined.tif")

        def run() -> None:
            geothresh.refine(
                source,
                Path(scratch) / "mask.tif",
                model=free,
                outputs=outputs,
                writing=Writing(overwrite=True),
            )

        for _ in range(repeat):
            spent.clear()
            taken = timed(run)
            inside = spent["read: decode"]
            spent["read: scale, mirror"] -= inside
            rounds.append({**spent, "all else": taken.cpu - sum(spent.values()), "": taken.cpu})
    rows = [
        [name, f"{statistics.median(1e9 * found[name] / side**2 for found in rounds):.1f}"]
        for name in (*steps, "all else", "")
    ]
    made = "mask" if mask_alone else "mask and confidence"
    print(f"\n{side} x {side}, {made}, medians of {repeat}\n")
    print(table(["step", "ms of the processor for a million pixels"], rows))


class Free(Identity):
    """A model that costs nothing, and whose runs can be resumed."""

    digest = "free"
    takes_views = True

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Give them back."""
        return tiles


@main.command()
@click.option("--side", default=9_000, help="Rows and columns.")
@click.option("--repeat", default=5, help="Rounds.")
def feed(side: int, repeat: int) -> None:
    """Print what the host makes of a scene from file to file, with a model that costs nothing.

    It is what no accelerator can be faster than.
    """
    print(machine("numpy", "dask", "rasterio"))
    zstd = {"COMPRESS": "ZSTD", "ZSTD_LEVEL": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = repeated(folder / "in.tif", height=side, width=side)

        def run(confidence: bool, creation_options: dict[str, str]) -> Seconds:
            outputs = Outputs(confidence=folder / "refined.tif" if confidence else None)
            writing = Writing(overwrite=True, creation_options=creation_options)
            return timed(
                lambda: geothresh.refine(
                    source, folder / "mask.tif", model=Free(), outputs=outputs, writing=writing
                )
            )

        run(True, {})  # first calls and imports are not what is measured
        runs = in_turn(
            {
                f"{layers}, {method}": partial(run, layers != "mask", options)
                for layers in ("mask", "mask and confidence")
                for method, options in (("deflate", {}), ("ZSTD, level 1", zstd))
            },
            repeat,
        )
    rows = []
    for name, found in runs.items():
        best = least(found)
        cpu = statistics.median(one.cpu for one in found)
        rows.append([name, f"{side**2 / 1e6 / best.wall:.0f}", f"{1e9 * cpu / side**2:.1f}"])
    print(f"\n{side} x {side}, {repeat} rounds\n")
    print(table(["", "MP/s at best", "ms of the processor for a million pixels"], rows))


@main.command()
@click.option("--side", default=8_000, help="Rows and columns.")
@click.option("--repeat", default=4, help="Pairs of runs.")
def survival(side: int, repeat: int) -> None:
    """Print what the journal and the verification take of a run over `side` x `side` pixels.

    Runs with and without a journal take turns in being first. The processor's seconds of the one
    thread that writes are what it costs; wall time there holds the waiting for busy processors too,
    beside which the network goes on. The same with a model that costs nothing shows the difference
    without the network's noise.
    """
    print(machine("torch", "numpy", "dask", "rasterio"))
    spent = dict.fromkeys(("journal", "verification"), (0.0, 0.0))

    def timed(home: type, name: str, what: str) -> None:
        method = getattr(home, name)

        def call(*args: object, **options: object) -> object:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*args, **options)
            finally:
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                spent[what] = (spent[what][0] + wall, spent[what][1] + cpu)

        setattr(home, name, call)

    for name in ("add", "commit", "record_made"):
        timed(Journal, name, "journal")
    timed(RasterWriter, "finish", "verification")
    free = Identity()
    free.digest = "identity"  # without one, nothing would be kept
    with tempfile.TemporaryDirectory() as scratch:
        source = repeated(Path(scratch) / "in.tif", height=side, width=side)
        # First calls and imports are not what is measured.
        geothresh.refine(SCENE, Path(scratch) / "first.tif", model=free)
        for model in (free, load_model("roads")):
            walls, cpus, added = [], [], []
            for pair in range(repeat):
                wall, cpu = {}, {}
                for resume in (True, False) if pair % 2 else (False, True):
                    spent.update(journal=(0.0, 0.0), verification=(0.0, 0.0))
                    start, ticks = time.perf_counter(), time.process_time()
                    geothresh.refine(
                        source,
                        Path(scratch) / "mask.tif",
                        model=model,
                        outputs=Outputs(confidence=Path(scratch) / "refined.tif"),
                        writing=Writing(resume=resume, overwrite=True),
                    )
                    wall[resume] = time.perf_counter() - start
                    cpu[resume] = time.process_time() - ticks
                    parts = ", ".join(
                        f"{what} {there:.2f} s ({100 * there / wall[resume]:.1f} %), of the "
                        f"processor {own:.2f} s ({100 * own / cpu[resume]:.1f} %)"
                        for what, (there, own) in spent.items()
                    )
                    print(
                        f"{model.name}, {'with' if resume else 'without'} a journal: "
                        f"{wall[resume]:.1f} s, processor {cpu[resume]:.1f} s; "
                        f"in the writing thread {parts}",
                        flush=True,
                    )
                walls.append(wall[True] / wall[False])
                cpus.append(cpu[True] / cpu[False])
                added.append(cpu[True] - cpu[False])
            print(
                f"{model.name}, with over without a journal, median of {repeat} pairs: wall "
                f"{statistics.median(walls):.3f}, processor {statistics.median(cpus):.3f} "
                f"({statistics.median(added):+.2f} s)"
            )


if __name__ == "__main__":
    main()
