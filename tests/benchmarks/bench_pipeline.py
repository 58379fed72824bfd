"""Speed and memory of the engine around an identity model, beside its rivals.

    python tests/benchmarks/bench_pipeline.py speed    # uint8 arrays and GeoTIFFs, in and out
    python tests/benchmarks/bench_pipeline.py memory   # peak memory over height and width

Every figure comes from a process of its own; all cases of a round are measured in turn, and ratios
are medians over rounds. On a machine that is busy otherwise the clock says little: look at the
ratios of processor time. MONAI's `SlidingWindowInferer` is measured where monai is installed.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from identity import Identity
from measuring import (
    Seconds,
    in_process,
    in_turn,
    least,
    machine,
    peak_megabytes,
    ratio,
    script_parser,
    table,
    timed,
)
from scenes import OVERLAP, PLACE, TILE, TILED, random_bytes

from geothresh.mosaic import Layers, RasterReader, Sink, mosaic
from geothresh.mosaic.blending import blend_profile
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.windows import PixelWindow, RasterSize

ALONE = "read + write alone"
Uint8Array = UInt8Array


@dataclass(frozen=True)
class Bytes:
    """The confidences of a chunk as 0-255, made by the threads that refine."""

    def __call__(
        self, reader: RasterReader, window: PixelWindow, refined: Float32Array, valid: BoolArray
    ) -> Layers:
        """Make them."""
        return Layers(values=(to_bytes(refined),), counts={})


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


def to_bytes(confidence: Float32Array) -> Uint8Array:
    """Confidences as 0-255."""
    scaled = confidence * np.float32(255)
    values: Uint8Array = np.rint(scaled, out=scaled).astype(np.uint8)
    return values


def with_engine(values: Uint8Array) -> Uint8Array:
    """geothresh on local threads."""
    result = np.empty_like(values)

    def store(window: PixelWindow, layers: Layers, packed: object) -> None:
        result[window.slices()] = layers.values[0]

    reader = ByteReader(values)
    grid = TileGrid(size=reader.size, tile=TILE, overlap=OVERLAP)
    mosaic(reader, Identity(), Sink(store, finish=Bytes(), pack=False), grid=grid)
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
    profile = blend_profile("hann", TILE, OVERLAP).astype(np.float32)
    weight = np.outer(profile, profile)
    total, weights = np.zeros(full), np.zeros(full)
    model = Identity()
    for row in range(0, full[0] - OVERLAP, stride):
        for col in range(0, full[1] - OVERLAP, stride):
            place = np.s_[row : row + TILE, col : col + TILE]
            total[place] += weight * model(padded[place][np.newaxis])[0]
            weights[place] += weight
    return to_bytes((total / weights)[:height, :width].astype(np.float32))


def with_monai(values: Uint8Array) -> Uint8Array:
    """MONAI's inferer, which weights tiles too and keeps the whole scene in memory."""
    import torch
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(
        roi_size=(TILE, TILE), sw_batch_size=1, overlap=OVERLAP / TILE, mode="gaussian"
    )
    scaled = torch.from_numpy(values)[None, None].to(torch.float32) / 255
    with torch.inference_mode():
        refined = inferer(scaled, lambda tiles: tiles.clone())
    return to_bytes(refined[0, 0].numpy())


ON_ARRAYS: dict[str, Callable[[Uint8Array], Uint8Array]] = {
    "engine": with_engine,
    "map_overlap": with_map_overlap,
    "accumulators": with_accumulators,
    "monai": with_monai,
}


def time_on_array(name: str, side: int) -> Seconds:
    """For a square uint8 array; checks that the identity came out."""
    values = random_bytes(side, side)
    results = []
    ON_ARRAYS[name](values[:1024, :1024])  # imports and first calls are not what is measured
    seconds = timed(lambda: results.append(ON_ARRAYS[name](values)))
    assert (results[0] == values).all()
    return seconds


