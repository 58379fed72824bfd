"""Speed and memory of the engine around an identity model, beside its rivals.

    python tests/benchmarks/bench_pipeline.py speed    # MP/s on a uint8 array and on a GeoTIFF
    python tests/benchmarks/bench_pipeline.py memory   # peak memory over height and width

Not part of the test run. Every figure comes from a process of its own; speeds are the best of
several. Memory is the highest resident size of the process, libraries included. On a machine that
is busy otherwise, look at the megapixels per second of processor time.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geothresh.blending import blend_profile
from geothresh.mosaic import BoolArray, Float32Array, mosaic
from geothresh.windows import PixelWindow, RasterSize, TileGrid

TILE, OVERLAP = 512, 128
Uint8Array = NDArray[np.uint8]


class Identity:
    """A model that costs one copy."""

    patch = 64
    name = "identity"
    digest = ""

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Give back a copy."""
        return tiles.copy()


class ByteReader:
    """A uint8 array as confidences."""

    def __init__(self, values: Uint8Array) -> None:
        self._values = values
        self.size = RasterSize(height=values.shape[0], width=values.shape[1])

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Scale one window to [0, 1]."""
        part = self._values[window.slices()].astype(np.float32)
        part *= np.float32(1 / 255)
        return part, np.ones(part.shape, np.bool_)


class EndlessReader:
    """A raster of any size that takes no memory: the same line in every row."""

    def __init__(self, height: int, width: int) -> None:
        self.size = RasterSize(height=height, width=width)
        self._line = np.random.default_rng(0).random(width, dtype=np.float32)

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Make one window."""
        values = np.empty((window.height, window.width), np.float32)
        values[...] = self._line[window.col : window.col_stop]
        return values, np.ones(values.shape, np.bool_)


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Wall seconds, processor seconds of all threads."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def to_bytes(confidence: Float32Array) -> Uint8Array:
    """Confidences as 0-255."""
    scaled = confidence * np.float32(255)
    values: Uint8Array = np.rint(scaled, out=scaled).astype(np.uint8)
    return values


