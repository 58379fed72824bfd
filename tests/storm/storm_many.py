"""Refining many files into one directory, and their polygons, is killed, and so are its workers.

Each output must be absent or complete, and the same command must go on to the same files, to the
last byte, with nothing else left in the directory.

python tests/storm/storm_many.py --kills 100 --seed 0
python tests/storm/storm_many.py --kills 20 --workers 2
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
# One thread of torch to a process: storms run beside one another, and processes are forked.
os.environ["OMP_NUM_THREADS"] = "1"

import killing  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
from pyogrio import raw  # noqa: E402
from rasterio.transform import Affine  # noqa: E402
from storm_refine import GRID, scene_values  # noqa: E402
from storm_workers import workers_of  # noqa: E402
from tqdm import tqdm  # noqa: E402

import geothresh.api.refine_many  # noqa: E402
import geothresh.many.indexes  # noqa: E402
import geothresh.nn.network  # noqa: E402
import geothresh.vector.tile_index  # noqa: E402, F401
from tests.support.rasters import write_raster  # noqa: E402

#: Files of the scene, down and across.
CUT = (3, 2)
RECORD = ".geothresh.jsonl"
#: The polygons of all files, in the same directory.
VECTOR = "drawn.gpkg"
#: Moments to aim at: a file is there for the first time.
MOMENTS = (
    RECORD, ".p*_mask.tif.geothresh/run.json", ".p*_mask.tif.geothresh/s*.bin", "p*_mask.tif",
    "p*_confidence.tif", ".p*_mask.tif.*.tmp", ".p*_confidence.tif.*.tmp", ".p*_mask.qml.*.tmp",
    ".p*.aux.xml.*.tmp", ".mask.vrt.*.tmp", ".mask.gti.gpkg.*.tmp", ".*.qml.*.tmp", "mask.vrt",
    "confidence.gti.gpkg", VECTOR, f".{VECTOR}.*.tmp", f".{VECTOR}.*.tmp/*",
)  # fmt: skip
#: Kills in a row, at most, before a run goes on to its end.
CHAIN = 3
#: Workers that are killed in a run, at most: of three a part that is at hand is set aside.
WORKERS_KILLED = 2
#: A tile index holds the time at which it was made.
TIMED = ".gpkg"


def write_scenes(folder: Path) -> Path:
    """A folder with a scene that is cut into files."""
    folder.mkdir()
    values = scene_values()[1100:2000]
    down, across = CUT
    for row, strip in enumerate(np.array_split(values, down)):
        for col, part in enumerate(np.array_split(strip, across, axis=1)):
            height, width = strip.shape[0], part.shape[1]
            transform = GRID @ Affine.translation(col * width, row * height)
            path = folder / f"p{row}{col}.tif"
            write_raster(path, part, nodata=float("nan"), transform=transform)
    return folder


def drawn(path: Path) -> tuple[list[bytes], list[list[float]]]:
    """The geometries and the attributes of a GeoPackage."""
    _, _, geometry, fields = raw.read(path, layer=path.stem)
    return geometry.tolist(), [field.tolist() for field in fields]


class Storm:
    """A folder of scenes, what becomes of it when nobody interferes, and runs that are killed."""

    def __init__(self, folder: Path, *, seed: int, workers: int) -> None:
        self.folder = folder
        self.place = folder / "out"
        self.rng = random.Random(seed)
        self.workers = workers
        self.counts: Counter[str] = Counter()
        self.scenes = write_scenes(folder / "scenes")
        begun = time.monotonic()
        child = self.start()
        assert child.wait() == 0, child.said
        self.length = time.monotonic() - begun
        self.whole = {path.name: path.read_bytes() for path in self.place.iterdir()}
        self.drawn = drawn(self.place / VECTOR)
        assert RECORD in self.whole and self.drawn[0]

    def start(self) -> killing.Child:
        arguments = [
            "refine", str(self.scenes), "--output-dir", str(self.place), "--no-progress",
            "--layers", "mask,confidence", "--precision", "fp32", "--tile-size", "128",
            "--overlap", "64", "--batch-size", "1", "--device", "cpu",
            "--vector-out", str(self.place / VECTOR),
        ]  # fmt: skip
        if self.workers:
            arguments += ["--workers", str(self.workers)]
        return killing.start(killing.command(arguments), self.folder / "log")

    def is_whole(self, name: str) -> bool:
        """Whether a file is that of a run with which nobody interfered."""
        if name == VECTOR:
            return drawn(self.place / name) == self.drawn
        content = (self.place / name).read_bytes()
        if name.endswith(TIMED):
            return len(content) == len(self.whole[name]) and content.startswith(b"SQLite format 3")
        return name == RECORD or content == self.whole[name]

    def judge(self) -> None:
        """What is at the final paths, after a kill."""
        there = [name for name in self.whole if (self.place / name).exists()]
        self.counts["complete after it"] += len(there)
        self.counts["absent after it"] += len(self.whole) - len(there)
        self.counts["wrong files"] += sum(not self.is_whole(name) for name in there)

    def go_on(self) -> None:
        """Run the same command to its end, and compare."""
        child = self.start()
        if child.wait() != 0:
            self.counts["resume failed"] += 1
            print(child.said, file=sys.stderr)
            return
        self.counts["resumed"] += 1
        self.compare()

    def compare(self) -> None:
        """What is in the directory after a run that came to its end."""
        there = {path.name for path in self.place.iterdir()}
        missing, more = set(self.whole) - there, there - set(self.whole)
        wrong = {name for name in there & set(self.whole) if not self.is_whole(name)}
        self.counts["wrong after resuming"] += len(missing | wrong)
        self.counts["leftovers"] += len(more)
        for what in (missing, wrong, more):
            if what:
                print(f"missing, wrong or left over: {sorted(what)}", file=sys.stderr)

    def kill_parent(self) -> bool:
        """Kill a run at a random time, or shortly after a random file appears."""
        child = self.start()
        if self.rng.random() < 0.5:
            killed = killing.kill_after(child, self.rng.random() * self.length)
        else:
            pattern, delay = self.rng.choice(MOMENTS), self.rng.choice([0, 0, 0.002, 0.02])
            killed = killing.kill_at(child, killing.appeared(self.place, pattern, delay))
        if killed:
            self.counts["kills"] += 1
            self.judge()
        else:
            assert child.code == 0, child.said
            self.counts["ended before the kill"] += 1
        return killed

    def chain(self) -> None:
        """Kill a run, and those that go on after it, and let one come to its end."""
        shutil.rmtree(self.place)
        for _ in range(self.rng.randint(1, CHAIN)):
            if not self.kill_parent():
                break
        self.go_on()

    def kill_workers(self) -> None:
        """Kill workers of a run, which is to come to its end all the same."""
        shutil.rmtree(self.place)
        child = self.start()
        for _ in range(self.rng.randint(1, WORKERS_KILLED)):
            until = time.monotonic() + self.rng.random() * self.length
            while child.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            if child.poll() is None and (found := workers_of(psutil.Process(child.pid))):
                with suppress(psutil.NoSuchProcess):
                    self.rng.choice(found).kill()
                    self.counts["workers killed"] += 1
        if child.wait() != 0:
            self.counts["failed without workers"] += 1
            print(child.said, file=sys.stderr)
            return
        self.counts["runs that lost workers"] += 1
        self.compare()


BAD = (
    "wrong files", "wrong after resuming", "resume failed", "leftovers", "failed without workers",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), seed=given.seed, workers=given.workers)
        bar = tqdm(total=given.kills, unit="kill", mininterval=5)
        with suppress(KeyboardInterrupt):  # it ends early, with what there is to tell
            while (done := storm.counts["kills"] + storm.counts["workers killed"]) < given.kills:
                bar.update(done - bar.n)
                storm.chain()
                if given.workers:
                    storm.kill_workers()
    counts = dict.fromkeys(BAD, 0) | storm.counts
    print(killing.table(sorted(counts.items())))
    sys.exit(1 if any(counts[name] for name in BAD) else 0)


if __name__ == "__main__":
    main()
