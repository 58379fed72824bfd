"""What a run over many files costs beside the work: planning, the parent, tiles refined twice.

python tests/benchmarks/bench_many.py plan --files 10000    # sparse files of 512 x 512 pixels
python tests/benchmarks/bench_many.py parent --workers 2    # a model that costs nothing
python tests/benchmarks/bench_many.py borders --piece 16384
python tests/benchmarks/bench_many.py small --files 1024    # of 96 x 96 pixels, side by side
python tests/benchmarks/bench_many.py speedup               # of two workers, over one
python tests/benchmarks/bench_many.py network               # likewise, with a real network
"""

from __future__ import annotations

import math
import pickle
import struct
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import click
import numpy as np
import rasterio
from identity import Costly, CostlySource, Identity, IdentitySource
from measuring import machine, peak_megabytes, table
from rasterio.transform import Affine
from rasterio.windows import Window
from scenes import TILE, repeated

from geothresh import (
    Compute,
    Many,
    Reading,
    RefineManyResult,
    Refining,
    Tiling,
    Writing,
    refine_many,
)
from geothresh.machine import usable_cores
from geothresh.many.examining import examine_all, group
from geothresh.many.inputs import find_inputs
from geothresh.many.planning import PlannedSurface, plan_surface, plan_units, require_apart
from geothresh.many.units import output_name
from geothresh.mosaic import fleet
from geothresh.run.jobs import RunOptions
from geothresh.tiling import TileGrid
from geothresh.types import Float32Array
from geothresh.windows import RasterSize

Made = TypeVar("Made")
#: The corner of the first file, whose bytes are told from all others of a TIFF.
CORNER = (412_345.0, 5_098_765.0)
SIDE = 512


@click.group()
def main() -> None:
    """Benchmarks of a run over many files; each is one command."""
    warnings.simplefilter("ignore")  # sparse files lack their blocks
    print(machine("rasterio", "numpy", "dask"))


def sparse_file(path: Path, side: int) -> Path:
    """A GeoTIFF without a block."""
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint8", nodata=255,
        crs="EPSG:32632", transform=Affine(1, 0, CORNER[0], 0, -1, CORNER[1]), tiled=True,
        compress="deflate", sparse_ok=True, bigtiff="yes",
    ):  # fmt: skip
        return path


def sparse_files(folder: Path, count: int) -> None:
    """A square of files that meet, copies of one but for their corners."""
    content = sparse_file(folder / "t.tif", SIDE).read_bytes()
    (folder / "t.tif").unlink()
    corner = struct.pack("<2d", *CORNER)
    assert content.count(corner) == 1
    across = math.isqrt(count)
    for index in range(count):
        row, col = divmod(index, across)
        moved = struct.pack("<2d", CORNER[0] + col * SIDE, CORNER[1] - row * SIDE)
        (folder / f"t{row:04d}_{col:04d}.tif").write_bytes(content.replace(corner, moved))


def planned(files: Any, many: Many) -> list[PlannedSurface]:
    """The surfaces of files that were examined."""
    options = RunOptions(
        model=IdentitySource(), reading=Reading(), refining=Refining(), tiling=Tiling(),
        compute=Compute(), writing=Writing(),
    )  # fmt: skip
    surfaces = group(files, separately=False)
    return [plan_surface(surface, files, many, options) for surface in surfaces]


@main.command()
@click.option("--files", "count", default=10_000)
def plan(count: int) -> None:
    """Print what is taken of time and memory before the first tile of so many files."""
    rows = []
    many, nowhere = Many(), Path("none")

    def step(name: str, call: Callable[[], Made]) -> Made:
        wall, cpu = time.perf_counter(), time.process_time()
        made = call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        per = (f"{seconds / count * 1e3:.3f}" for seconds in (wall, cpu))
        rows.append([name, f"{wall:.1f}", *per, f"{peak_megabytes():.0f}"])
        return made

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sparse_files(folder, count)
        step("imports", lambda: None)
        inputs = step("find", lambda: find_inputs([folder], nowhere, allow_vrt=False))
        files = step("examine", lambda: examine_all(inputs.sources, Reading(), many))
        surfaces = step("put together", lambda: planned(files, many))
        units = step("cut into units", lambda: plan_units(surfaces, many))
        names = [output_name(unit.name, layer) for unit in units for layer in many.written]
        locations = [source.location for source in inputs.sources]
        step("compare names", lambda: require_apart(nowhere, names, locations))
        step("what a rerun asks: digests", lambda: [unit.digest() for unit in units])
    print(table(["step", "s", "ms a file", "of processors", "peak MB"], rows))


