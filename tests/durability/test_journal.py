"""What an unfinished run keeps: nothing counts that does not prove itself, nothing else is lost."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.durability import Journal, StoredChunk, finished_outputs
from geothresh.durability.journal import left_by_another
from geothresh.durability.locking import only_run, work_directory
from geothresh.durability.strips import Log, StripFile, is_sound, read_log, read_strip
from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError, number_of
from geothresh.files import check_output
from geothresh.packed import PackedLayer
from geothresh.windows import PixelWindow

ENTRIES = [{"strip": 0, "facts": {"valid": 3}}, {"strip": 1}, {"made": {"ü.tif": "ab"}}]


def lines(path: Path) -> bytes:
    journal = Log(path)
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return path.read_bytes()


@given(st.data())
def test_a_torn_or_damaged_line_ends_the_journal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    whole = lines(path)
    ends = np.cumsum([len(line) for line in whole.splitlines(keepends=True)])
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans(), label="torn"):
        path.write_bytes(whole[:place])
    else:
        flipped = bytearray(whole)
        flipped[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(flipped)
    sound = int(np.searchsorted(ends, place, side="right"))
    assert read_log(path) == ENTRIES[:sound]
    journal = Log(path)
    assert journal.entries == ENTRIES[:sound]
    journal.append({"next": 1})
    journal.close()
    assert read_log(path) == [*ENTRIES[:sound], {"next": 1}]


def test_a_line_that_does_not_fit_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    whole = lines(path)
    journal = Log(path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append({"strip": 3})
    monkeypatch.undo()
    assert path.read_bytes() == whole
    journal.append({"strip": 4})
    journal.close()
    assert read_log(path) == [*ENTRIES, {"strip": 4}]


def chunk(row: int, col: int, height: int, width: int, count: int) -> StoredChunk:
    values = np.random.default_rng(row + col).integers(0, 3, (count, height, width), np.uint8)
    window = PixelWindow(row=row, col=col, height=height, width=width)
    return StoredChunk(window=window, layers=tuple(values))


def packed(stored: StoredChunk) -> list[PackedLayer]:
    return [PackedLayer.of(layer) for layer in stored.layers]


def test_a_strip_comes_back_as_it_was(tmp_path: Path) -> None:
    chunks = [chunk(512, 0, 30, 40, 2), chunk(512, 40, 30, 1, 2), chunk(2**33, 2**33, 1, 1, 1)]
    alike = np.full((512, 4096), 255, np.uint8)
    chunks.append(StoredChunk(window=chunks[0].window, layers=(*chunks[0].layers, alike[:30, :40])))
    window = PixelWindow(row=0, col=0, height=512, width=4096)
    chunks.append(StoredChunk(window=window, layers=(alike,)))
    strip = StripFile(tmp_path / "s000000.bin")
    for one in chunks:
        strip.add(one.window, packed(one))
    assert not strip.path.exists()
    strip.commit()
    assert os.listdir(tmp_path) == ["s000000.bin"]
    assert is_sound(strip.path, size=strip.size, crc=strip.crc)
    assert strip.size < 6000
    for written, found in zip(chunks, read_strip(strip.path), strict=True):
        assert found.window == written.window
        np.testing.assert_array_equal(np.array(found.layers), np.array(written.layers))


@given(place=st.integers(0, 10**6), flip=st.integers(0, 255))
def test_a_damaged_strip_does_not_count(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    strip = StripFile(tmp_path_factory.mktemp("strips") / "s000000.bin")
    one = chunk(0, 0, 20, 20, 1)
    strip.add(one.window, packed(one))
    strip.commit()
    content = bytearray(strip.path.read_bytes())
    place %= len(content)
    content[place] ^= flip
    strip.path.write_bytes(content if flip else content[:place])
    assert not is_sound(strip.path, size=strip.size, crc=strip.crc)
    assert not is_sound(strip.path.with_name("absent"), size=strip.size, crc=strip.crc)


def begun(target: Path, strips: int, **options: object) -> Journal:
    journal = Journal(target, {"threshold": 0.5}, **options)
    for index in range(len(journal.strips), strips):
        stored = chunk(index * 8, 0, 8, 16, 1)
        journal.add(stored.window, packed(stored))
        journal.commit({"valid": index})
    return journal


def interrupted(target: Path, strips: int, **options: object) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, begun(target, strips, **options):
        raise KeyboardInterrupt
    number = number_of(strips, "finished strip")
    expected = [f"the same command goes on from {number}, kept in .out.tif.geothresh"]
    assert getattr(caught.value, "__notes__", []) == (expected if strips else [])


def test_one_strip_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, begun(tmp_path / "out.tif", 1):
        raise KeyboardInterrupt
    assert "goes on from 1 finished strip, kept in" in caught.value.__notes__[0]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    interrupted(target, 3)
    with begun(target, 5) as journal:
        assert [strip.facts["valid"] for strip in journal.strips] == [0, 1, 2, 3, 4]
        assert journal.total("valid") == 10
        for index, found in enumerate(journal.stored()):
            written = chunk(index * 8, 0, 8, 16, 1)
            assert found.window == written.window
            np.testing.assert_array_equal(found.layers[0], written.layers[0])
        journal.finish()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("harm", "left"),
    [
        (lambda folder: (folder / "s000001.bin").unlink(), 1),
        (lambda folder: (folder / "s000001.bin").write_bytes(b"GTSTRIP1"), 1),
        (lambda folder: (folder / "s000000.bin").write_bytes(b""), 0),
        (lambda folder: (folder / "journal.jsonl").unlink(), 0),
        (lambda folder: (folder / "s000003.tmp").write_bytes(b"half a strip"), 3),
    ],
)
def test_only_what_proves_itself_counts(
    tmp_path: Path, harm: Callable[[Path], object], left: int
) -> None:
    target = tmp_path / "out.tif"
    interrupted(target, 3)
    harm(tmp_path / ".out.tif.geothresh")
    with Journal(target, {"threshold": 0.5}) as journal:
        assert len(journal.strips) == left
        stored = chunk(left * 8, 0, 8, 16, 1)
        journal.add(stored.window, packed(stored))
        journal.commit({"valid": 0})
        assert len(list(journal.stored())) == left + 1
        journal.finish()
    assert os.listdir(tmp_path) == []


def test_an_error_that_starting_again_does_not_mend_keeps_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    with pytest.raises(InputError), begun(target, 3):
        raise InputError("a damaged block")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputError, match="disk full") as caught, begun(target, 3):
        raise OutputError("disk full")
    assert caught.value.__notes__[0].startswith("the same command goes on from 3 finished strips")
    interrupted_again = tmp_path / ".out.tif.geothresh"
    assert interrupted_again.is_dir()


def test_a_run_without_a_finished_strip_keeps_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "out.tif", 0)
    assert os.listdir(tmp_path) == []


def test_other_parameters_are_refused_and_restart_is_named(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    interrupted(target, 2)
    other = {"threshold": 0.4}
    with pytest.raises(UsageError, match=r"another threshold \(0\.5, now 0\.4\).*`restart"):
        Journal(target, other)
    with pytest.raises(InputError, match=r"another input size \(none, now 7\).*`restart"):
        Journal(target, {"threshold": 0.5, "input size": 7})
    assert len(list((tmp_path / ".out.tif.geothresh").glob("*.bin"))) == 2
    with Journal(target, other, restart=True) as journal:
        assert journal.strips == []


def test_a_description_of_another_version_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    interrupted(target, 1)
    (tmp_path / ".out.tif.geothresh" / "run.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="`restart"):
        begun(target, 2)
    with begun(target, 1, restart=True) as journal:
        journal.finish()
    assert os.listdir(tmp_path) == []


def test_a_directory_without_description_is_dead(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    interrupted(target, 2)
    (tmp_path / ".out.tif.geothresh" / "run.json").unlink()
    assert finished_outputs(target) == frozenset()
    with begun(target, 0) as journal:
        assert journal.strips == []


def test_what_was_put_in_place_is_known_again(tmp_path: Path) -> None:
    target, other = tmp_path / "out.tif", tmp_path / "conf.tif"
    made = tmp_path / "made"
    made.write_text("content")
    assert finished_outputs(target) == frozenset()
    with pytest.raises(KeyboardInterrupt), begun(target, 1) as journal:
        journal.record_made({target: made, other: made}, features=7)
        raise KeyboardInterrupt
    target.write_text("content")
    other.write_text("something else")
    assert finished_outputs(target) == {target}
    with begun(target, 1) as journal:
        assert journal.is_made([target]) and not journal.is_made([target, other])
        assert journal.noted("features") == 7 and journal.noted("vertices") is None
        journal.finish()
    assert finished_outputs(target) == frozenset()


def _hold(path: str, ready: object, leave: object) -> None:
    with Journal(Path(path), {}):
        ready.set()  # type: ignore[attr-defined]
        leave.wait()  # type: ignore[attr-defined]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(target), ready, leave))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(OutputError, match="another run is making it"):
            Journal(target, {}, restart=True)
        other.kill()  # the lock dies with its holder
        other.join()
        with Journal(target, {}):
            pass
    finally:
        other.kill()
    assert os.listdir(tmp_path) == []


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (tmp_path / ".out.tif.geothresh").symlink_to(precious)
    with pytest.raises(OutputError, match="cannot be made or opened"):
        Journal(tmp_path / "out.tif", {}, restart=True)
    assert (precious / "file").read_text() == "kept"


def test_what_a_kill_leaves_of_a_finished_run_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.tif"

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), begun(target, 2) as journal:
        journal.finish()
        monkeypatch.setattr(shutil, "rmtree", killed)
    monkeypatch.undo()
    (left,) = os.listdir(tmp_path)
    assert re.fullmatch(r"\.out\.tif\.[0-9a-f]{16}\.tmp", left)
    assert finished_outputs(target) == frozenset()
    target.write_text("the output of that run")
    with pytest.raises(OutputError, match="exists already"):
        check_output(target, overwrite=False)
    assert os.listdir(tmp_path) == ["out.tif"]


def test_long_names_have_directories_of_their_own() -> None:
    one, two = (work_directory(Path("here") / ("ü" * 120 + tail)) for tail in ("a.tif", "b.tif"))
    assert one != two and one.parent == Path("here")
    assert all(len(os.fsencode(path.name)) <= 255 for path in (one, two))
    assert work_directory(Path("out.tif")) == Path(".out.tif.geothresh")


def test_the_lock_of_a_long_name_fits_beside_it(tmp_path: Path) -> None:
    with only_run(tmp_path / ("n" * 250 + ".tif")):
        (name,) = os.listdir(tmp_path)
        assert len(name) <= 255 and name.endswith(".lock")
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_a_work_directory_is_no_run(tmp_path: Path) -> None:
    (tmp_path / ".out.tif.geothresh").write_text("a note")
    assert not left_by_another(tmp_path / "out.tif", {"threshold": 0.5})


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from geothresh.errors import OutputError
from geothresh.durability import Journal
from geothresh.packed import PackedLayer
from geothresh.windows import PixelWindow

noise = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)
with Journal(Path("out.tif"), {}) as journal:
    for row in range(0, 300, 100):
        if row == 200:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
        window = PixelWindow(row=row, col=0, height=100, width=100)
        journal.add(window, [PackedLayer.of(noise)])
        journal.commit({})
"""


@pytest.mark.parametrize("limit", [0, 100, 9000])
def test_a_strip_without_room_is_an_output_error(tmp_path: Path, limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert "OutputError: out.tif: strip 2 cannot be written" in done.stderr
    assert "goes on from 2 finished strips" in done.stderr
    assert "File too large" in done.stderr
    with Journal(tmp_path / "out.tif", {}) as journal:
        assert len(journal.strips) == 2


def test_a_file_system_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(GeothreshWarning, match="has no locks"):
        journal = Journal(tmp_path / "out.tif", {})
    with journal:
        journal.finish()
    assert os.listdir(tmp_path) == []
