"""1-14: what is no readable GeoTIFF ends in exit code 3 and one line.

1-8 and 11 stand in ``test_bad_input``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from scipy.io import netcdf_file

from tests.catalogue.bench import Bench
from tests.catalogue.tiffs import (
    BITS,
    COMPRESSION,
    HEIGHT,
    LONG,
    ROWS_PER_STRIP,
    SAMPLES,
    SHORT,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    bare,
    one_strip,
    retag,
)
from tests.support.rasters import write_raster

GREY = np.linspace(0, 255, 600).astype(np.uint8).reshape(20, 30)


def by_gdal(driver: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_raster(Path("plain.tif"), GREY)
        rasterio.shutil.copy("plain.tif", path, driver=driver)
        Path("plain.tif").unlink()

    return make


def netcdf(path: Path) -> None:
    with netcdf_file(path, "w") as file:
        file.createDimension("x", 3)
        file.createVariable("band", "f4", ("x",))[:] = 0.5


def hdf5(path: Path) -> None:
    # The signature and version 0 of the superblock; no library here writes more of it.
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(88))


@pytest.mark.catalogue(8, 9)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (by_gdal("PNG"), "a PNG image"),
        (by_gdal("JPEG"), "a JPEG image"),
        (by_gdal("HFA"), "an ERDAS IMG file"),
        (by_gdal("JP2OpenJPEG"), "a JPEG 2000 image"),
        (netcdf, "a netCDF file"),
        (hdf5, "an HDF5 or netCDF-4 file"),
    ],
)
def test_other_formats_are_named(bench: Bench, make: Callable[[Path], None], kind: str) -> None:
    make(Path("x.tif"))
    line = bench.refine_refused(3, f"x.tif: is {kind}", "x.tif")
    assert "convert it to GeoTIFF" in line


@pytest.mark.catalogue(10)
def test_no_permission_to_read(
    bench: Bench, as_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(as_nobody)
    scene = write_raster(Path("x.tif"), GREY)
    scene.chmod(0)
    result = bench.run("refine", "x.tif")
    assert result.exit_code == 3, result.output
    assert result.stderr == (
        "Error: x.tif: cannot be read (Permission denied); check its path and permissions\n"
    )
    assert os.listdir() == ["x.tif"] and stat.S_IMODE(scene.stat().st_mode) == 0


@pytest.mark.catalogue(12)
@pytest.mark.parametrize("tags", [(WIDTH,), (HEIGHT,), (WIDTH, HEIGHT)])
def test_no_pixels(bench: Bench, tags: tuple[int, ...]) -> None:
    write_raster(Path("x.tif"), GREY)
    for tag in tags:
        retag(Path("x.tif"), tag, 0)
    bench.refine_refused(3, "x.tif: ", "x.tif")


@pytest.mark.catalogue(13)
def test_an_unknown_compression_is_named(bench: Bench) -> None:
    retag(write_raster(Path("x.tif"), GREY), COMPRESSION, 60_000)
    bench.refine_refused(3, "60000", "x.tif")


def torn(tag: int, value: int, count: int | None = None) -> Callable[[], object]:
    return lambda: retag(write_raster(Path("x.tif"), GREY), tag, value, count=count)


def tile_of_nothing() -> None:
    tags = one_strip(64, 64, offset=0, size=0)
    for tag in (STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTES):
        del tags[tag]
    tags |= {TILE_WIDTH: (LONG, 0), TILE_HEIGHT: (LONG, 0)}
    tags |= {TILE_OFFSETS: (LONG, 8), TILE_BYTES: (LONG, 64)}
    bare(Path("x.tif"), tags)


# Faults that fuzzing of TIFF readers has found: sizes, counts and places that cannot be.
TORN = {
    "more bits than there are": torn(BITS, 65_535),
    "no bits": torn(BITS, 0),
    "samples without end": torn(SAMPLES, 65_535),
    "no samples": torn(SAMPLES, 0),
    "more strip offsets than the file is long": torn(STRIP_OFFSETS, 8, 0x7FFFFFFF),
    "strips of 4 GB": torn(STRIP_BYTES, 0xFFFFFFFF),
    "strips of no rows": torn(ROWS_PER_STRIP, 0),
    "tiles of no pixels": tile_of_nothing,
    "an odd width": torn(WIDTH, 0xFFFFFFFF),
    "a directory of 65535 entries": lambda: Path("x.tif").write_bytes(
        b"II*\0\x08\0\0\0" + b"\xff\xff" + b"\0\1\3\0\xff\xff\xff\x7f" * 40
    ),
    "one entry, cut": lambda: Path("x.tif").write_bytes(b"II*\0\x08\0\0\0\1\0\0\1"),
    "nothing but a width": lambda: bare(Path("x.tif"), {WIDTH: (SHORT, 9)}),
}


@pytest.mark.catalogue(14)
@pytest.mark.parametrize("name", TORN)
def test_what_fuzzing_finds(bench: Bench, name: str) -> None:
    """Refused, or read where the fault leaves a picture; never a fault of ours."""
    TORN[name]()
    before = bench.snapshot()
    result = bench.run("refine", "x.tif", "-m", bench.model, "--tile-size", 64, "--overlap", 16)
    assert result.exit_code in (0, 3), result.output
    assert "Traceback" not in result.output and "internal fault" not in result.output
    if result.exit_code == 3:
        assert bench.snapshot() == before
