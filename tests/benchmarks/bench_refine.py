"""`refine` beside the network alone.

    python tests/benchmarks/bench_refine.py speed     # time over bare forward of the same tiles
    python tests/benchmarks/bench_refine.py nodata    # a scene half without data over a full one
    python tests/benchmarks/bench_refine.py network   # presets, tile by tile

Speeds are measured in turn in one process, so that a machine that is busy otherwise hurts both
sides alike; the ratio is what to look at.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import click
import numpy as np
import rasterio
import torch
from measuring import in_turn, least, machine, ratio, timed
from scenes import PLACE, SCENE, TILE, TILED, random_bytes, repeated, scene_tiles

import geothresh
from geothresh.api.models import load_model
from geothresh.nn.config import PRESETS
from geothresh.nn.network import ThreshNet
from geothresh.nn.refiner import TorchRefiner
from geothresh.options import Outputs, Precision, Tiling, Writing
from geothresh.raster.scene import open_scene


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


@click.group()
def main() -> None:
    """Benchmarks of `refine`; each is one command."""


@main.command()
@click.option(
    "--model",
    "name",
    type=click.Choice(["roads", *PRESETS]),
    default="roads",
    help="The packaged model, or a preset, untrained.",
)
@click.option("--scenes", default=1, help="Demo scenes below each other.")
@click.option("--repeat", default=5, help="Rounds.")
def speed(name: str, scenes: int, repeat: int) -> None:
    """Print seconds of bare forward, of `refine` with one output and with two, and their ratios.

    And when the network was idle during the latter.
    """
    print(machine("torch", "numpy", "dask", "rasterio"))
    model = load_model("roads") if name == "roads" else untrained(name)
    idle: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        with open_scene(SCENE) as demo:
            height, width = scenes * demo.size.height, demo.size.width
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
                model=watched,
                outputs=Outputs(confidence=confidence),
                writing=Writing(overwrite=True),
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


@main.command()
@click.option("--tiles", "rows", default=200, help="Of the strip.")
@click.option("--repeat", default=3, help="Rounds.")
def nodata(rows: int, repeat: int) -> None:
    """Print what a strip takes of which the lower half holds no data, over one that is full."""
    print(machine("torch", "numpy", "dask", "rasterio"))
    tile, overlap = 256, 64
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
                file, "w", height=height, width=tile, nodata=255, **TILED, **PLACE
            ) as dataset:
                dataset.write(values, 1)

        def run(name: str) -> None:
            output = Path(scratch) / f"{name}_mask.tif"
            result = geothresh.refine(
                files[name],
                output,
                model=refiner,
                tiling=Tiling(tile_size=tile, overlap=overlap),
                writing=Writing(overwrite=True),
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


@main.command()
@click.option("--repeat", default=5, help="Rounds.")
def network(repeat: int) -> None:
    """Print the time of one tile through each preset, and tiles a second of several callers.

    Untrained, fp32 and as `auto` has it; as many callers as the processor takes.
    """
    print(machine("torch", "numpy"))
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


if __name__ == "__main__":
    main()
