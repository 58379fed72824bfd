"""64-66: bands. 64 and 65 stand in ``test_bad_input``, too."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.catalogue.bench import Bench
from tests.support.rasters import NORTH_UP, write_raster


@pytest.mark.catalogue(64)
def test_grey_and_alpha_need_no_choice(bench: Bench) -> None:
    grey = np.arange(1, 251, dtype=np.uint8).reshape(10, 25)
    bands = np.stack([grey, np.full_like(grey, 255)])
    write_raster(Path("x.tif"), bands, photometric="MINISBLACK", alpha="YES")
    bench.refined("x.tif", expected=grey / 255)
    write_raster(Path("y.tif"), bands, photometric="MINISBLACK", alpha="NO")
    bench.refine_refused(3, "holds 2 bands; say with --bidx which one is the confidence", "y.tif")


@pytest.mark.catalogue(65)
@pytest.mark.parametrize("band", [0, 5, 9])
def test_a_band_that_is_not_there(bench: Bench, band: int) -> None:
    write_raster(Path("x.tif"), np.zeros((4, 3, 3), np.uint8))
    bench.refine_refused(2, "--bidx", "x.tif", "-b", band)


@pytest.mark.catalogue(66)
@pytest.mark.parametrize("count", [600, 65_535])
def test_bands_without_end_are_refused_soon(bench: Bench, count: int) -> None:
    with rasterio.open(
        "x.tif", "w", driver="GTiff", height=1, width=1, count=count, dtype="uint8",
        sparse_ok=True, interleave="pixel", crs="EPSG:32632", transform=NORTH_UP,
    ):  # fmt: skip
        pass
    start = time.process_time()
    bench.refine_refused(3, f"holds {count} bands; say with --bidx", "x.tif")
    assert time.process_time() - start < 5
