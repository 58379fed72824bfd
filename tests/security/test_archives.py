"""geothresh unpacks no archive: there is no path in one that could lead out of a directory.

GDAL reads a raster in one that the user names, under the limits of all rasters.
"""

from __future__ import annotations

import ast
import gzip
import zipfile
from pathlib import Path

import pytest

import geothresh
from geothresh.cli import main
from geothresh.errors import InputError
from geothresh.options import Reading
from geothresh.raster.scene import open_scene
from tests.security import tiffs
from tests.support.cli_runner import runner

PACKAGE = Path(geothresh.__file__).parent
UNPACKERS = {"bz2", "gzip", "lzma", "tarfile", "zipfile", "zipimport"}


def unpacking(source: str) -> list[str]:
    """Imports and calls by which a module could unpack an archive."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [n.name for n in node.names if n.name.split(".")[0] in UNPACKERS]
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            if (node.module or "").split(".")[0] in UNPACKERS or "shutil.unpack_archive" in names:
                found.append(node.module or "")
        if isinstance(node, ast.Attribute) and node.attr == "unpack_archive":
            found.append(node.attr)
    return found


@pytest.mark.catalogue(118)
def test_no_module_unpacks_archives() -> None:
    found = {str(path): unpacking(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import tarfile",
        "def f():\n    from zipfile import ZipFile",
        "import shutil\nshutil.unpack_archive(x)",
        "from shutil import unpack_archive",
    ],
)
def test_the_rule_catches(source: str) -> None:
    assert unpacking(source)


@pytest.mark.catalogue(118)
@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"ustar"])
@pytest.mark.parametrize("command", ["info", "refine", "vectorize", "train"])
def test_an_archive_is_no_input(
    start: bytes, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.zip").write_bytes(start + bytes(500))
    more = ["-o", "m.safetensors", "--labels", "x.zip"] if command == "train" else []
    result = runner().invoke(main, [command, "x.zip", *more])
    assert result.exit_code == 3, result.output
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (tiffs.image(2 * 10**9, 2 * 10**9) + tiffs.strips(2 * 10**9), "2000000000 x 2000000000"),
        (tiffs.image(300, 300) + tiffs.tiles(40_000), "one block of 40000 x 40000"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_the_limits_hold_for_a_raster_in_an_archive(
    entries: list[tiffs.Entry], text: str, kind: str, tmp_path: Path
) -> None:
    tiffs.write(tmp_path / "x.tif", entries)
    packed = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(tmp_path / "x.tif", "x.tif")
        name = f"/vsizip/{packed}/x.tif"
    else:
        packed.write_bytes(gzip.compress((tmp_path / "x.tif").read_bytes()))
        name = f"/vsigzip/{packed}"
    with pytest.raises(InputError, match=text):
        open_scene(name, Reading())
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["x.tif", packed.name])
