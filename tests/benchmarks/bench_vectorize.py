"""Time and memory of `geothresh vectorize` against `rasterio.features.shapes` on a whole array.

    python tests/benchmarks/bench_vectorize.py --side 24000 --objects 2500
    python tests/benchmarks/bench_vectorize.py --side 20000 --objects 250000 --only polygons

Each row is a process of its own: the time is the wall time of the work without the imports, the
memory the peak resident size of the process, imports included: pandas loads pyarrow, the optional
`geothresh[parquet]`, wherever it is installed. Prints a table in Markdown.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from measuring import in_process, peak_megabytes, script_parser, table
from rasterio.transform import Affine
from rasterio.windows import Window

CASES = ("plain shapes", "polygons", "polygons + confidence", "from confidence")


def make(folder: Path, side: int, objects: int) -> None:
    """Write a mask of blobs and a uint8 confidence beside it, strip by strip."""
    rng = np.random.default_rng(0)
    cells = int(np.ceil(np.sqrt(objects)))
    pitch = side / cells
    wave = np.sin(np.arange(512) * 0.05)
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1,
        "crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 6e6), "nodata": 255,
    }  # fmt: skip
    columns = np.arange(side)
    with (
        rasterio.open(folder / "mask.tif", "w", **profile) as mask,
        rasterio.open(folder / "confidence.tif", "w", **profile) as confidence,
    ):
        confidence.scales = [1 / 254]
        for row in range(0, side, 512):
            height = min(512, side - row)
            rows = np.arange(row, row + height)[:, None]
            # One wavy blob in the middle of each cell, of a third of its width.
            y = (rows % pitch) - pitch / 2
            x = (columns % pitch) - pitch / 2
            number = (rows // pitch) * cells + columns // pitch
            reach = (pitch / 6) * (1 + 0.3 * wave[:height, None])
            inside = (y * y + x * x < reach * reach) & (number < objects)
            values = np.where(inside, 200, 20) + rng.integers(-20, 21, inside.shape)
            place = Window(0, row, side, height)
            mask.write(inside.astype(np.uint8), 1, window=place)
            confidence.write(values.astype(np.uint8), 1, window=place)


def measure(case: str, folder: Path) -> dict[str, float]:
    """Run one case here; seconds, megabytes and polygons."""
    mask, confidence, output = (
        folder / name for name in ("mask.tif", "confidence.tif", f"{case}.gpkg")
    )
    if case == "plain shapes":
        from rasterio.features import shapes
        from shapely.geometry import shape

        started = time.perf_counter()
        with rasterio.open(mask) as dataset:
            array = dataset.read(1)
            polygons = [
                shape(outline)
                for outline, _ in shapes(array, mask=array == 1, transform=dataset.transform)
            ]
        count = len(polygons)
    else:
        from geothresh import Foreground, vectorize

        started = time.perf_counter()
        if case == "from confidence":
            result = vectorize(confidence, output, foreground=Foreground(threshold=0.5))
        else:
            wanted = confidence if case == "polygons + confidence" else None
            result = vectorize(mask, output, confidence=wanted)
        count = result.features
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "megabytes": peak_megabytes(), "polygons": count}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--side", type=int, default=8000, help="rows and columns of the mask")
    parser.add_argument("--objects", type=int, default=2500)
    parser.add_argument("--folder", type=Path, help="where to put the rasters; default temporary")
    parser.add_argument("--case", choices=CASES, help="run one case here, print JSON")
    parser.add_argument("--only", choices=CASES, help="run one case, in a process of its own")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        make(Path(name), arguments.side, arguments.objects)
        arrow = "with" if importlib.util.find_spec("pyarrow") else "without"
        print(f"mask of {arguments.side} x {arguments.side}, {arguments.objects} objects; ", end="")
        print(f"{arrow} pyarrow\n")
        rows = []
        for case in CASES if arguments.only is None else (arguments.only,):
            row = in_process(__file__, "--folder", name, "--case", case)
            figures = f"{row['seconds']:.2f}", f"{row['megabytes']:.0f}", f"{row['polygons']}"
            rows.append([case, *figures])
        print(table(["case", "seconds", "MB peak", "polygons"], rows))


if __name__ == "__main__":
    main()
