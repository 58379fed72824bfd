"""Images read window by window: what marks pixels without data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil

from geothresh.errors import GeothreshWarning
from geothresh.raster.image import open_image
from geothresh.windows import PixelWindow
from tests.support.rasters import write_raster


def test_only_the_nodata_that_cannot_occur_is_told(tmp_path: Path) -> None:
    values = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    values[:, 0, 0] = 0
    write_raster(tmp_path / "x.tif", values, nodata=0)
    rasterio.shutil.copy(tmp_path / "x.tif", tmp_path / "x.vrt", driver="VRT")
    text = (tmp_path / "x.vrt").read_text("utf-8")
    tag = "<NoDataValue>0</NoDataValue>"
    assert text.count(tag) == 3
    (tmp_path / "x.vrt").write_text(text.replace(tag, tag.replace("0", "0.5"), 1), "utf-8")
    with (
        pytest.warns(GeothreshWarning) as caught,
        open_image(tmp_path / "x.vrt", allow_vrt=True) as image,
    ):
        assert image.spec.nodata == (None, 0, 0)
        _, valid = image.read(PixelWindow(row=0, col=0, height=3, width=3))
    assert valid.all()
    (warning,) = caught
    assert "the nodata value 0.5 cannot occur in a uint8 band" in str(warning.message)
    with open_image(tmp_path / "x.tif") as image:
        assert image.spec.nodata == (0, 0, 0)
