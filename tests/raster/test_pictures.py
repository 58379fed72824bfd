"""Pictures as arrays: grey ones in, any out, damaged ones refused."""

from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geothresh.errors import InputError
from geothresh.raster.pictures import read_gray, read_rgb, write_png
from tests.support.rasters import write_raster


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


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG (H, W, 3) as it stands in the specification: Pillow writes none."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_threads_that_read_leave_the_callers_warnings_as_they_are(tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.png" for index in range(60)]
    for file in files:
        write_png(file, np.zeros((9, 9), np.uint8))
    raster = write_raster(tmp_path / "plain.tif", np.zeros((9, 9), np.uint8), crs=None)
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_gray, [*files, *[raster] * 60]))
    assert warnings.filters == before


def test_a_picture_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "a.png", np.zeros((30, 40), np.uint8))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="exceeds limit of 1000 pixels"):
        read_gray(tmp_path / "a.png")


def test_colour_in_16_bits_is_refused_rather_than_cut(tmp_path: Path) -> None:
    """An image of 11 bits in 16 would come out black."""
    path = tmp_path / "deep.png"
    path.write_bytes(png_of_16_bits(np.full((4, 5, 3), 2000, np.uint16)))
    with pytest.raises(InputError, match="more than 8 bits"):
        read_rgb(path)


def test_colours_of_a_tiff_are_found_as_for_scenes(tmp_path: Path) -> None:
    values = np.arange(1, 37, dtype=np.uint8).reshape(3, 3, 4)
    values[0, 0, 0] = 0  # in one band only, so that nothing is missing
    path = write_raster(tmp_path / "bgr.tif", values, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    np.testing.assert_array_equal(read_rgb(path), values[::-1].transpose(1, 2, 0))
    values[:, 0, 0] = 0
    hole = write_raster(tmp_path / "hole.tif", values, nodata=0)
    with pytest.raises(InputError, match="1 pixels have no data"):
        read_rgb(hole)
    four = write_raster(
        tmp_path / "four.tif", np.ones((4, 3, 4), np.uint8), photometric="MINISBLACK"
    )
    with pytest.raises(InputError, match="which are red, green and blue"):
        read_rgb(four)
    one = write_raster(tmp_path / "one.tif", np.ones((3, 4), np.uint8))
    with pytest.raises(InputError, match="one.tif: holds 1 band; an image needs three"):
        read_rgb(one)