@main.command()
@click.option("--workers", default=2)
@click.option("--side", default=8192, help="Rows and columns.")
@click.option("--piece", default=2048)
def parent(workers: int, side: int, piece: int) -> None:
    """Print what this process takes, and what goes between processes, while workers work."""
    with tempfile.TemporaryDirectory() as scratch:
        scene = repeated(Path(scratch) / "scene.tif", height=side, width=side)
        with watched_fleet() as told:
            result = on_workers(scene, workers, piece, IdentitySource())
    tiles = result.tiles_refined + result.tiles_skipped
    print(
        f"{side} x {side} in {told['units']:.0f} pieces, {tiles} tiles, {workers} workers: "
        f"{told['wall']:.1f} s"
    )
    print(
        f"this process: {told['cpu']:.2f} s of processor time, "
        f"{told['cpu'] / tiles * 1e3:.3f} ms a tile, {told['cpu'] / told['units'] * 1e3:.1f} ms a "
        "piece"
    )
    print(
        f"between processes: {told['bytes'] / told['units']:.0f} bytes a piece, "
        f"{told['bytes'] / side**2:.5f} a pixel"
    )


@contextmanager
def watched_fleet() -> Iterator[dict[str, float]]:
    """What goes between processes meanwhile, and time from the first unit to the last result."""
    told = {"bytes": 0.0, "units": 0.0, "cpu": 0.0, "wall": 0.0}
    run_units = fleet.run_units

    def counting(work: Any, units: Iterable[Any], where: Any) -> Iterator[Any]:
        begun: list[tuple[float, float]] = []

        def sent() -> Iterator[Any]:
            for unit in units:
                # Asked for when workers are there.
                begun.append((time.process_time(), time.perf_counter()))
                told["bytes"] += len(pickle.dumps((work, unit)))
                yield unit

        for result in run_units(work, sent(), where):
            told["bytes"] += len(pickle.dumps(result))
            told["units"] += 1
            yield result
            told["cpu"] = time.process_time() - begun[0][0]
            told["wall"] = time.perf_counter() - begun[0][1]

    fleet.run_units = counting
    try:
        yield told
    finally:
        fleet.run_units = run_units


