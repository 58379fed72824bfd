"""Refine is killed, interrupted and starved of disk.

Its outputs must be absent, old or complete, and the same command must go on to the same files, to
the last byte.

python tests/storm/storm_refine.py kills --number 200 --seed 0
python tests/storm/storm_refine.py kills --number 50 --workers 2
python tests/storm/storm_refine.py chains --number 50
python tests/storm/storm_refine.py signals --number 100
python tests/storm/storm_refine.py limits --number 200
python tests/storm/storm_refine.py tmpfs            (mounts one, which takes root)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
# One thread of torch to a process: storms run beside one another, and processes are forked.
os.environ["OMP_NUM_THREADS"] = "1"

import killing  # noqa: E402
import numpy as np  # noqa: E402
from rasterio.transform import Affine  # noqa: E402
from scipy import ndimage  # noqa: E402
from tqdm import tqdm  # noqa: E402

import geothresh.api.refine  # noqa: E402, F401
import geothresh.api.vectorize  # noqa: E402, F401
import geothresh.nn.network  # noqa: E402, F401
from geothresh.durability.strips import read_log  # noqa: E402
from geothresh.errors import number_of  # noqa: E402
from geothresh.types import Float32Array  # noqa: E402
from tests.support.rasters import write_raster  # noqa: E402

WORK = ".out.tif.geothresh"
FILES = ("out.tif", "conf.tif", "v.gpkg", "out.manifest.json")
#: What is beside them in the end.
SIDES = ("out.qml", "out.tif.aux.xml", "conf.qml")
#: What described an old mask, and goes with it.
OLD_SIDE = "out.tif.ovr"
#: Moments to aim at: a file is there for the first time.
MOMENTS = (
    f"{WORK}/run.json", f"{WORK}/s000000.tmp", f"{WORK}/s000001.bin", f"{WORK}/s000005.bin",
    ".conf.tif.*.tmp", ".v.gpkg.*.tmp", ".out.manifest.json.*.tmp", "out.tif", "conf.tif",
    "v.gpkg", "out.manifest.json",
)  # fmt: skip
#: The metre that the model was trained at.
GRID = Affine(1, 0, 400_000, 0, -1, 5_000_000)
#: An end that a signal asks for comes within this many seconds.
SOON = 5.0


def scene_values() -> Float32Array:
    """Six strips, a hole, and a last row of blocks that is not whole."""
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2700, 300)), 3)
    values = (1 / (1 + np.exp(-40 * field))).astype(np.float32)
    values[1300:1500, 100:250] = np.nan
    return values


def write_scene(path: Path) -> Path:
    return write_raster(path, scene_values(), nodata=float("nan"), transform=GRID)


class Storm:
    """A scene, what becomes of it when nobody interferes, and runs that are interfered with."""

    def __init__(self, folder: Path, *, seed: int, workers: int) -> None:
        self.folder = folder
        self.place = folder / "out"
        self.rng = random.Random(seed)
        self.workers = workers
        self.counts: Counter[str] = Counter()
        self.scene = write_scene(folder / "scene.tif")
        self.place.mkdir()
        begun = time.monotonic()
        child = self.start(old=False)
        assert child.wait() == 0, child.said
        self.length = time.monotonic() - begun
        self.new = {name: (self.place / name).read_bytes() for name in FILES}
        self.old = {name: f"old {name}".encode() for name in FILES}
        self.clear()

    def arguments(self, *, old: bool) -> list[str]:
        arguments = [
            "refine", str(self.scene), "-o", str(self.place / "out.tif"), "--no-progress",
            "--confidence-out", str(self.place / "conf.tif"), "--precision", "fp32",
            "--vector-out", str(self.place / "v.gpkg"), "--tile-size", "128", "--overlap", "64",
            "--batch-size", "1", "--device", "cpu",
        ]  # fmt: skip
        if old:
            arguments.append("--overwrite")
        if self.workers:
            arguments += ["--workers", str(self.workers)]
        return arguments

    def start(self, *, old: bool, limit: int | None = None) -> killing.Child:
        return killing.start(
            killing.command(self.arguments(old=old)), self.folder / "log", largest_file=limit
        )

    def clear(self) -> None:
        for path in self.place.iterdir():
            if path.is_dir():
                for entry in path.iterdir():
                    entry.unlink()
                path.rmdir()
            else:
                path.unlink()

    def lay_out(self) -> bool:
        """Start from an empty folder, or with old files that may be replaced."""
        self.clear()
        old = self.rng.random() < 0.5
        if old:
            for name, content in self.old.items():
                # In one step: a reader is watching.
                (self.folder / "old").write_bytes(content)
                (self.folder / "old").replace(self.place / name)
            (self.place / OLD_SIDE).write_bytes(b"old overviews")
        return old

    def is_new(self, name: str) -> bool:
        """Whether an output is complete: rasters to the byte, the rest by the manifest's digest."""
        content = (self.place / name).read_bytes()
        if name.endswith(".tif"):
            return content == self.new[name]
        if name.endswith(".json"):
            digests = json.loads(content)["sha256"]
            return set(digests) == set(FILES[:3]) and all(
                hashlib.sha256((self.place / file).read_bytes()).hexdigest() == digest
                for file, digest in digests.items()
            )
        # A GeoPackage holds the time at which it was made: compare what lies around it.
        return len(content) == len(self.new[name]) and content.startswith(b"SQLite format 3")

    def is_complete(self) -> bool:
        """Whether all outputs are there and complete."""
        return all((self.place / name).exists() and self.is_new(name) for name in FILES)

    def judge(self, old: bool) -> None:
        """What is at the final paths, after an interruption."""
        for name in FILES:
            path = self.place / name
            if not path.exists():
                self.counts["wrong files" if old else "absent"] += 1
            elif old and path.read_bytes() == self.old[name]:
                self.counts["old"] += 1
            else:
                self.counts["complete" if self.is_new(name) else "wrong files"] += 1
                described = name == FILES[0] and (self.place / OLD_SIDE).exists()
                self.counts["described by another's files"] += described

    def kept(self) -> int:
        """Strips that the journal says are finished."""
        lines = self.place / WORK / "journal.jsonl"
        return sum("strip" in entry for entry in read_log(lines)) if lines.exists() else 0

    def go_on(self, old: bool) -> None:
        """Run the same command again, and compare."""
        kept, begun = self.kept(), (self.place / WORK / "run.json").exists()
        if not old and not begun and all((self.place / name).exists() for name in FILES):
            # The last act of a run is to forget it: there is nothing left to go on with.
            self.counts["whole already"] += 1
            child = self.start(old=False)
            code, said = child.wait(), child.said
            self.counts["other exit code"] += code != 4 or "exists already" not in said
        else:
            child = self.start(old=old)
            if child.wait() != 0:
                self.counts["resume failed"] += 1
                print(child.said, file=sys.stderr)
                return
            self.counts["resumed"] += 1
            self.counts["strips kept"] += kept
            used = f"went on after {number_of(kept, 'strip')} " in child.said
            self.counts["kept strips not used"] += begun and kept > 0 and not used
        wrong = [name for name in FILES if not self.is_new(name)]
        self.counts["wrong after resuming"] += len(wrong)
        there = {path.name for path in self.place.iterdir()}
        self.counts["leftovers"] += len(there - {*FILES, *SIDES})
        self.counts["without their styles"] += len(set(SIDES) - there)

    def interrupt(self, child: killing.Child) -> bool:
        """Kill a run at a random time, or shortly after a random file appears."""
        if self.rng.random() < 0.5:
            self.counts["at a random time"] += 1
            return killing.kill_after(child, self.rng.random() * self.length)
        self.counts["when a file is there"] += 1
        pattern, delay = self.rng.choice(MOMENTS), self.rng.choice([0, 0, 0.002, 0.02])
        return killing.kill_at(child, killing.appeared(self.place, pattern, delay))


