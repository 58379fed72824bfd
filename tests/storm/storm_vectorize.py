"""Vectorising is killed and starved of disk, and the GeoPackage must be absent, old or complete.

python tests/storm/storm_vectorize.py --kills 100 --limits 60 --seed 0
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import killing  # noqa: E402
import numpy as np  # noqa: E402
import pyogrio  # noqa: E402
from scipy import ndimage  # noqa: E402

import geothresh  # noqa: E402
from tests.support.rasters import write_raster  # noqa: E402

LAYER = "roads"
#: The temporary folder, what SQLite puts into it, and the finished file.
MOMENTS = (".v.gpkg.*.tmp", ".v.gpkg.*.tmp/*-journal", "v.gpkg")
SIDES = ("-journal", "-wal", "-shm")


def write_mask(path: Path, side: int) -> Path:
    """A mask with some thousands of polygons, holes and corners that touch."""
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(side, side)), 1.5)
    return write_raster(path, (field > 0.05).astype(np.uint8), nodata=255)


def storm(  # noqa: PLR0915 - one storm after the other, with what they share
    folder: Path, *, kills: int, limits: int, seed: int, side: int = 600
) -> dict[str, int]:
    """Kill so many runs, and let so many reach the end of the disk; what came of it.

    Raises:
        AssertionError: a process that was not killed failed, or left others behind.
    """
    rng = random.Random(seed)
    mask = write_mask(folder / "mask.tif", side)
    # Also loads all that is needed, so that it is not loaded anew in every process.
    writing = geothresh.VectorWriting(layer=LAYER)
    whole = geothresh.vectorize(mask, folder / "whole.gpkg", writing=writing).output
    new = content(whole)
    assert new is not None
    none = geothresh.Polygons(min_area=1e9)
    old = geothresh.vectorize(mask, folder / "old.gpkg", draw=none, writing=writing).output
    old_bytes = old.read_bytes()
    place = folder / "out"
    place.mkdir()
    target, log = place / "v.gpkg", folder / "log"

    def start(limit: int | None = None) -> killing.Child:
        arguments = ["vectorize", str(mask), "-o", str(target), "--layer", LAYER, "--overwrite"]
        return killing.start(killing.command(arguments), log, largest_file=limit)

    begun = time.monotonic()
    child = start()
    assert child.wait() == 0, child.said
    length = time.monotonic() - begun
    target.unlink()
    names = (
        "kills", "at a random time", "when a file is there", "ended before the kill",
        "absent after it", "old after it", "complete after it", "wrong files", "side files",
        "runs after a kill", "leftovers", "limits of size", "exit 4", "old file untouched",
        "left by a limit",
    )  # fmt: skip
    counts = dict.fromkeys(names, 0)

    def judge(before: bytes | None) -> None:
        if not target.exists():
            counts["absent after it" if before is None else "wrong files"] += 1
        elif target.read_bytes() == before:
            counts["old after it"] += 1
        else:
            counts["complete after it" if content(target) == new else "wrong files"] += 1
        counts["side files"] += sum((place / f"v.gpkg{side}").exists() for side in SIDES)

    while counts["kills"] < kills:
        before = None
        target.unlink(missing_ok=True)
        if rng.random() < 0.5:
            before = old_bytes
            target.write_bytes(old_bytes)
        child = start()
        if rng.random() < 0.5:
            kind, killed = "at a random time", killing.kill_after(child, rng.random() * length)
        else:
            kind, pattern = "when a file is there", rng.choice(MOMENTS)
            delay = rng.choice([0, rng.random() * 0.05])
            killed = killing.kill_at(child, killing.appeared(place, pattern, delay))
        if not killed:
            assert child.code == 0, child.said
            counts["ended before the kill"] += 1
            continue
        counts["kills"] += 1
        counts[kind] += 1
        judge(before)
        if counts["kills"] % 5 == 0 or counts["kills"] == kills:
            # The next run clears away what was left of all before it.
            child = start()
            assert child.wait() == 0, child.said
            assert content(target) == new
            counts["runs after a kill"] += 1
            counts["leftovers"] += len({file.name for file in place.iterdir()} - {target.name})
    size = whole.stat().st_size
    chosen = [size - 1, size - 50, size - 4096, 0, 1, 100, 4096]
    chosen += [rng.randrange(size) for _ in range(limits)]
    for limit in chosen[:limits]:
        target.write_bytes(old_bytes)
        child = start(limit)
        counts["limits of size"] += 1
        counts["exit 4"] += child.wait() == 4
        counts["old file untouched"] += target.read_bytes() == old_bytes
        counts["left by a limit"] += len({file.name for file in place.iterdir()} - {target.name})
    return counts


def content(path: Path) -> tuple[int, str] | None:
    """Number and digest of the features of a GeoPackage; None where it is not sound."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as file:
        try:
            (verdict,) = file.execute("PRAGMA integrity_check").fetchone()
            (count,) = file.execute(f'SELECT count(*) FROM "{LAYER}"').fetchone()
            (indexed,) = file.execute(f'SELECT count(*) FROM "rtree_{LAYER}_geom"').fetchone()
        except sqlite3.Error:
            return None
    frame = pyogrio.read_dataframe(path, layer=LAYER)
    if verdict != "ok" or not len(frame) == count == indexed or not frame.geometry.is_valid.all():
        return None
    digest = hashlib.sha256(b"".join(frame.geometry.to_wkb()))
    digest.update(frame.drop(columns="geometry").to_csv().encode())
    return count, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--limits", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = storm(Path(folder), kills=given.kills, limits=given.limits, seed=given.seed)
    print(killing.table(list(counts.items())))
    sys.exit(0 if is_good(counts) else 1)


def is_good(counts: dict[str, int]) -> bool:
    """Whether the promise was kept each time."""
    limits = counts["limits of size"]
    wrong = ("wrong files", "side files", "leftovers", "left by a limit")
    kept = counts["exit 4"] == counts["old file untouched"] == limits
    return kept and not any(counts[name] for name in wrong)


if __name__ == "__main__":
    main()
