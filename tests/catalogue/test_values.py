"""42-51: how stored numbers become confidences. 44, 48-50 stand in ``test_bad_input``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.catalogue.bench import Bench
from tests.support.rasters import write_raster

RAMP = np.linspace(0, 1, 2800, dtype=np.float32).reshape(40, 70)
BYTES = np.round(RAMP * 255).astype(np.uint8)


@pytest.mark.catalogue(42)
def test_bytes_are_divided_by_255(bench: Bench) -> None:
    write_raster(Path("x.tif"), BYTES)
    assert "uint8 / 255" in bench.refined("x.tif", expected=BYTES / 255).stderr


@pytest.mark.catalogue(43)
def test_bytes_of_0_and_1_alone(bench: Bench) -> None:
    values = (RAMP > 0.5).astype(np.uint8)
    write_raster(Path("x.tif"), values)
    bench.refined("x.tif", expected=values, warned=["only 0 and 1"])


@pytest.mark.catalogue(44)
def test_uint32_without_scale(bench: Bench) -> None:
    write_raster(Path("x.tif"), (RAMP * 10_000).astype(np.uint32))
    bench.refine_refused(3, "use --scale 10000", "x.tif")


@pytest.mark.catalogue(44)
def test_the_hint_works(bench: Bench) -> None:
    write_raster(Path("x.tif"), np.round(RAMP * 10_000).astype(np.uint16))
    bench.refined("x.tif", "--scale", "10000", expected=RAMP)


@pytest.mark.catalogue(45)
def test_scale_and_offset_tags(bench: Bench) -> None:
    write_raster(Path("x.tif"), np.round(RAMP * 200 - 100).astype(np.int16), scale=(0.005, 0.5))
    bench.refined("x.tif", expected=np.round(RAMP * 200) / 200)
    write_raster(Path("y.tif"), BYTES.astype(np.int16), scale=(0.5, 0.0))
    bench.refine_refused(3, "the scale and offset tags (0.5, 0) do not give confidences", "y.tif")


@pytest.mark.catalogue(46)
def test_one_bit(bench: Bench) -> None:
    values = (RAMP > 0.3).astype(np.uint8)
    write_raster(Path("x.tif"), values, nbits=1)
    bench.refined("x.tif", expected=values)


@pytest.mark.catalogue(47)
def test_a_little_beyond_0_and_1(bench: Bench) -> None:
    wide = (RAMP * 1.018 - 0.009).astype(np.float32)
    write_raster(Path("x.tif"), wide)
    bench.refined("x.tif", expected=wide.clip(0, 1), warned=["are clipped to [0, 1]"])
    rounding = (RAMP * (1 + 5e-7)).astype(np.float32)
    assert rounding.max() > 1
    write_raster(Path("y.tif"), rounding)
    bench.refined("y.tif", expected=RAMP)
    write_raster(Path("z.tif"), RAMP * np.float32(1.02))
    bench.refine_refused(3, "no confidences in [0, 1]", "z.tif")


@pytest.mark.catalogue(48)
def test_logits_read_as_such(bench: Bench) -> None:
    logits = RAMP * 12 - 6
    write_raster(Path("x.tif"), logits)
    bench.refined("x.tif", "--scale", "logit", expected=1 / (1 + np.exp(-logits)))


@pytest.mark.catalogue(51)
def test_half_and_double_floats(bench: Bench) -> None:
    write_raster(Path("half.tif"), RAMP, nbits=16)
    with rasterio.open("half.tif") as dataset:
        assert dataset.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "16"
        stored = dataset.read(1)
    assert (stored != RAMP).any()
    bench.refined("half.tif", expected=stored)
    write_raster(Path("double.tif"), RAMP.astype(np.float64))
    bench.refined("double.tif", expected=RAMP)