@contextmanager
def watched(storm: Storm):
    """A reader in a process of its own that polls the mask's path all the time."""
    report = storm.folder / "polls.json"
    pid = os.fork()
    if not pid:
        seen: Counter[str] = Counter()
        running = True

        def stop(signum: int, frame: object) -> None:
            nonlocal running
            running = False

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        wanted = {storm.new["out.tif"]: "complete", storm.old["out.tif"]: "old"}
        while running:
            try:
                seen[wanted.get((storm.place / "out.tif").read_bytes(), "partial")] += 1
            except FileNotFoundError:
                seen["absent"] += 1
            time.sleep(0.0005)
        report.write_text(json.dumps(seen))
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        seen = json.loads(report.read_text())
        storm.counts["polls"] = sum(seen.values())
        storm.counts["polls that saw a partial file"] = seen.get("partial", 0)


def kills(storm: Storm, number: int) -> None:
    """SIGKILL at random times and at chosen moments, and the same command again."""
    bar = tqdm(total=number, unit="kill", mininterval=5)
    while storm.counts["kills"] < number:
        bar.update(storm.counts["kills"] - bar.n)
        old = storm.lay_out()
        child = storm.start(old=old)
        if storm.interrupt(child):
            storm.counts["kills"] += 1
            storm.judge(old)
            storm.go_on(old)
        else:
            assert child.code == 0, child.said
            storm.counts["ended before the kill"] += 1


