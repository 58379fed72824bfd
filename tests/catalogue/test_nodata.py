"""52-63: what marks missing data, and that it stays missing. 63 stands in ``test_refine``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.catalogue.bench import Bench
from tests.support.rasters import write_raster

ROWS, COLUMNS = np.mgrid[:80, :100]
SMOOTH = (0.5 + 0.49 * np.sin(ROWS / 7.3) * np.cos(COLUMNS / 5.1)).astype(np.float32)
BYTES = np.round(1 + SMOOTH * 253).astype(np.uint8)
HOLE = np.zeros(SMOOTH.shape, np.bool_)
HOLE[10:40, 30:70] = HOLE[60, 5] = True


def with_hole(filler: float, values: Any = SMOOTH) -> Any:
    filled = values.copy()
    filled[HOLE] = filler
    return filled


@pytest.mark.parametrize(
    ("filler", "nodata"),
    [
        pytest.param(np.nan, None, marks=pytest.mark.catalogue(52)),
        pytest.param(np.nan, np.nan, marks=pytest.mark.catalogue(52)),
        pytest.param(-9999, -9999, marks=pytest.mark.catalogue(56)),
        pytest.param(
            np.float32(-3.4028234663852886e38), -3.4028234663852886e38,
            marks=pytest.mark.catalogue(57),
        ),
        pytest.param(
            np.float32(-3.4028234663852886e38), -3.40282e38, marks=pytest.mark.catalogue(57)
        ),
    ],
)  # fmt: skip
def test_markers_of_floats(bench: Bench, filler: float, nodata: float | None) -> None:
    write_raster(Path("x.tif"), with_hole(filler), nodata=nodata)
    bench.refined("x.tif", expected=SMOOTH, valid=~HOLE)


@pytest.mark.catalogue(53)
@pytest.mark.parametrize("filler", [np.inf, -np.inf])
def test_infinities(bench: Bench, filler: float) -> None:
    write_raster(Path("x.tif"), with_hole(filler))
    bench.refined("x.tif", expected=SMOOTH, valid=~HOLE, warned=["infinite values"])


@pytest.mark.catalogue(54)
def test_nodata_0_is_honoured_and_told(bench: Bench) -> None:
    write_raster(Path("x.tif"), with_hole(0, BYTES), nodata=0)
    bench.refined("x.tif", expected=BYTES / 255, valid=~HOLE, warned=["nodata is 0"])


@pytest.mark.catalogue(55)
def test_nodata_255(bench: Bench) -> None:
    write_raster(Path("x.tif"), with_hole(255, BYTES), nodata=255)
    bench.refined("x.tif", expected=BYTES / 255, valid=~HOLE)


@pytest.mark.catalogue(58)
def test_nodata_that_the_type_cannot_hold(bench: Bench) -> None:
    write_raster(Path("x.tif"), BYTES, nodata=77)
    # rasterio does not write such a tag, other programs do.
    content = Path("x.tif").read_bytes()
    assert content.count(b"77\0") == 1
    Path("x.tif").write_bytes(content.replace(b"77\0", b".5\0"))
    bench.refined(
        "x.tif", expected=BYTES / 255, warned=["0.5 cannot occur in a uint8 band and is ignored"]
    )


@pytest.mark.catalogue(59)
def test_the_hint_for_an_untagged_marker_works(bench: Bench) -> None:
    write_raster(Path("x.tif"), with_hole(-9999))
    bench.refine_refused(3, "use --nodata -9999", "x.tif")
    bench.refined("x.tif", "--nodata", "-9999", expected=SMOOTH, valid=~HOLE)


@pytest.mark.catalogue(60)
@pytest.mark.parametrize("nodata", [None, -9999.0])
@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_inside_or_beside(bench: Bench, inside: bool, nodata: float | None) -> None:
    values = SMOOTH.copy()
    valid = ~HOLE
    if nodata is not None:
        values[70:75, 80:90] = nodata
        valid[70:75, 80:90] = False
    write_raster(Path("x.tif"), values, nodata=nodata)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open("x.tif", "r+") as dataset:
        dataset.write_mask(~HOLE)
    assert Path("x.tif.msk").exists() is not inside
    bench.refined("x.tif", expected=SMOOTH, valid=valid)


@pytest.mark.catalogue(60)
def test_an_alpha_band(bench: Bench) -> None:
    bands = np.stack([BYTES, np.where(HOLE, 0, 255).astype(np.uint8)])
    write_raster(Path("x.tif"), bands, photometric="MINISBLACK", alpha="YES")
    bench.refined("x.tif", expected=BYTES / 255, valid=~HOLE)


@pytest.mark.catalogue(61)
@pytest.mark.parametrize(
    ("values", "nodata"), [(SMOOTH * np.nan, None), (BYTES * 0 + np.uint8(9), 9)]
)
def test_nothing_but_nodata(bench: Bench, values: Any, nodata: int | None) -> None:
    write_raster(Path("x.tif"), values, nodata=nodata)
    nothing = np.zeros(SMOOTH.shape, np.bool_)
    bench.refined("x.tif", valid=nothing, warned=["holds no data at all"])


@pytest.mark.catalogue(62)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_one_value_throughout(bench: Bench, value: float) -> None:
    write_raster(Path("x.tif"), np.full(SMOOTH.shape, value, np.float32))
    refined = bench.refined("x.tif", expected=np.full(SMOOTH.shape, value))
    assert np.isfinite(refined.confidence).all()