def on_workers(scene: Path, workers: int, piece: int, model: Any) -> RefineManyResult:
    """Refine a scene in pieces, into a directory that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        return refine_many(
            [scene], Path(scratch) / "out", model=model, many=Many(piece=piece),
            compute=Compute(workers=workers, device="cpu"),
        )  # fmt: skip


@main.command()
@click.option("--side", default=8192, help="Rows and columns.")
@click.option("--piece", default=2048)
@click.option("--cost", default=20, help="Sines of each pixel that the model takes.")
@click.option("--rounds", default=3)
def speedup(side: int, piece: int, cost: int, rounds: int) -> None:
    """Print the throughput of one worker and of two, in turn, with a model that costs one core.

    Beside it that of one and two processes that do the model's work alone: what the cores give.
    """
    gains, given = [], []
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        scene = repeated(Path(scratch) / "scene.tif", height=side, width=side)
        for number in range(1, rounds + 1):
            rates, bare = [], []
            for workers in (1, 2):
                rate, tiles = _rate(scene, workers, piece, CostlySource(cost))
                rates.append(rate)
                bare.append(_bare_rate(workers, tiles, cost))
            gains.append(rates[1] / rates[0] / 2)
            given.append(bare[1] / bare[0] / 2)
            numbers = [*rates, gains[-1], *bare, given[-1]]
            rows.append([str(number), *(f"{one:.2f}" for one in numbers)])
    heads = ["round", "1 worker, tiles/s", "2 workers", "of twice one"]
    print(table([*heads, "1 bare process", "2 of them", "of twice one"], rows))
    print(
        f"median: two workers {median(gains):.2f} of twice one, bare processes {median(given):.2f}"
    )


@main.command()
@click.option("--side", default=6144, help="Rows and columns.")
@click.option("--piece", default=1536)
@click.option("--model", default="roads", help="A packaged model.")
@click.option("--rounds", default=3)
def network(side: int, piece: int, model: str, rounds: int) -> None:
    """Print the throughput of a network in one worker with all cores, and in one for each core."""
    cores = usable_cores()
    gains, rows = [], []
    with tempfile.TemporaryDirectory() as scratch:
        scene = repeated(Path(scratch) / "scene.tif", height=side, width=side)
        for number in range(1, rounds + 1):
            rates = [_rate(scene, workers, piece, model)[0] for workers in (1, cores)]
            gains.append(rates[1] / rates[0])
            rows.append([str(number), *(f"{one:.2f}" for one in [*rates, gains[-1]])])
    print(table(["round", "1 worker, tiles/s", f"{cores} workers", "of one"], rows))
    print(f"median: {cores} workers {median(gains):.2f} of one with all cores")


def _rate(scene: Path, workers: int, piece: int, model: Any) -> tuple[float, int]:
    """Tiles per second from the first piece given out to the last one done, and tiles."""
    with watched_fleet() as told:
        result = on_workers(scene, workers, piece, model)
    tiles = result.tiles_refined + result.tiles_skipped
    return tiles / told["wall"], tiles


def _bare_rate(processes: int, tiles: int, cost: int) -> float:
    """Tiles per second of processes that do the model's work on tiles in memory alone."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_work, [1] * processes, [1] * processes))
        started = time.perf_counter()
        list(pool.map(_work, [cost] * processes, [tiles // processes] * processes))
        return tiles // processes * processes / (time.perf_counter() - started)


def _work(cost: int, tiles: int) -> None:
    model, tile = Costly(cost), np.full((1, TILE, TILE), 0.5, np.float32)
    for _ in range(tiles):
        model(tile)


class Counting(Identity):
    """A model that costs nothing, and counts its tiles."""

    tiles = 0

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Count, and give back a copy."""
        self.tiles += len(tiles)
        return super().__call__(tiles)


@main.command()
@click.option("--files", "count", default=1024, help="A square number.")
@click.option("--side", default=96, help="Rows and columns of each.")
def small(count: int, side: int) -> None:
    """Print what small files side by side take: tiles that they see, and that are refined."""
    across = math.isqrt(count)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "files"
        folder.mkdir()
        scene = repeated(Path(scratch) / "scene.tif", height=across * side, width=across * side)
        with rasterio.open(scene) as whole:
            for row, col in product(range(across), range(across)):
                window = Window(col * side, row * side, side, side)
                with rasterio.open(
                    folder / f"t{row:03d}_{col:03d}.tif", "w", driver="GTiff", height=side,
                    width=side, count=1, dtype="uint8", crs=whole.crs,
                    transform=whole.window_transform(window),
                ) as file:  # fmt: skip
                    file.write(whole.read(1, window=window), 1)
        model = Counting()
        cpu, wall = time.process_time(), time.perf_counter()
        result = refine_many([folder], Path(scratch) / "out", model=model)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    grid = TileGrid(size=RasterSize(height=across * side, width=across * side))
    seen = result.tiles_refined + result.tiles_skipped
    print(
        f"{across**2} files of {side} x {side}: {grid.n_tiles} tiles lie over them, their files "
        f"see {seen}, {model.tiles} were refined"
    )
    print(
        f"{cpu / across**2 * 1e3:.0f} ms of processors a file, {wall / across**2 * 1e3:.0f} by "
        "the clock"
    )


@main.command()
@click.option("--side", default=131_072, help="Rows and columns.")
@click.option("--piece", default=16_384)
def borders(side: int, piece: int) -> None:
    """Print how many tiles are refined more than once, as they lie on borders of pieces."""
    with tempfile.TemporaryDirectory() as scratch:
        path = sparse_file(Path(scratch) / "huge.tif", side)
        many = Many(piece=piece)
        inputs = find_inputs([path], Path("none"), allow_vrt=False)
        surfaces = planned(examine_all(inputs.sources, Reading(), many), many)
        units = plan_units(surfaces, many)
        grid = surfaces[0].method.grid
    tiles, done = grid.n_tiles, sum(unit.tiles for unit in units)
    print(
        f"{side} x {side} in {len(units)} pieces of {piece}, tiles of {grid.tile} with an overlap "
        f"of {grid.overlap}: {tiles} tiles, {done} refined, {100 * (done / tiles - 1):.2f} % twice"
    )


if __name__ == "__main__":
    main()
