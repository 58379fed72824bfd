"""15-22: damaged files. 15 stands in ``test_bad_input``, 22 in ``test_refine``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from tests.catalogue.bench import Bench
from tests.catalogue.tiffs import STRIP_OFFSETS, retag
from tests.support.rasters import NORTH_UP, write_raster

NOISE = np.random.default_rng(0).random((256, 256), np.float32)
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def offset_of(path: Path, block: str) -> int:
    with rasterio.open(path) as dataset:
        return int(dataset.get_tag_item(f"BLOCK_OFFSET_{block}", "TIFF", bidx=1))


@pytest.mark.catalogue(16)
@pytest.mark.parametrize("part", [0.5, 0.95])
def test_a_cog_without_its_end(bench: Bench, part: float) -> None:
    """It opens, for its directory stands first."""
    write_raster(Path("plain.tif"), NOISE)
    rasterio.shutil.copy("plain.tif", "x.tif", driver="COG", blocksize=128)
    Path("plain.tif").unlink()
    content = Path("x.tif").read_bytes()
    Path("x.tif").write_bytes(content[: int(len(content) * part)])
    with rasterio.open("x.tif"):
        pass
    line = bench.refine_refused(3, "block (", "x.tif")
    assert "cut short" in line and str(int(len(content) * part)) in line


@pytest.mark.catalogue(17)
@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw"])
def test_bytes_overwritten_in_compressed_data(bench: Bench, compress: str) -> None:
    write_raster(Path("x.tif"), NOISE, compress=compress, **TILED)
    content = bytearray(Path("x.tif").read_bytes())
    start = offset_of(Path("x.tif"), "2_1")
    content[start : start + 300] = b"\xff" * 300
    Path("x.tif").write_bytes(content)
    bench.refine_refused(3, "block (1, 2) of 4 x 4, rows 64-127, columns 128-191", "x.tif")


@pytest.mark.catalogue(18)
def test_a_strip_beyond_the_end(bench: Bench) -> None:
    write_raster(Path("x.tif"), NOISE[:16, :64])
    retag(Path("x.tif"), STRIP_OFFSETS, 4_000_000_000)
    bench.refine_refused(3, "block (0, 0) of 1 x 1", "x.tif")


@pytest.mark.catalogue(19)
def test_a_page_of_zeros_cannot_be_told_from_data(bench: Bench) -> None:
    write_raster(Path("x.tif"), NOISE, **TILED)
    content = bytearray(Path("x.tif").read_bytes())
    start = offset_of(Path("x.tif"), "1_0")
    content[start : start + 4096] = bytes(4096)
    Path("x.tif").write_bytes(content)
    expected = NOISE.copy()
    expected[:16, 64:128] = 0
    bench.refined("x.tif", expected=expected)


@pytest.mark.catalogue(20)
def test_bytes_after_the_end(bench: Bench) -> None:
    write_raster(Path("x.tif"), NOISE, compress="deflate")
    with Path("x.tif").open("ab") as file:
        file.write(b"\0garbage\n" * 1000)
    bench.refined("x.tif", expected=NOISE)


@pytest.mark.catalogue(21)
@pytest.mark.parametrize("nodata", [None, -1.0])
def test_what_a_killed_writer_leaves(bench: Bench, nodata: float | None) -> None:
    with rasterio.open(
        "x.tif", "w", driver="GTiff", height=256, width=256, count=1, dtype="float32",
        crs="EPSG:32632", transform=NORTH_UP, nodata=nodata, sparse_ok=True, **TILED,
    ):  # fmt: skip
        pass
    warned = ["16 of 16 blocks are missing"]
    if nodata is None:
        bench.refined("x.tif", expected=np.zeros((256, 256)), warned=warned)
    else:
        valid = np.zeros((256, 256), np.bool_)
        bench.refined("x.tif", valid=valid, warned=[*warned, "no data at all"])
