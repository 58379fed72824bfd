"""Peak memory of `refine` from file to file, over height and width.

    python tests/benchmarks/bench_memory.py

The highest resident size of a process of its own for each size, libraries included. The model
`identity` gives back what it gets, for which torch is not loaded; `roads` is the packaged one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import rasterio
from identity import Identity
from measuring import in_process, machine, peak_megabytes, timed
from rasterio.windows import Window
from scenes import PLACE, TILED, random_bytes

import geothresh

CASES = [
    ("identity", 4000, 4000),
    ("identity", 8000, 4000),
    ("identity", 64000, 4000),
    ("identity", 128000, 4000),
    ("identity", 4000, 20000),
    ("identity", 4000, 64000),
    ("roads", 4000, 4000),
]


def refine_one(model: str, height: int, width: int) -> None:
    """Refine one raster of this size; print figures as JSON."""
    profile = {**TILED, **PLACE, "height": height, "width": width}
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
        used = Identity() if model == "identity" else model
        took = timed(lambda: geothresh.refine(source, Path(scratch) / "out.tif", model=used))
    print(json.dumps({"wall": took.wall, "before": before, "peak": peak_megabytes()}))


def main() -> None:
    """Print a line for each size."""
    print(machine("numpy", "torch", "dask", "rasterio"))
    for model, height, width in CASES:
        figures = in_process(__file__, "case", model, height, width)
        print(
            f"{model:8} {height:6} x {width:6}: peak {figures['peak']:4.0f} MB "
            f"({figures['peak'] - figures['before']:4.0f} MB above the start of refine), "
            f"{height * width / 1e6 / figures['wall']:6.1f} MP/s",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        refine_one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
