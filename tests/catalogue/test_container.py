"""23-33: every way to store the same pixels in a GeoTIFF gives the same mask."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling

from tests.catalogue.bench import Bench
from tests.support.rasters import write_raster

ROWS, COLUMNS = np.mgrid[:90, :110]
SMOOTH = (0.5 + 0.5 * np.sin(ROWS / 7.3) * np.cos(COLUMNS / 5.1)).astype(np.float32)
BYTES = np.round(SMOOTH * 255).astype(np.uint8)


@pytest.mark.catalogue(23)
@pytest.mark.parametrize("name", ["scene", "scene.png", "scene.tif.bak", "scene.vrt", "a.gpkg"])
def test_the_name_does_not_tell_the_format(bench: Bench, name: str) -> None:
    write_raster(Path(name), SMOOTH)
    bench.refined(name, expected=SMOOTH)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"bigtiff": "YES"}, marks=pytest.mark.catalogue(24)),
        pytest.param({"endianness": "BIG"}, marks=pytest.mark.catalogue(25)),
        pytest.param({"blockysize": 1}, marks=pytest.mark.catalogue(26)),
        pytest.param(
            {"tiled": True, "blockxsize": 16, "blockysize": 16}, marks=pytest.mark.catalogue(27)
        ),
        pytest.param(
            {"tiled": True, "blockxsize": 1024, "blockysize": 512}, marks=pytest.mark.catalogue(27)
        ),
        *(
            pytest.param({"compress": kind, "predictor": how}, marks=pytest.mark.catalogue(28))
            for kind in ("lzw", "zstd", "deflate")
            for how in (1, 2, 3)
        ),
        pytest.param({"compress": "lzma"}, marks=pytest.mark.catalogue(28)),
        pytest.param({"compress": "packbits"}, marks=pytest.mark.catalogue(28)),
    ],
    ids=str,
)
def test_layouts_and_compressions(bench: Bench, options: dict[str, Any]) -> None:
    write_raster(Path("x.tif"), SMOOTH, **options)
    bench.refined("x.tif", expected=SMOOTH)


@pytest.mark.catalogue(28)
def test_a_predictor_of_bytes(bench: Bench) -> None:
    write_raster(Path("x.tif"), BYTES, compress="lzw", predictor=2)
    bench.refined("x.tif", expected=BYTES / 255)


@pytest.mark.catalogue(29)
def test_jpeg_inside(bench: Bench) -> None:
    write_raster(Path("x.tif"), BYTES, compress="jpeg", tiled=True, blockxsize=32, blockysize=32)
    with rasterio.open("x.tif") as dataset:
        decoded = dataset.read(1)
    bench.refined("x.tif", expected=decoded / 255)


@pytest.mark.catalogue(30)
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_bands_apart_and_together(bench: Bench, interleave: str) -> None:
    bands = np.stack([SMOOTH * 0, SMOOTH, 1 - SMOOTH])
    write_raster(Path("x.tif"), bands, interleave=interleave, photometric="MINISBLACK")
    bench.refined("x.tif", "-b", 2, expected=SMOOTH)


@pytest.mark.catalogue(31)
def test_a_cog_is_read_at_full_resolution(bench: Bench) -> None:
    write_raster(Path("plain.tif"), np.tile(SMOOTH, (3, 3)))
    rasterio.shutil.copy("plain.tif", "x.tif", driver="COG", blocksize=128, resampling="nearest")
    with rasterio.open("x.tif") as dataset:
        assert dataset.overviews(1)
    bench.refined("x.tif", expected=np.tile(SMOOTH, (3, 3)))


@pytest.mark.catalogue(32)
def test_overviews_mask_and_tags_in_files_beside(bench: Bench) -> None:
    write_raster(Path("x.tif"), SMOOTH)
    valid = SMOOTH > 0.1
    with (
        rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open("x.tif", "r+") as dataset,
    ):
        dataset.build_overviews([2, 4], Resampling.nearest)
        dataset.write_mask(valid)
    Path("x.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>road</Description></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert {p.name for p in Path().iterdir()} >= {"x.tif.ovr", "x.tif.msk", "x.tif.aux.xml"}
    bench.refined("x.tif", expected=SMOOTH, valid=valid)


@pytest.mark.catalogue(33)
def test_of_several_pages_the_first_is_taken_and_that_is_told(bench: Bench) -> None:
    write_raster(Path("x.tif"), SMOOTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_raster(Path("x.tif"), 1 - SMOOTH, append_subdataset=True)
        write_raster(Path("x.tif"), SMOOTH[:20], append_subdataset=True)
    bench.refined("x.tif", expected=SMOOTH, warned=["holds 3 pages; the first is read"])
