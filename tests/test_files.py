"""Temporary files: what a killed run leaves is removed by the next one, a living one's is not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from geothresh import files
from geothresh.durability.locking import WorkDirectory
from geothresh.errors import OutputError
from geothresh.files import check_output, create_beside, discard, publish, remove_stale, replacing

HOLD = (
    "import pathlib, sys\n"
    "from geothresh.files import create_beside\n"
    "made = create_beside(pathlib.Path(sys.argv[1]))\n"
    "made.write_text('half')\n"
    "made.with_name(made.name + '-journal').write_text('hot')\n"
    "print(made, flush=True)\n"
    "sys.stdin.read()\n"
)


def holder(target: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a temporary file of `target`, and that file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("name", ["roads.gpkg", "a b'ü.tif", "x" * 255, ".hidden"])
def test_the_dead_are_removed_and_the_living_stay(tmp_path: Path, name: str) -> None:
    target, other = tmp_path / name, tmp_path / "other.gpkg"
    dead, theirs = holder(target)
    end(dead)
    alive, ours = holder(target)
    stranger, strange = holder(other)
    end(stranger)
    try:
        mine = create_beside(target)
        assert theirs.exists()
        check_output(target, overwrite=False)
        assert not theirs.parent.exists()
        assert ours.read_text() == "half" and mine.exists()
        # What is of another output is that one's affair.
        assert strange.exists()
    finally:
        end(alive)
    discard(mine)
    remove_stale(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_dead_of_files_beside_an_output_are_removed_with_its_own(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    names = ("out.tif", "out.qml", "out.tif.aux.xml", "other.qml")
    left = [tmp_path / f".{name}.{'0' * 16}.tmp" for name in names]
    for folder in left:
        folder.mkdir()
    check_output(target, overwrite=False, cleared=True)
    assert all(folder.exists() for folder in left)
    check_output(target, overwrite=False)
    assert [folder for folder in left if folder.exists()] == left[3:]


def test_a_writer_that_makes_the_file_anew_keeps_its_lock(tmp_path: Path) -> None:
    """As GDAL does: a lock on the file itself would be that of a file without a name."""
    target = tmp_path / "v.gpkg"
    with replacing(target) as temporary:
        temporary.unlink()
        temporary.write_text("new")
        code = "import pathlib, sys; from geothresh.files import remove_stale as r; "
        code += "r(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert temporary.read_text() == "new"
    assert target.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["v.gpkg"]


def test_what_looks_like_ours_and_is_not_stays(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "v.gpkg", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    (tmp_path / f".v.gpkg.{'0' * 16}.tmp").symlink_to(elsewhere)
    (tmp_path / f".v.gpkg.{'1' * 16}.tmp").write_text("a file")
    (tmp_path / ".v.gpkg.mine.tmp").mkdir()
    before = sorted(tmp_path.rglob("*"))
    check_output(target, overwrite=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_of_a_folder_is_published_without_the_folder(tmp_path: Path) -> None:
    temporary = create_beside(tmp_path / "a.shp")
    part = temporary.with_name("part")
    part.write_text("x")
    publish(part, tmp_path / "a.dbf")
    assert temporary.exists()
    publish(temporary, tmp_path / "a.shp")
    assert sorted(os.listdir(tmp_path)) == ["a.dbf", "a.shp"]
    assert temporary not in files._LOCKS


def test_an_interrupt_while_the_folder_goes_leaves_none(tmp_path: Path, monkeypatch) -> None:
    remove = shutil.rmtree

    def interrupted(*given: object, **options: object) -> None:
        monkeypatch.setattr(shutil, "rmtree", remove)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "roads.gpkg") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["roads.gpkg"]


def test_a_file_system_that_cannot_flush_directories_is_good_enough(
    tmp_path: Path, monkeypatch
) -> None:
    flush = os.fsync

    def none_of_directories(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", none_of_directories)
    with replacing(tmp_path / "roads.gpkg") as temporary:
        temporary.write_text("whole")
    WorkDirectory(tmp_path / "roads.gpkg").flush()
    assert (tmp_path / "roads.gpkg").read_text() == "whole"


def test_what_cannot_be_flushed_does_not_take_the_place_of_the_old_file(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "roads.gpkg").write_text("old")
    opened = os.open

    def no_directories(path: object, flags: int, *more: object, **options: object) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *more, **options)

    with pytest.raises(OutputError, match="cannot be put in place"), monkeypatch.context() as patch:
        temporary = create_beside(tmp_path / "roads.gpkg")
        temporary.write_text("new")
        patch.setattr(os, "open", no_directories)
        publish(temporary, tmp_path / "roads.gpkg")
    discard(temporary)
    assert (tmp_path / "roads.gpkg").read_text() == "old"


def test_a_work_directory_is_ours_where_the_file_system_chooses_the_owner(
    tmp_path: Path, monkeypatch
) -> None:
    """Root over NFS is nobody there."""
    target = tmp_path / "mask.tif"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    WorkDirectory(target).release(remove=True)
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_created_leaves_neither_folder_nor_descriptor(
    tmp_path: Path, monkeypatch
) -> None:
    opened = os.open

    def full(path: object, flags: int, *more: object, **options: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, flags, *more, **options)

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left"):
        patch.setattr(os, "open", full)
        create_beside(tmp_path / "roads.gpkg")
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "new") as temporary:
        assert temporary.parent.stat().st_mode & 0o777 == 0o700
    plain, new = ((tmp_path / name).stat().st_mode for name in ("plain", "new"))
    assert plain == new


def test_a_directory_without_leftovers_is_listed_once(tmp_path: Path, monkeypatch) -> None:
    """A run may ask for each of thousands of outputs in one directory."""
    count, scandir = 0, os.scandir

    def counted(path):
        nonlocal count
        count += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    for number in range(50):
        check_output(tmp_path / f"{number}.png", overwrite=False)
    assert count == 1
