"""Scenes as people have them: a VRT of many files, a COG behind HTTP, a strip of great width.

    python tests/benchmarks/bench_inputs.py vrt      # over one GeoTIFF with the same pixels
    python tests/benchmarks/bench_inputs.py http     # requests and bytes, from a local server
    python tests/benchmarks/bench_inputs.py strip    # peak memory at 400,000 columns, sparse

`geothresh refine` with a model that costs nothing: what shows is reading, blending and writing.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from identity import Identity
from measuring import (
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
from rasterio.windows import Window
from scenes import PLACE, TILED, random_bytes

import geothresh
from geothresh.options import Reading, Writing


def write_pieces(folder: Path, values: np.ndarray, pieces: int) -> Path:
    """A mosaic of pieces x pieces files and the VRT that names them."""
    height, width = (side // pieces for side in values.shape)
    sources = []
    for index in range(pieces**2):
        row, col = index // pieces * height, index % pieces * width
        name = f"piece{index:04d}.tif"
        with rasterio.open(folder / name, "w", height=height, width=width, **TILED) as dataset:
            dataset.write(values[row : row + height, col : col + width], 1)
        sources.append(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{width}" '
            f'ySize="{height}"/><DstRect xOff="{col}" yOff="{row}" xSize="{width}" '
            f'ySize="{height}"/></SimpleSource>'
        )
    path = folder / "scene.vrt"
    place = ", ".join(map(str, PLACE["transform"].to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="{values.shape[1]}" rasterYSize="{values.shape[0]}">'
        f"<SRS>{PLACE['crs']}</SRS><GeoTransform>{place}</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{"".join(sources)}</VRTRasterBand></VRTDataset>'
    )
    return path


def vrt(side: int, pieces: int, repeat: int) -> None:
    """Print what a mosaic takes over one file of the same pixels; both give the same mask."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        values = random_bytes(side, side)
        scenes = {"one file": folder / "one.tif", "VRT": write_pieces(folder, values, pieces)}
        with rasterio.open(scenes["one file"], "w", height=side, width=side, **TILED, **PLACE) as d:
            d.write(values, 1)

        def refine(name: str) -> None:
            output = folder / f"{name}_mask.tif"
            geothresh.refine(
                scenes[name],
                output,
                model=Identity(),
                reading=Reading(allow_vrt=True),
                writing=Writing(overwrite=True),
            )

        refine("one file")
        runs = in_turn({name: partial(timed, partial(refine, name)) for name in scenes}, repeat)
        masks = []
        for name in scenes:
            with rasterio.open(folder / f"{name}_mask.tif") as dataset:
                masks.append(dataset.read(1))
        assert (masks[0] == masks[1]).all()
    rows = [
        [
            name if name == "one file" else f"VRT of {pieces**2} files",
            f"{side**2 / 1e6 / least(found).wall:.1f}",
            f"{ratio(found, runs['one file']):.2f}",
            f"{ratio(found, runs['one file'], of='cpu'):.2f}",
        ]
        for name, found in runs.items()
    ]
    print(f"\n{side} x {side}, {repeat} rounds, equal masks\n")
    print(table(["", "MP/s", "wall over one file", "processor time over one file"], rows))


class Tally:
    """What a server was asked for."""

    def __init__(self, fail_every: int = 0) -> None:
        self.requests = self.bytes = self.failed = 0
        self.fail_every = fail_every
        self.lock = threading.Lock()