def random_bytes(height: int, width: int) -> Uint8Array:
    """A map that compresses about as a confidence map does: long runs with noise between."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-height // 64), -(-width // 64)), dtype=np.uint8)
    coarse[rng.random(coarse.shape) < 0.6] = 0
    values = np.kron(coarse, np.ones((64, 64), np.uint8))[:height, :width]
    noise = rng.integers(0, 4, values.shape, dtype=np.uint8)
    return np.where(values > 0, values // 2 + noise, values).astype(np.uint8)


def with_engine(values: Uint8Array) -> Uint8Array:
    """geothresh on local threads."""
    result = np.empty_like(values)

    def sink(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        result[window.slices()] = to_bytes(refined)

    reader = ByteReader(values)
    grid = TileGrid(size=reader.size, tile=TILE, overlap=OVERLAP)
    mosaic(reader, Identity(), sink, grid=grid)
    return result


def with_map_overlap(values: Uint8Array) -> Uint8Array:
    """dask.array.map_overlap: chunks of a stride, half the overlap as depth, no blending."""
    import dask.array as da

    model = Identity()

    def refine(block: Uint8Array) -> Uint8Array:
        scaled = block.astype(np.float32)
        scaled *= np.float32(1 / 255)
        return to_bytes(model(scaled[np.newaxis])[0])

    array = da.from_array(values, chunks=TILE - OVERLAP)
    result: Uint8Array = array.map_overlap(
        refine, depth=OVERLAP // 2, boundary="reflect", dtype=np.uint8
    ).compute(scheduler="threads")
    return result


def with_accumulators(values: Uint8Array) -> Uint8Array:
    """Sum and weights of the whole scene in float64, tile after tile."""
    stride, (height, width) = TILE - OVERLAP, values.shape
    rows, cols = (max(0, -(-(side - TILE) // stride)) + 1 for side in (height, width))
    full = ((rows - 1) * stride + TILE, (cols - 1) * stride + TILE)
    pad = ((0, full[0] - height), (0, full[1] - width))
    padded = np.pad(values, pad, mode="symmetric").astype(np.float32) / np.float32(255)
    profile = blend_profile("hann", TILE, OVERLAP)
    weight = np.outer(profile, profile)
    total, weights = np.zeros(full), np.zeros(full)
    model = Identity()
    for row in range(0, full[0] - OVERLAP, stride):
        for col in range(0, full[1] - OVERLAP, stride):
            place = np.s_[row : row + TILE, col : col + TILE]
            total[place] += weight * model(padded[place][np.newaxis])[0]
            weights[place] += weight
    return to_bytes((total / weights)[:height, :width].astype(np.float32))


ON_ARRAYS: dict[str, Callable[[Uint8Array], Uint8Array]] = {
    "engine": with_engine,
    "map_overlap": with_map_overlap,
    "accumulators": with_accumulators,
}


def time_on_array(name: str, side: int) -> tuple[float, float]:
    """Seconds for a square uint8 array; checks that the identity came out."""
    values = random_bytes(side, side)
    ON_ARRAYS[name](values[:1024, :1024])  # imports and first calls are not what is measured
    clock = Clock()
    result = ON_ARRAYS[name](values)
    seconds = clock.read()
    assert (result == values).all()
    return seconds


def time_on_file(name: str, side: int) -> tuple[float, float]:
    """Seconds from a tiled, deflated uint8 GeoTIFF to another one, by the engine or by copying."""
    import rasterio
    from rasterio.windows import Window

    from geothresh.raster.reading import open_scene

    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        "crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.tif", Path(scratch) / "out.tif"
        with rasterio.open(source, "w", **profile) as dataset:
            dataset.write(random_bytes(side, side), 1)
        clock = Clock()
        with rasterio.open(target, "w", **profile) as out:

            def write(window: PixelWindow, values: Uint8Array) -> None:
                place = Window(window.col, window.row, window.width, window.height)
                out.write(values, 1, window=place)

            if name == "copy":
                with rasterio.open(source) as dataset:
                    for row in range(0, side, 512):
                        height = min(512, side - row)
                        strip = dataset.read(1, window=Window(0, row, side, height))
                        write(PixelWindow(row=row, col=0, height=height, width=side), strip)
            else:
                scene = open_scene(source)
                grid = TileGrid(size=scene.size, tile=TILE, overlap=OVERLAP)
                mosaic(
                    scene,
                    Identity(),
                    lambda window, refined, valid: write(window, to_bytes(refined)),
                    grid=grid,
                )
        return clock.read()


def run_endless(height: int, width: int) -> tuple[float, float]:
    """Seconds for a raster that is made on the fly and thrown away."""
    reader = EndlessReader(height, width)
    grid = TileGrid(size=reader.size, tile=TILE, overlap=OVERLAP)
    clock = Clock()
    mosaic(reader, Identity(), lambda *chunk: None, grid=grid)
    return clock.read()


def measure(*case: str | int) -> dict[str, float]:
    """One case in a process of its own: seconds and peak memory in MB."""
    command = [sys.executable, __file__, "case", *map(str, case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def run_case(kind: str, *case: str) -> None:
    """Print the figures of one case as JSON."""
    if kind == "array":
        seconds = time_on_array(case[0], int(case[1]))
    elif kind == "file":
        seconds = time_on_file(case[0], int(case[1]))
    else:
        seconds = run_endless(int(case[0]), int(case[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds[0], "cpu": seconds[1], "peak": peak}))


def best(repeat: int, *case: str | int) -> tuple[float, float]:
    """Least wall and least processor seconds of several runs."""
    runs = [measure(*case) for _ in range(repeat)]
    return min(run["seconds"] for run in runs), min(run["cpu"] for run in runs)


def main(arguments: list[str]) -> None:
    """Run the cases asked for and print their table."""
    if arguments[:1] == ["case"]:
        run_case(*arguments[1:])
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "dask", "rasterio"))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}"
    )
    if arguments == ["speed"]:
        side, repeat = 8192, 3
        for kind, names in (("array", list(ON_ARRAYS)), ("file", ["engine", "copy"])):
            for name in names:
                wall, cpu = (side**2 / 1e6 / seconds for seconds in best(repeat, kind, name, side))
                print(
                    f"{kind:6} {name:13} {side} x {side}: {wall:6.1f} MP/s, "
                    f"{cpu:6.1f} MP per processor second"
                )
    elif arguments == ["memory"]:
        for height, width in ((4000, 4000), (64000, 4000), (4000, 20000), (4000, 80000)):
            figures = measure("endless", height, width)
            rate = height * width / 1e6 / figures["seconds"]
            print(f"{height:6} x {width:6}: peak {figures['peak']:4.0f} MB, {rate:6.1f} MP/s")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
