"""Files that appear: under names that nobody can guess, never through a link, with usual modes."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geothresh.cli import main
from geothresh.errors import OutputError
from geothresh.files import create_beside
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster

OUTPUTS = ["m.tif", "c.tif", "v.gpkg", "v.geojson", "v.shp", "v.fgb"]
SIDECARS = ["m.qml", "m.tif.aux.xml", "c.qml", "v.qml"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a scene, in it."""
    monkeypatch.chdir(tmp_path)
    values = np.zeros((40, 40), np.uint8)
    values[10:20, 5:30] = 255
    write_raster(tmp_path / "x.tif", values)
    return tmp_path


def run(model: Path) -> None:
    """All kinds of outputs."""
    commands = [
        ["refine", "x.tif", "-m", str(model), "-o", "m.tif", "--confidence-out", "c.tif"],
        *(["vectorize", "m.tif", "-o", name] for name in OUTPUTS[2:]),
    ]
    for command in commands:
        result = runner().invoke(main, [*command, "--overwrite"])
        assert result.exit_code == 0, result.output


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_outputs_have_the_modes_of_any_new_file(umask: int, place: Path, tiny_model: Path) -> None:
    run(tiny_model)
    for name in OUTPUTS:
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o666 & ~umask, name


def test_an_output_that_is_a_link_is_replaced_and_what_it_leads_to_stays(
    place: Path, tiny_model: Path
) -> None:
    """Another user of a common directory could have planted it."""
    for name in OUTPUTS:
        (place / f"theirs_{name}").write_text("theirs")
        (place / name).symlink_to(f"theirs_{name}")
    run(tiny_model)
    assert all((place / f"theirs_{name}").read_text() == "theirs" for name in OUTPUTS)
    assert not any((place / name).is_symlink() for name in OUTPUTS)


def test_a_temporary_file_is_never_one_that_is_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the name was guessed: neither file nor link is opened."""
    monkeypatch.setattr(secrets, "token_hex", lambda n_bytes: "0" * 2 * n_bytes)
    guessed = place / ".m.tif.0000000000000000.tmp"
    for plant in (lambda: guessed.write_text("theirs"), lambda: guessed.symlink_to("gone")):
        plant()
        with pytest.raises(OutputError, match="no file can be created"):
            create_beside(place / "m.tif")
        assert not (place / "gone").exists()
        guessed.unlink()


def test_temporary_names_cannot_be_guessed_and_lie_beside_the_output(
    place: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    opening, making = os.open, os.mkdir

    def watched(path: object, *rest: object, **more: object) -> int:
        flags = rest[0] if rest else 0
        if isinstance(flags, int) and flags & os.O_CREAT:
            if str(Path(path).parent).endswith(".geothresh"):
                # In a directory that is locked and known to be our own.
                assert flags & os.O_NOFOLLOW, path
            else:
                assert flags & os.O_EXCL, path
                seen.add(os.fspath(path))
        return opening(path, *rest, **more)

    def made(path: object, *rest: object, **more: object) -> None:
        if ".geothresh" not in os.fspath(path):
            seen.add(os.fspath(path))
        making(path, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(os, "mkdir", made)
    run(tiny_model)
    first, seen = seen, set()
    run(tiny_model)
    assert first and not first & seen
    for name in first | seen:
        if str(Path(name).parent).endswith(".tmp"):
            continue  # in a folder of such a name
        assert Path(name).absolute().parent == place, name
    left = sorted(file.name for file in place.iterdir())
    assert left == sorted(
        ["x.tif", "m.manifest.json", *OUTPUTS, "v.shx", "v.dbf", "v.prj", "v.cpg", *SIDECARS]
    )
