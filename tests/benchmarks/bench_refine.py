"""`refine` beside the network alone, and its peak memory from file to file.

    python tests/benchmarks/bench_refine.py speed     # time over bare forward; speed 3: 3 pairs;
                                                      # speed 3 full: the preset, untrained;
                                                      # speed 3 roads 4: a scene of 4 times the rows
    python tests/benchmarks/bench_refine.py memory    # peak memory over height and width
    python tests/benchmarks/bench_refine.py network   # presets, tile by tile
    python tests/benchmarks/bench_refine.py survival  # what journal and verification cost
    python tests/benchmarks/bench_refine.py parts     # where the time around the network goes
    python tests/benchmarks/bench_refine.py nodata    # a scene half without data over a full one

Speeds are measured in turn in one process, so that a machine that is busy otherwise hurts both
sides alike; the ratio is what to look at. Memory is the highest resident size of a process of its
own, libraries included, with a model that costs nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench_pipeline import OVERLAP, TILE, Identity, random_bytes
from measuring import in_turn, least, machine, peak_megabytes, ratio, table, timed

import geothresh
from geothresh.mosaic.reading import read_mirrored
from geothresh.nn.refiner import Precision, TorchRefiner, load_model
from geothresh.raster.reading import open_scene
from geothresh.windows import TileGrid

SCENE = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"
SIZES = ((4000, 4000), (8000, 4000), (64000, 4000), (128000, 4000), (4000, 20000), (4000, 64000))


def repeated(target: Path, *, height: int, width: int) -> Path:
    """A scene of this size: the demo scene again and again, beside and below itself."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(SCENE) as dataset:
        part = dataset.read(1)
        profile = dataset.profile | {"width": width, "height": height}
    with rasterio.open(target, "w", **profile) as dataset:
        for row in range(0, height, part.shape[0]):
            for col in range(0, width, part.shape[1]):
                piece = part[: height - row, : width - col]
                window = Window(col, row, piece.shape[1], piece.shape[0])
                dataset.write(piece, 1, window=window)
    return target


def scene_tiles(scene_file: Path = SCENE) -> list[np.ndarray]:
    """A scene's tiles that hold data, as `refine` gives them to the network."""
    with open_scene(scene_file) as scene:
        grid = TileGrid(size=scene.size, tile=TILE, overlap=OVERLAP, patch=64)
        tiles = [read_mirrored(scene, window) for window in _windows(grid)]
    return [np.ascontiguousarray(tile) for tile, valid in tiles if valid.any()]


def _windows(grid: TileGrid) -> list:
    return [grid.window(row, col) for row in range(grid.n_rows) for col in range(grid.n_cols)]


