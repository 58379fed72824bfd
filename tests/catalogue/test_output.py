"""82-91: where the output cannot be. 84-86 stand in ``test_bad_input``."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.catalogue.bench import Bench
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster

VALUES = np.linspace(0, 1, 1500, dtype=np.float32).reshape(30, 50)
OUTPUTS = ("out_m.tif", "out_c.tif")


@pytest.mark.catalogue(82)
def test_a_directory_that_is_not_there(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES)
    bench.refine_refused(4, "the directory a/b does not exist", "x.tif", "-o", "a/b/m.tif")


@pytest.mark.catalogue(82)
def test_a_directory_that_is_made(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES)
    small = ("-m", bench.model, "--tile-size", 64, "--overlap", 16, "--parents")
    result = bench.run("refine", "x.tif", "-o", "a/b/m.tif", "--vector-out", "a/c/v.gpkg", *small)
    assert result.exit_code == 0, result.output
    made = {name for name in bench.snapshot() if not name.endswith((".json", ".qml", ".xml"))}
    assert made == {"a", "a/b", "a/b/m.tif", "a/c", "a/c/v.gpkg", "x.tif"}
    result = bench.run("vectorize", "a/b/m.tif", "-o", "d/v.gpkg", "--parents")
    assert result.exit_code == 0 and Path("d/v.gpkg").is_file()
    # None stays of a run that made nothing; what else is there does.
    bench.refused(3, "no such file", "refine", "none.tif", "-o", "e/f/m.tif", *small)
    bench.refused(3, "no such file", "refine", "none.tif", "-o", "a/f/m.tif", *small)
    bench.refused(4, "cannot be made", "refine", "x.tif", "-o", "x.tif/f/m.tif", *small)
    bench.refused(4, "cannot be made", "refine", "x.tif", "-o", "/proc/f/m.tif", *small)


@pytest.mark.catalogue(83)
def test_no_permission_to_write(
    bench: Bench, as_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(as_nobody)
    write_raster(Path("x.tif"), VALUES)
    Path("locked").mkdir(mode=0o500)
    for output in ("locked/m.tif", "/proc/m.tif"):
        result = bench.run("refine", "x.tif", "-o", output)
        assert result.exit_code == 4, result.output
        assert result.stderr.count("\n") == 1 and output in result.stderr
    assert sorted(os.listdir()) == ["locked", "x.tif"] and os.listdir("locked") == []


@pytest.mark.catalogue(84)
def test_an_output_that_exists_is_found_before_the_model_is_read(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES)
    Path("m.tif").write_text("old")
    bench.refine_refused(4, "--overwrite", "x.tif", "-o", "m.tif", "-m", "none.safetensors")


@pytest.mark.catalogue(85)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_confidence_onto_the_input(bench: Bench, link: object) -> None:
    write_raster(Path("x.tif"), VALUES)
    link("x.tif", "y.tif")
    for name in ("x.tif", "y.tif", "./../" + bench.place.name + "/x.tif"):
        bench.refine_refused(
            2, "is the input", "x.tif", "-o", "m.tif", "--confidence-out", name, "--overwrite"
        )


@pytest.mark.catalogue(88)
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EIO, errno.EACCES])
def test_a_rename_that_fails(bench: Bench, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(Path("x.tif"), VALUES)
    Path("m.tif").write_text("old")
    real = os.replace

    def fail(source: object, target: object, **rest: object) -> None:
        if Path(target).name == "m.tif":
            raise OSError(number, os.strerror(number))
        real(source, target, **rest)

    monkeypatch.setattr(os, "replace", fail)
    result = bench.run(
        "refine", "x.tif", "-o", "m.tif", "--overwrite", "-m", bench.model, "--tile-size", 64,
        "--overlap", 16,
    )  # fmt: skip
    assert result.exit_code == 4, result.output
    assert "m.tif: the finished file cannot be put in place" in result.stderr
    assert os.strerror(number) in result.stderr and "Traceback" not in result.stderr
    assert Path("m.tif").read_text() == "old"
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


NAMES = [
    "straße 道路.tif",
    "two  spaces.tif",
    'it\'s "quoted".tif',
    "-dash.tif",
    "--overwrite",
    "a?b#c%20d&e.tif",
    "new\nline.tif",
    "n" * 200 + ".tif",
    "é" * 100 + ".tif",
]


@pytest.mark.catalogue(89)
@pytest.mark.parametrize("name", NAMES)
def test_names_of_outputs(bench: Bench, name: str) -> None:
    write_raster(Path("x.tif"), VALUES)
    result = bench.run(
        "refine", "x.tif", f"--output={name}", "-m", bench.model, "--tile-size", 64, "--overlap",
        16,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert without_sides() == sorted([name, "x.tif"])
    with rasterio.open(bench.place / name) as dataset:
        assert dataset.read(1).max() == 1


@pytest.mark.catalogue(89)
@pytest.mark.parametrize("name", NAMES)
def test_names_of_inputs(bench: Bench, name: str) -> None:
    write_raster(Path(name), VALUES)
    bench.refined(name, expected=VALUES, reference=bench.place / name)


@pytest.mark.catalogue(91)
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_any_new_file(bench: Bench, umask: int) -> None:
    write_raster(Path("x.tif"), VALUES)
    before = os.umask(umask)
    try:
        result = bench.run(
            "refine", "x.tif", "-o", "m.tif", "--confidence-out", "c.tif", "--vector-out",
            "v.gpkg", "-m", bench.model, "--tile-size", 64, "--overlap", 16,
        )  # fmt: skip
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    for name in ("m.tif", "c.tif", "v.gpkg"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o666 & ~umask