@contextmanager
def serving(content: bytes, tally: Tally) -> Iterator[str]:
    """The address of a file behind HTTP that can be read in ranges; some requests may fail."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            stop = int(asked[2]) + 1 if asked and asked[2] else len(content)
            stop = min(stop, len(content))
            with tally.lock:
                tally.requests += 1
                fails = tally.fail_every and tally.requests % tally.fail_every == 0
                tally.failed += bool(fails)
                tally.bytes += 0 if fails else stop - start
            part = b"" if fails else content[start:stop]
            self.send_response(503 if fails else 206 if asked else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            if asked and not fails:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            # GDAL breaks off once it has read the header of a file.
            if not isinstance(sys.exception(), ConnectionResetError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def http(side: int) -> None:
    """Print requests and bytes of a COG; the second run has every tenth request fail once."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "scene.tif"
        profile = {"driver": "COG", "count": 1, "dtype": "uint8", "compress": "deflate"}
        with rasterio.open(file, "w", height=side, width=side, **profile, **PLACE) as dataset:
            dataset.write(random_bytes(side, side), 1)
            dataset.build_overviews([])
        with rasterio.open(file) as dataset:
            block = dataset.block_shapes[0]
        content = file.read_bytes()
        geothresh.refine(file, Path(scratch) / "local.tif", model=Identity())
        rows = []
        for number, fail_every in enumerate((0, 10)):
            tally = Tally(fail_every)
            output = Path(scratch) / f"{number}.tif"
            with serving(content, tally) as address:
                # A name of its own for each run: GDAL remembers what it has fetched.
                scene = f"{address}/scene{number}.tif"
                took = timed(partial(geothresh.refine, scene, output, model=Identity()))
            with rasterio.open(output) as one, rasterio.open(Path(scratch) / "local.tif") as two:
                assert (one.read(1) == two.read(1)).all()
            rows.append(
                [
                    "every 10th request fails" if fail_every else "sound server",
                    str(tally.requests),
                    str(tally.failed),
                    f"{tally.bytes / 1e6:.1f}",
                    f"{tally.bytes / len(content):.2f}",
                    f"{took.wall:.1f}",
                ]
            )
    print(
        f"\nCOG of {side} x {side} in blocks of {block[0]} x {block[1]}, "
        f"{len(content) / 1e6:.1f} MB; the masks are equal to that of the local file\n"
    )
    print(table(["", "requests", "failed", "MB sent", "of the file", "s"], rows))


def strip(height: int, width: int) -> dict[str, float]:
    """Refine a sparse strip in this process: one block of eight is in the file."""
    with tempfile.TemporaryDirectory() as scratch:
        scene = Path(scratch) / "strip.tif"
        with rasterio.open(
            scene, "w", height=height, width=width, sparse_ok=True, **TILED, **PLACE
        ) as dataset:
            for row in range(0, height, 512):
                values = random_bytes(min(512, height - row), 512)
                for col in range(0, width - 512, 8 * 512):
                    dataset.write(values, 1, window=Window(col, row, 512, len(values)))
        geothresh.refine_array(np.full((600, 600), 0.3, np.float32), model=Identity())
        before = peak_megabytes()
        took = timed(lambda: geothresh.refine(scene, Path(scratch) / "mask.tif", model=Identity()))
    return {"before": before, "peak": peak_megabytes(), "wall": took.wall, "cpu": took.cpu}


def strips() -> None:
    """Print peak memory at two widths."""
    rows = []
    for height, width in ((600, 25_000), (600, 400_000)):
        found = in_process(__file__, "case", str(height), str(width))
        rows.append(
            [
                f"{height} x {width:,}",
                f"{found['peak']:.0f}",
                f"{found['peak'] - found['before']:.0f}",
                f"{found['wall']:.1f}",
                f"{found['cpu']:.1f}",
            ]
        )
    print()
    print(table(["rows x columns", "peak MB", "MB above the start", "s", "processor s"], rows))


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("what", choices=["vrt", "http", "strip", "case"])
    parser.add_argument("case", nargs="*", type=int, help="for the processes that this one starts")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns")
    parser.add_argument("--pieces", type=int, default=16, help="files along each side of the VRT")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    arguments = parser.parse_args()
    if arguments.what == "case":
        print(json.dumps(strip(*arguments.case)))
        return
    print(machine("rasterio", "numpy", "dask"))
    if arguments.what == "vrt":
        vrt(arguments.side, arguments.pieces, arguments.repeat)
    elif arguments.what == "http":
        http(arguments.side)
    else:
        strips()


if __name__ == "__main__":
    main()