class Watched:
    """A model that notes when it is at work."""

    def __init__(self, model: TorchRefiner) -> None:
        self._model = model
        self.patch, self.name, self.digest = model.patch, model.name, model.digest
        self.batch_size, self.parallel_calls = model.batch_size, model.parallel_calls
        self._spans: list[tuple[float, float]] = []

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Refine tiles."""
        start = time.perf_counter()
        refined = self._model(tiles)
        self._spans.append((start, time.perf_counter()))
        return refined

    @property
    def first(self) -> float:
        """When the first pass began."""
        return min(start for start, _ in self._spans)

    @property
    def last(self) -> float:
        """When the last one ended."""
        return max(end for _, end in self._spans)

    @property
    def busy(self) -> float:
        """Seconds in which there was at least one."""
        total, until = 0.0, self.first
        for start, end in sorted(self._spans):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total


def untrained(preset: str, precision: Precision = "auto") -> TorchRefiner:
    """A network of this size on the CPU."""
    from geothresh.nn.config import PRESETS
    from geothresh.nn.network import ThreshNet

    config = PRESETS[preset]
    return TorchRefiner(
        ThreshNet(config).state_dict(), config, name=preset, device="cpu", precision=precision
    )


def per_second(model: TorchRefiner, batches: list[np.ndarray]) -> float:
    """Tiles a second of as many callers as the model gains by."""
    with ThreadPoolExecutor(model.parallel_calls) as callers:
        start = time.perf_counter()
        list(callers.map(model, batches))
        return sum(map(len, batches)) / (time.perf_counter() - start)


def speed(repeat: int, name: str, times: int) -> None:
    """Print seconds of bare forward, of `refine` with one output and with two, and their ratios;
    and when the network was idle during the latter."""
    model = load_model("roads") if name == "roads" else untrained(name)
    idle: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        with open_scene(SCENE) as demo:
            height, width = times * demo.size.height, demo.size.width
        scene = repeated(Path(scratch) / "scene.tif", height=height, width=width)
        tiles = scene_tiles(scene)
        batches = [
            np.stack(tiles[first : first + model.batch_size])
            for first in range(0, len(tiles), model.batch_size)
        ]

        def bare() -> None:
            per_second(model, batches)

        def whole(confidence: Path | None) -> None:
            watched = Watched(model)
            start = time.perf_counter()
            result = geothresh.refine(
                scene,
                Path(scratch) / "mask.tif",
                confidence_out=confidence,
                model=watched,
                overwrite=True,
            )
            end = time.perf_counter()
            if result.tiles_refined != len(tiles):
                raise SystemExit(f"{result.tiles_refined} tiles refined, {len(tiles)} forwarded")
            if confidence is None:
                return
            first, last = watched.first, watched.last
            idle.append((first - start, last - first - watched.busy, end - last))

        model(tiles[0][np.newaxis])  # first calls are not what is measured
        cases = {
            "bare": partial(timed, bare),
            "mask": partial(timed, partial(whole, None)),
            "mask and refined confidence": partial(
                timed, partial(whole, Path(scratch) / "refined.tif")
            ),
        }
        runs = in_turn(cases, repeat)
    best = {name: least(found) for name, found in runs.items()}
    print(f"{height} x {width}, {len(tiles)} tiles of {TILE}, model {name}, {model.dtype}")
    print(
        f"bare forward {best['bare'].wall:6.2f} s at best, "
        f"{len(tiles) / best['bare'].wall:.1f} tiles/s"
    )
    for case in ("mask", "mask and refined confidence"):
        over = [ratio(runs[case], runs["bare"], of=of) for of in ("wall", "cpu")]
        print(
            f"refine       {best[case].wall:6.2f} s at best, over bare forward {over[0]:.3f}, of "
            f"processor time {over[1]:.3f}, medians of {repeat}: {case}"
        )
    before, between, after = (statistics.median(part) for part in zip(*idle, strict=True))
    print(
        f"the network waits {before:.2f} s for the first tile, {between:.2f} s between tiles, and "
        f"{after:.2f} s are left after the last one"
    )


def nodata(repeat: int) -> None:
    """Print what a strip takes of which the lower half holds no data, over one that is full."""
    import rasterio

    from geothresh.nn.config import PRESETS
    from geothresh.nn.network import ThreshNet

    tile, overlap, rows = 256, 64, 200
    height = tile + (rows - 1) * (tile - overlap)
    values = random_bytes(height, tile)
    values[values == 0] = 1  # no tile of one value, which would cost nothing
    values += (np.arange(tile) % 2).astype(np.uint8)
    network = ThreshNet(PRESETS["small"])
    refiner = TorchRefiner(network.state_dict(), PRESETS["small"], device="cpu")
    refined = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.tif" for name in ("full", "half")}
        for name, file in files.items():
            if name == "half":
                values[height // 2 :] = 255
            with rasterio.open(
                file, "w", driver="GTiff", height=height, width=tile, count=1, dtype="uint8",
                nodata=255, tiled=True, blockxsize=512, blockysize=512, compress="deflate",
                crs="EPSG:32632", transform=rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6),
            ) as dataset:  # fmt: skip
                dataset.write(values, 1)

        def run(name: str) -> None:
            output = Path(scratch) / f"{name}_mask.tif"
            result = geothresh.refine(
                files[name], output, model=refiner, tile_size=tile, overlap=overlap, overwrite=True
            )
            refined[name] = result.tiles_refined

        run("half")
        runs = in_turn({name: partial(timed, partial(run, name)) for name in files}, repeat)
    print(
        f"{height} x {tile}, network of the small preset, {refiner.dtype}: {refined['half']} of "
        f"{refined['full']} tiles refined; {ratio(runs['half'], runs['full']):.3f} of the time, "
        f"{ratio(runs['half'], runs['full'], of='cpu'):.3f} of the processor time, medians of "
        f"{repeat} pairs"
    )


def network(repeat: int) -> None:
    """Print the time of one tile through each preset, untrained, fp32 and as `auto` has it, and the
    tiles a second of as many callers as the processor takes."""
    import torch

    from geothresh.nn.config import PRESETS

    tile = np.random.default_rng(0).random((1, TILE, TILE), np.float32)
    for name in PRESETS:
        precisions: tuple[Precision, ...] = ("fp32", "auto")
        for precision in precisions:
            model = untrained(name, precision)
            parameters = sum(p.numel() for p in model.network.parameters())
            times, rates = [], []
            for _ in range(repeat + 1):
                start = time.perf_counter()
                model(tile)
                times.append(time.perf_counter() - start)
            for _ in range(repeat):
                rates.append(per_second(model, [tile] * 4 * model.parallel_calls))
            print(
                f"{name:6} {parameters / 1e6:5.2f} M parameters, {str(model.dtype)[6:]:9}"
                f"{min(times):7.3f} s a tile, {max(rates):6.2f} tiles/s with "
                f"{model.parallel_calls} at once ({torch.get_num_threads()} cores)"
            )


def memory() -> None:
    """Print the peak memory of `refine` at several sizes, each in a process of its own."""
    for height, width in SIZES:
        command = [sys.executable, __file__, "case", str(height), str(width)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        figures = json.loads(done.stdout)
        print(
            f"{height:6} x {width:6}: peak {figures['peak']:4.0f} MB "
            f"({figures['peak'] - figures['before']:4.0f} MB above the start of refine), "
            f"{height * width / 1e6 / figures['seconds']:6.1f} MP/s"
        )


def case(height: int, width: int) -> None:
    """Refine one raster of this size with a model that costs nothing; print figures as JSON."""
    import rasterio
    from rasterio.windows import Window

    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        "crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6),
    }  # fmt: skip
    block = random_bytes(512, 4096)
    with tempfile.TemporaryDirectory() as scratch, rasterio.Env(GDAL_CACHEMAX=16 * 2**20):
        source = Path(scratch) / "in.tif"
        with rasterio.open(source, "w", **profile) as dataset:
            for row in range(0, height, 512):
                for col in range(0, width, 4096):
                    part = block[: height - row, : width - col]
                    window = Window(col, row, part.shape[1], part.shape[0])
                    dataset.write(part, 1, window=window)
        before = peak_megabytes()
        start = time.perf_counter()
        geothresh.refine(source, Path(scratch) / "out.tif", model=Identity())
        seconds = time.perf_counter() - start
    peak = peak_megabytes()
    print(json.dumps({"seconds": seconds, "before": before, "peak": peak}))


def survival(side: int, repeat: int) -> None:
    """Print what the journal and the verification take of a run over `side` x `side` pixels.

    Runs with and without a journal take turns in being first. The processor's seconds of the one
    thread that writes are what it costs; wall time there holds the waiting for busy processors too,
    beside which the network goes on. The same with a model that costs nothing shows the difference
    without the network's noise.
    """
    from geothresh.journal import Journal
    from geothresh.raster.writing import RasterWriter

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
                        source, Path(scratch) / "mask.tif", model=model, resume=resume,
                        confidence_out=Path(scratch) / "refined.tif", overwrite=True,
                    )  # fmt: skip
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


def parts(side: int, repeat: int) -> None:
    """Print what `refine` takes of the processor, step by step, with a model that costs nothing."""
    from geothresh.journal import Journal
    from geothresh.mosaic import tasks, threads
    from geothresh.raster.scene import Scene
    from geothresh.raster.writing import RasterWriter

    steps: dict[str, tuple[Any, str]] = {
        "read: decode": (Scene, "stored"),
        "read: scale, mirror": (tasks, "read_mirrored"),
        "model: a copy": (Identity, "__call__"),
        "weight tiles": (tasks._Shares, "add"),
        "blend chunks": (threads, "blend_chunk"),
        "pack strips": (tasks.PackedLayer, "of"),
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

        def run() -> None:
            geothresh.refine(
                source, Path(scratch) / "mask.tif", model=free, overwrite=True,
                confidence_out=Path(scratch) / "refined.tif",
            )  # fmt: skip

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
    print(f"\n{side} x {side}, mask and confidence, medians of {repeat}\n")
    print(table(["step", "ms of the processor for a million pixels"], rows))


def main(arguments: list[str]) -> None:
    """Run what is asked for."""
    if arguments[:1] == ["case"]:
        case(int(arguments[1]), int(arguments[2]))
        return
    # What is left out of `speed PAIRS MODEL TIMES`.
    given = [*arguments[1:], *("5", "roads", "1")[len(arguments[1:]) :]]
    modes = {
        "speed": lambda: speed(int(given[0]), given[1], int(given[2])),
        "memory": memory,
        "network": lambda: network(5),
        "survival": lambda: survival(8_000, 4),
        "parts": lambda: parts(9_000, 5),
        "nodata": lambda: nodata(3),
    }
    if not arguments or arguments[0] not in modes:
        raise SystemExit(__doc__)
    print(machine("torch", "numpy", "dask", "rasterio"))
    modes[arguments[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
