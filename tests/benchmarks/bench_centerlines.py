"""Time, memory and result of `geothresh vectorize --kind centerlines` against the whole array.

    python tests/benchmarks/bench_centerlines.py --side 12000

The oracle holds the whole mask: `skimage.morphology.thin`, and, where skan is installed (pip
install skan), skan for its branches. Each row is a process of its own, whose time is without the
imports and whose memory is the peak resident size. Length is that of the skeleton, pixel to pixel,
before anything is smoothed or pruned; meetings are clusters of pixels with three or more links.
Prints a table in Markdown.
"""

from __future__ import annotations

import json
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from measuring import in_process, peak_megabytes, script_parser, table
from rasterio.transform import Affine
from rasterio.windows import Window

CASES = ("vectorize", "network alone", "whole array")


def make(path: Path, side: int) -> None:
    """Streets that wind, 7 to 9 pixels wide, about 150 apart: contour lines of two waves."""
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8",
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1,
        "crs": "EPSG:32633", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 6e6), "nodata": 255,
    }  # fmt: skip
    columns = np.arange(side)[None]
    with rasterio.open(path, "w", **profile) as mask:
        for row in range(0, side, 512):
            rows = np.arange(row, min(row + 512, side))[:, None]
            along = rows + 40 * np.sin(columns / 170) + 25 * np.sin(rows / 90)
            across = columns + 35 * np.sin(rows / 210) + 20 * np.sin(columns / 130)
            streets = (along % 150 < 8) | (across % 163 < 8)
            mask.write(streets.astype(np.uint8), 1, window=Window(0, row, side, len(rows)))


def measure(case: str, mask: Path) -> dict[str, Any]:
    """Run one case here."""
    if case == "whole array":
        from scipy import ndimage
        from skimage.morphology import thin

        with rasterio.open(mask) as dataset:
            started = time.perf_counter()
            array = dataset.read(1) == 1
        skeleton = thin(array)
        seconds = time.perf_counter() - started
        found = {"length": length_of(skeleton), "meetings": meetings_of(skeleton, ndimage)}
        if find_spec("skan"):
            from skan import Skeleton, summarize

            started = time.perf_counter()
            branches = summarize(Skeleton(skeleton), separator="_")
            found["skan length"] = float(branches["branch_distance"].sum())
            seconds += time.perf_counter() - started
        return {"seconds": seconds, "megabytes": peak_megabytes(), **found}
    from geothresh import Centerlines, vectorize

    started = time.perf_counter()
    if case == "vectorize":
        result = vectorize(mask, mask.with_suffix(".gpkg"), draw=Centerlines(nodes=True))
        seconds = time.perf_counter() - started
        found = {"lines": result.features, "nodes": result.nodes}
        return {"seconds": seconds, "megabytes": peak_megabytes(), **found}
    from geothresh.skeleton.graph import centerline_network
    from geothresh.windows import PixelWindow, RasterSize

    with rasterio.open(mask) as dataset:
        size = RasterSize(height=dataset.height, width=dataset.width)

        def read(window: PixelWindow) -> Any:
            place = Window(window.col, window.row, window.width, window.height)
            return dataset.read(1, window=place) == 1

        network = centerline_network(read, size)
    seconds = time.perf_counter() - started
    # Links inside of knots are in no line; whoever adds up links has them too.
    length = sum(line.length(size.width) for line in network.lines)
    meetings = int((network.knots & (network.degrees > 0)).sum())
    return {
        "seconds": seconds, "megabytes": peak_megabytes(), "length": length, "meetings": meetings,
        "lines": len(network.lines),
    }  # fmt: skip


def length_of(skeleton: Any) -> float:
    """Links of a side, and links of a corner with nothing beside it, as long as they are."""
    sides = (skeleton[1:] & skeleton[:-1]).sum() + (skeleton[:, 1:] & skeleton[:, :-1]).sum()
    down = skeleton[:-1, :-1] & skeleton[1:, 1:] & ~skeleton[:-1, 1:] & ~skeleton[1:, :-1]
    up = skeleton[1:, :-1] & skeleton[:-1, 1:] & ~skeleton[:-1, :-1] & ~skeleton[1:, 1:]
    return float(sides + np.sqrt(2) * (down.sum() + up.sum()))


def meetings_of(skeleton: Any, ndimage: Any) -> int:
    """Clusters of pixels with three or more links, linked as they are."""
    padded = np.pad(skeleton, 1)

    def at(down: int, right: int) -> Any:
        return padded[
            1 + down : padded.shape[0] - 1 + down, 1 + right : padded.shape[1] - 1 + right
        ]

    links = sum(at(*side).astype(np.uint8) for side in ((0, 1), (0, -1), (1, 0), (-1, 0)))
    for down in (1, -1):
        for right in (1, -1):
            links += at(down, right) & ~at(down, 0) & ~at(0, right)
    return int(ndimage.label(skeleton & (links > 2), np.ones((3, 3)))[1])


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--side", type=int, default=6000, help="rows and columns of the mask")
    parser.add_argument("--folder", type=Path, help="where to put the raster; default temporary")
    parser.add_argument("--case", choices=CASES, help="run one case here, print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.folder / "mask.tif")))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        make(Path(name) / "mask.tif", arguments.side)
        columns = ("seconds", "megabytes", "length", "meetings", "lines", "nodes", "skan length")
        print(f"streets, {arguments.side} x {arguments.side}\n")
        rows = []
        for case in CASES:
            row = in_process(__file__, "--folder", name, "--case", case)
            rows.append([case, *(f"{row[c]:,.1f}" if c in row else "" for c in columns)])
        print(table(["case", *columns], rows))


if __name__ == "__main__":
    main()
