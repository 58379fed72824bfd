"""Pictures as arrays: grey ones in, any out, damaged ones refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasters import write_raster

from geothresh.errors import InputError
from geothresh.raster.images import read_gray, write_png


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_gray_pictures(tmp_path: Path, ending: str) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / f"x.{ending}"
    if ending == "png":
        write_png(path, values)
    else:
        write_raster(path, values)
    found = read_gray(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


def test_pictures_with_gaps_are_refused_unless_asked_for(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255], [0, 255, 1]], np.uint8)
    hole = np.array([[1, 1, 1], [1, 0, 1]], np.uint8) * 255
    for name, missing, options in (
        ("tag.tif", 2, {"nodata": 255}),
        ("mask.tif", 1, {"mask": hole}),
    ):
        path = write_raster(tmp_path / name, values, **options)
        with pytest.raises(InputError, match=f"{name}: {missing} pixels have no data"):
            read_gray(path)
        np.testing.assert_array_equal(read_gray(path, gaps=True), values)
    # The background of masks as others burn them.
    path = write_raster(tmp_path / "zero.tif", values, nodata=0)
    np.testing.assert_array_equal(read_gray(path), values)


def test_pictures_in_colour_and_damaged_ones(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=2)
    write_png(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read_gray(tmp_path / "grey.png"), grey[..., 0])
    grey[0, 0, 0] = 77
    write_png(tmp_path / "colour.png", grey)
    with pytest.raises(InputError, match="in colour"):
        read_gray(tmp_path / "colour.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:45])
    (tmp_path / "text.png").write_text("no picture")
    for name in ("cut.png", "text.png", "none.png"):
        with pytest.raises(InputError) as caught:
            read_gray(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob(".*"))