def chains(storm: Storm, number: int) -> None:
    """Up to five kills in a row, each of the run that goes on after the one before."""
    for _ in tqdm(range(number), unit="chain", mininterval=5):
        old = storm.lay_out()
        storm.counts["chains"] += 1
        for _ in range(5):
            child = storm.start(old=old)
            seconds = storm.rng.random() * storm.length * 0.6
            if not killing.kill_after(child, seconds):
                break
            storm.counts["kills"] += 1
            storm.judge(old)
        storm.go_on(old)


def signals(storm: Storm, number: int) -> None:
    """SIGINT and SIGTERM in turn at random times: their exit codes, soon, in one line."""
    for count in tqdm(range(number), unit="signal", mininterval=5):
        old = storm.lay_out()
        chosen = (signal.SIGINT, signal.SIGTERM)[count % 2]
        child = storm.start(old=old)
        until = child.started + storm.rng.random() * storm.length
        # Before that, a signal meets the fork of this program rather than the command.
        while child.poll() is None and not child.heeds_sigterm():
            time.sleep(0.001)
        while child.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        if child.poll() is None:
            sent = time.monotonic()
            os.killpg(child.pid, chosen)  # as a terminal does: to the workers too
            code = child.wait(60)
            storm.counts[chosen.name] += 1
            late = time.monotonic() - sent
            storm.counts["slowest end (ms)"] = max(
                storm.counts["slowest end (ms)"], round(1000 * late)
            )
            storm.counts["later than 5 s"] += late > SOON
            # The command is over and its handlers are gone, but not yet the process.
            too_late = code == -chosen and storm.is_complete()
            storm.counts["after the end"] += too_late
            wrong_code = not too_late and code not in (128 + chosen, 0)
            storm.counts["wrong exit code"] += wrong_code
            lines = [line for line in child.said.splitlines() if not line.startswith("Warning:")]
            wrong_lines = not too_late and code != 0 and len(lines) != 1
            storm.counts["more than a line"] += wrong_lines
            if wrong_code or wrong_lines:
                print(f"{chosen.name}, exit code {code}: {child.said}", file=sys.stderr)
            child.kill()  # sees that no process of the group outlives it
        storm.judge(old)
        storm.go_on(old)


def limits(storm: Storm, number: int) -> None:
    """No file may grow beyond a random size; the work goes on once there is room."""
    sizes = [len(storm.new[name]) for name in ("out.tif", "conf.tif", "v.gpkg")]
    ends = [size - less for size in sizes for less in (1, 50, 1000, 20000) if less < size]
    for count in tqdm(range(number), unit="limit", mininterval=5):
        old = storm.lay_out()
        limit = ends[count] if count < len(ends) else storm.rng.randrange(max(sizes))
        child = storm.start(old=old, limit=limit)
        code = child.wait()
        storm.counts["limits"] += 1
        storm.counts["exit 4"] += code == 4
        storm.counts["exit 0"] += code == 0
        storm.counts["other exit code"] += code not in (0, 4)
        if code == 4:
            # What was finished before the limit struck stands, and is complete.
            storm.judge(old)
            storm.go_on(old)


def tmpfs(storm: Storm, number: int) -> None:
    """A file system without room: sizes from nearly nothing up to just too little."""
    whole = sum(map(len, storm.new.values()))
    for count in range(number):
        storm.clear()
        size = 64 + round((whole * 2.2 / 1024) * count / number)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", storm.place], check=True
        )
        try:
            child = storm.start(old=False)
            code = child.wait()
            storm.counts["file systems"] += 1
            storm.counts[f"exit {code}" if code in (0, 4) else "other exit code"] += 1
            storm.judge(False)
            subprocess.run(["mount", "-o", "remount,size=64m", "tmpfs", storm.place], check=True)
            storm.go_on(False)
        finally:
            subprocess.run(["umount", storm.place], check=True)


STORMS = {"kills": kills, "chains": chains, "signals": signals, "limits": limits, "tmpfs": tmpfs}
BAD = (
    "wrong files", "wrong after resuming", "resume failed", "kept strips not used", "leftovers",
    "other exit code", "wrong exit code", "more than a line", "later than 5 s",
    "polls that saw a partial file", "described by another's files", "without their styles",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("storm", choices=STORMS)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), seed=given.seed, workers=given.workers)
        if given.storm == "tmpfs":
            tmpfs(storm, given.number)
        else:
            with watched(storm), suppress(KeyboardInterrupt):
                # Ctrl-C ends it early, with what there is to tell.
                STORMS[given.storm](storm, given.number)
    counts = dict.fromkeys(BAD, 0) | storm.counts
    print(killing.table(sorted(counts.items())))
    sys.exit(1 if any(counts[name] for name in BAD) else 0)


if __name__ == "__main__":
    main()
