"""What cannot work ends in one line and its exit code, and leaves the directory as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

CONFIDENCE = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
BYTES = (CONFIDENCE * 255).astype(np.uint8)

Make = Callable[[], object]


def good() -> None:
    write_raster(Path("x.tif"), CONFIDENCE)


def of(values: object, **options: object) -> Make:
    return lambda: write_raster(Path("x.tif"), values, **options)


def content(data: bytes) -> Make:
    return lambda: Path("x.tif").write_bytes(data)


def both(*steps: Make) -> Make:
    return lambda: [step() for step in steps]


def cut(part: float) -> Make:
    """A COG-like file, directory first, of which the end is missing."""

    def make() -> None:
        noise = np.random.default_rng(0).random((256, 256), np.float32)
        write_raster(Path("plain.tif"), noise)
        layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        rasterio.shutil.copy("plain.tif", "x.tif", driver="GTiff", **layout)
        Path("plain.tif").unlink()
        data = Path("x.tif").read_bytes()
        Path("x.tif").write_bytes(data[: int(len(data) * part)])

    return make


def with_colours() -> None:
    write_raster(Path("x.tif"), BYTES)
    with rasterio.open("x.tif", "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0)})


def ifd_loop() -> None:
    # A directory of no entries whose next directory is itself.
    Path("x.tif").write_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0")


def unparsable_crs() -> None:
    write_raster(Path("x.tif"), CONFIDENCE, crs=None)
    Path("x.tif.aux.xml").write_text("<PAMDataset><SRS>PROJCS[broken</SRS></PAMDataset>")


# name: (what stands there, arguments, exit code, part of the line)
TABLE: dict[str, tuple[Make, str, int, str]] = {
    # Wrong usage
    "band 0": (good, "x.tif -b 0", 2, "--bidx"),
    "band out of range": (good, "x.tif -b 9", 2, "from 1 to 1"),
    "output is the input": (good, "x.tif -o x.tif --overwrite", 2, "is the input"),
    "output links to the input": (
        both(good, lambda: Path("y.tif").symlink_to("x.tif")),
        "x.tif -o y.tif --overwrite", 2, "is the input",
    ),
    "output is a hard link to the input": (
        both(good, lambda: os.link("x.tif", "y.tif")),
        "x.tif -o y.tif --overwrite", 2, "is the input",
    ),
    "input is a link to the output": (
        both(good, lambda: Path("y.tif").symlink_to("x.tif")),
        "y.tif -o x.tif --overwrite", 2, "is the input",
    ),
    "two outputs of one name": (good, "x.tif -o m.tif --confidence-out m.tif", 2, "two outputs"),
    "tile size off the patch": (good, "x.tif --tile-size 70", 2, "70"),
    "nodata that cannot be": (of(BYTES), "x.tif --nodata 300", 2, "--nodata"),
    "unknown creation option": (good, "x.tif --co COLOUR=RED", 2, "COLOUR"),
    "creation option without a value": (good, "x.tif --co COMPRESS", 2, "NAME=VALUE"),
    "lossy compression": (good, "x.tif --co COMPRESS=JPEG", 2, "COMPRESS"),
    "vector format": (good, "x.tif --vector-out v.kml", 2, ".gpkg"),
    "scale of nought": (good, "x.tif --scale 0", 2, "--scale"),
    # Bad input
    "missing": (lambda: None, "x.tif", 3, "no such file"),
    "name of 300 letters": (lambda: None, 300 * "x", 3, "too long for the file system"),
    "empty": (content(b""), "x.tif", 3, "empty"),
    "directory": (lambda: Path("x.tif").mkdir(), "x.tif", 3, "is a directory"),
    "broken link": (lambda: Path("x.tif").symlink_to("gone"), "x.tif", 3, "gone"),
    "pipe": (lambda: os.mkfifo("x.tif"), "x.tif", 3, "not a regular file"),
    "device": (lambda: None, "/dev/zero", 3, "not a regular file"),
    "HTML": (content(b"<!DOCTYPE html>"), "x.tif", 3, "HTML"),
    "git-lfs pointer": (content(b"version https://git-lfs.github.com"), "x.tif", 3, "git lfs"),
    "text": (content(b"hello"), "x.tif", 3, "not a TIFF"),
    "random bytes": (content(bytes(range(256))), "x.tif", 3, "not a TIFF"),
    "4 bytes": (content(b"II*\0"), "x.tif", 3, "cannot be opened"),
    "8 bytes": (content(b"II*\0\x08\0\0\0"), "x.tif", 3, "cannot be opened"),
    "directory loop": (ifd_loop, "x.tif", 3, "cannot be opened"),
    "PNG": (content(b"\x89PNG\r\n\x1a\n"), "x.tif", 3, "PNG"),
    "JPEG": (content(b"\xff\xd8\xff\xe0"), "x.tif", 3, "JPEG"),
    "HDF5": (content(b"\x89HDF\r\n\x1a\n"), "x.tif", 3, "HDF5"),
    "VRT in disguise": (content(b"<VRTDataset>"), "x.tif", 3, "--allow-vrt"),
    "VRT in the name": (lambda: None, "<VRTDataset/>", 3, "not the path"),
    "GDAL name": (good, "GTIFF_DIR:1:x.tif", 3, "not the path"),
    "metadata server": (lambda: None, "http://169.254.169.254/x.tif", 3, "link-local"),
    "cut at 10 %": (cut(0.1), "x.tif", 3, "block ("),
    "cut at 50 %": (cut(0.5), "x.tif", 3, "block ("),
    "cut at 95 %": (cut(0.95), "x.tif", 3, "block ("),
    "several bands": (of(np.stack([BYTES] * 3)), "x.tif", 3, "--bidx"),
    "600 bands": (of(np.zeros((600, 2, 2), np.uint8)), "x.tif", 3, "--bidx"),
    "percent": (of(CONFIDENCE * 100), "x.tif", 3, "--scale 100"),
    "0 to 255 as float": (of(CONFIDENCE * 255), "x.tif", 3, "--scale 255"),
    "logits": (of(CONFIDENCE * 9 - 4), "x.tif", 3, "--scale logit"),
    "untagged -9999": (
        of(np.where(CONFIDENCE < 0.1, np.float32(-9999), CONFIDENCE)), "x.tif", 3, "--nodata -9999",
    ),
    "uint16 without scale": (of(BYTES.astype(np.uint16) * 39), "x.tif", 3, "--scale 10000"),
    "int16 without scale": (of(BYTES.astype(np.int16)), "x.tif", 3, "--scale 255"),
    "int8 without scale": (of((BYTES // 3).astype(np.int8)), "x.tif", 3, "--scale 100"),
    "scale that does not fit": (of(BYTES), "x.tif --scale 100", 3, "--scale 255"),
    "scale tags that do not fit": (of(BYTES, scale=(3.0, 0.0)), "x.tif", 3, "tags"),
    "complex": (of(CONFIDENCE.astype(np.complex64)), "x.tif", 3, "complex"),
    "colour table": (with_colours, "x.tif", 3, "colour table"),
    "MINISWHITE": (of(BYTES, photometric="MINISWHITE"), "x.tif", 3, "MINISWHITE"),
    "flat transform": (of(BYTES, transform=Affine(0, 0, 5, 0, 0, 5)), "x.tif", 3, "transform"),
    "no place for vectors": (
        of(BYTES, crs=None, transform=None), "x.tif --vector-out v.gpkg", 3, "no georeference",
    ),
    "GeoJSON without a CRS": (
        of(BYTES, crs=None), "x.tif --vector-out v.geojson", 3, "in EPSG:4326 by its standard",
    ),
    # Outputs that cannot be written
    "output exists": (both(good, lambda: Path("m.tif").write_text("old")), "x.tif -o m.tif", 4,
                      "--overwrite"),
    "default output exists": (
        both(good, lambda: Path("x_mask.tif").write_text("old")), "x.tif", 4, "--overwrite",
    ),
    "confidence exists": (
        both(good, lambda: Path("c.tif").write_text("old")), "x.tif --confidence-out c.tif", 4,
        "--overwrite",
    ),
    "vectors exist": (
        both(good, lambda: Path("v.gpkg").write_text("old")), "x.tif --vector-out v.gpkg", 4,
        "--overwrite",
    ),
    "directory missing": (good, "x.tif -o none/m.tif", 4, "does not exist"),
    "output is a directory": (both(good, lambda: Path("d").mkdir()), "x.tif -o d --overwrite", 4,
                              "is a directory"),
    "output below a file": (good, "x.tif -o x.tif/m.tif", 4, "directory"),
    "output is a pipe": (
        both(good, lambda: os.mkfifo("p")), "x.tif -o p --overwrite", 4, "not a regular file",
    ),
    "output name too long": (good, f"x.tif -o {'n' * 300}.tif", 4, "cannot be written"),
    # Models
    "model name too long": (good, f"x.tif -m {'n' * 300}", 5, "no such model file"),
    "no such model": (good, "x.tif -m none.safetensors", 5, "none.safetensors"),
    "model is text": (
        both(good, lambda: Path("m.safetensors").write_text("hello, I am no model")),
        "x.tif -m m.safetensors", 5, "m.safetensors",
    ),
    "model is empty": (
        both(good, lambda: Path("m.safetensors").write_bytes(b"")),
        "x.tif -m m.safetensors", 5, "m.safetensors",
    ),
    "model with an endless header": (
        both(good, lambda: Path("m.safetensors").write_bytes(b"\xff" * 8 + b"{}")),
        "x.tif -m m.safetensors", 5, "m.safetensors",
    ),
}  # fmt: skip


# What of the catalogue of odd inputs a row is.
CATALOGUE = {
    "missing": pytest.mark.catalogue(1),
    "empty": pytest.mark.catalogue(2),
    "directory": pytest.mark.catalogue(3),
    "broken link": pytest.mark.catalogue(4),
    "HTML": pytest.mark.catalogue(5),
    "git-lfs pointer": pytest.mark.catalogue(5),
    "text": pytest.mark.catalogue(5),
    "random bytes": pytest.mark.catalogue(5),
    "4 bytes": pytest.mark.catalogue(6),
    "8 bytes": pytest.mark.catalogue(6),
    "directory loop": pytest.mark.catalogue(7),
    "PNG": pytest.mark.catalogue(8),
    "pipe": pytest.mark.catalogue(11),
    "device": pytest.mark.catalogue(11),
    "cut at 10 %": pytest.mark.catalogue(15),
    "cut at 50 %": pytest.mark.catalogue(15),
    "cut at 95 %": pytest.mark.catalogue(15),
    "uint16 without scale": pytest.mark.catalogue(44),
    "int16 without scale": pytest.mark.catalogue(44),
    "int8 without scale": pytest.mark.catalogue(44),
    "scale tags that do not fit": pytest.mark.catalogue(45),
    "percent": pytest.mark.catalogue(48),
    "0 to 255 as float": pytest.mark.catalogue(48),
    "logits": pytest.mark.catalogue(48),
    "complex": pytest.mark.catalogue(49),
    "colour table": pytest.mark.catalogue(50),
    "MINISWHITE": pytest.mark.catalogue(50),
    "untagged -9999": pytest.mark.catalogue(59),
    "several bands": pytest.mark.catalogue(64),
    "band 0": pytest.mark.catalogue(65),
    "band out of range": pytest.mark.catalogue(65),
    "600 bands": pytest.mark.catalogue(66),
    "flat transform": pytest.mark.catalogue(77),
    "metadata server": pytest.mark.catalogue(81),
    "directory missing": pytest.mark.catalogue(82),
    "output exists": pytest.mark.catalogue(84),
    "default output exists": pytest.mark.catalogue(84),
    "confidence exists": pytest.mark.catalogue(84),
    "vectors exist": pytest.mark.catalogue(84),
    "output is the input": pytest.mark.catalogue(85),
    "output links to the input": pytest.mark.catalogue(85),
    "output is a hard link to the input": pytest.mark.catalogue(85),
    "input is a link to the output": pytest.mark.catalogue(85),
    "output is a directory": pytest.mark.catalogue(86),
}


def snapshot() -> dict[str, bytes]:
    """Every name here, and what the files hold."""
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in Path().iterdir()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=CATALOGUE.get(name, ())) for name in TABLE]
)
def test_bad_input(
    name: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, arguments, exit_code, text = TABLE[name]
    make()
    before = snapshot()
    model = [] if " -m " in arguments else ["-m", str(tiny_model)]
    result = runner().invoke(main, ["refine", *arguments.split(), *model])
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and text in lines[0], result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == lines[0]
    assert snapshot() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good()
    (tmp_path / "locked").mkdir(mode=0o500)
    result = runner().invoke(main, ["refine", "x.tif", "-o", "locked/m.tif"])
    assert result.exit_code == 4 and "no permission" in result.stderr
    (tmp_path / "x.tif").chmod(0)
    result = runner().invoke(main, ["refine", "x.tif"])
    assert result.exit_code == 3 and "cannot be read" in result.stderr


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("missing", {}),
        ("several bands", {"LANG": "C", "LC_ALL": "C"}),
        ("cut at 50 %", {}),
    ],
)
def test_bad_input_in_a_process_of_its_own(
    name: str, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, arguments, exit_code, text = TABLE[name]
    make()
    before = snapshot()
    done = subprocess.run(
        [sys.executable, "-m", "geothresh", "refine", *arguments.split()],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert done.returncode == exit_code and done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert text in done.stderr
    assert snapshot() == before


@pytest.mark.parametrize("setup", [of(BYTES[:1, :1]), unparsable_crs])
def test_odd_but_accepted_or_told(
    setup: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a traceback, whichever way it goes."""
    monkeypatch.chdir(tmp_path)
    setup()
    result = runner().invoke(main, ["info", "x.tif"])
    assert result.exit_code in (0, 3) and "Traceback" not in result.output