def time_on_file(name: str, side: int) -> Seconds:
    """From a tiled, deflated uint8 GeoTIFF to another one.

    By the engine, by reading and writing alone, or by a rival, which has the whole scene in memory
    in between.
    """
    import rasterio
    from rasterio.windows import Window

    from geothresh.raster.scene import open_scene

    profile = {**TILED, **PLACE, "height": side, "width": side}
    values = random_bytes(side, side)

    def through(source: Path, target: Path) -> None:
        with rasterio.open(target, "w", **profile) as out:

            def write(window: PixelWindow, part: Uint8Array) -> None:
                place = Window(window.col, window.row, window.width, window.height)
                out.write(part, 1, window=place)

            if name == "engine":
                scene = open_scene(source)
                grid = TileGrid(size=scene.size, tile=TILE, overlap=OVERLAP)
                mosaic(
                    scene,
                    Identity(),
                    Sink(
                        lambda window, layers, packed: write(window, layers.values[0]),
                        finish=Bytes(),
                        pack=False,
                    ),
                    grid=grid,
                )
                return
            with rasterio.open(source) as dataset:
                whole = None if name == ALONE else ON_ARRAYS[name](dataset.read(1))
                for row in range(0, side, 512):
                    window = PixelWindow(row=row, col=0, height=min(512, side - row), width=side)
                    if whole is None:
                        part = dataset.read(1, window=Window(0, row, side, window.height))
                    else:
                        part = whole[window.slices()]
                    write(window, part)

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.tif", Path(scratch) / "out.tif"
        with rasterio.open(source, "w", **profile) as dataset:
            dataset.write(values, 1)
        if name != ALONE:
            ON_ARRAYS[name](values[:1024, :1024])
        seconds = timed(lambda: through(source, target))
        with rasterio.open(target) as dataset:
            assert (dataset.read(1) == values).all()
        return seconds


def run_endless(height: int, width: int) -> Seconds:
    """For a raster that is made on the fly and thrown away."""
    reader = EndlessReader(height, width)
    grid = TileGrid(size=reader.size, tile=TILE, overlap=OVERLAP)
    return timed(lambda: mosaic(reader, Identity(), Sink(lambda *chunk: None), grid=grid))


def run_case(kind: str, *case: str) -> None:
    """Print the figures of one case as JSON."""
    before = peak_megabytes()
    if kind == "array":
        seconds = time_on_array(case[0], int(case[1]))
    elif kind == "file":
        seconds = time_on_file(case[0], int(case[1]))
    else:
        # A small one first: what is loaded and set up once is no matter of the raster's size.
        run_endless(1024, 1024)
        before = peak_megabytes()
        seconds = run_endless(int(case[0]), int(case[1]))
    peak = peak_megabytes()
    print(json.dumps({"wall": seconds.wall, "cpu": seconds.cpu, "before": before, "peak": peak}))


def _seconds(*case: str | int) -> Seconds:
    figures = in_process(__file__, "case", *case)
    return Seconds(figures["wall"], figures["cpu"])


def speed(side: int, repeat: int) -> None:
    """Print a table for arrays and one for files."""
    rivals = ["engine", "map_overlap", "accumulators"]
    if importlib.util.find_spec("monai"):
        rivals.append("monai")
    else:
        print("monai is not installed, and not measured")
    for kind, names in (("array", rivals), ("file", [*rivals, ALONE])):
        cases = {name: partial(_seconds, kind, name, side) for name in names}
        runs = in_turn(cases, repeat)
        rows = []
        for name in names:
            best = least(runs[name])
            rows.append(
                [
                    name,
                    f"{side**2 / 1e6 / best.wall:.1f}",
                    f"{side**2 / 1e6 / best.cpu:.1f}",
                    f"{ratio(runs[name], runs['engine']):.2f}",
                    f"{ratio(runs[name], runs['engine'], of='cpu'):.2f}",
                ]
            )
        print(f"\nuint8 {kind} of {side} x {side}, {repeat} rounds\n")
        head = ["", "MP/s", "MP per processor second", "wall over engine's", "processor time over"]
        print(table(head, rows))


def memory() -> None:
    """Print peak memory at several sizes, and how it grows with height and with width."""
    sizes = [(4000, 4000), (64000, 4000), (4000, 20000), (4000, 80000)]
    figures = {size: in_process(__file__, "case", "endless", *size) for size in sizes}
    rows = [
        [
            f"{height} x {width}",
            f"{found['peak']:.0f}",
            f"{found['peak'] - found['before']:.0f}",
            f"{height * width / 1e6 / found['wall']:.1f}",
        ]
        for (height, width), found in figures.items()
    ]
    print()
    print(table(["rows x columns", "peak MB", "MB above a small run's", "MP/s"], rows))
    tall, wide = (figures[b]["peak"] / figures[a]["peak"] for a, b in (sizes[:2], sizes[2:]))
    print(
        f"\n16 times the rows: {tall:.2f} times the memory; 4 times the columns: {wide:.2f} times"
    )


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("what", choices=["speed", "memory", "case"])
    parser.add_argument("case", nargs="*", help="for the processes that this one starts")
    parser.add_argument("--side", type=int, default=8192, help="rows and columns")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    arguments = parser.parse_args()
    if arguments.what == "case":
        run_case(*arguments.case)
        return
    print(machine("numpy", "dask", "rasterio"))
    if arguments.what == "speed":
        speed(arguments.side, arguments.repeat)
    else:
        memory()


if __name__ == "__main__":
    main()
