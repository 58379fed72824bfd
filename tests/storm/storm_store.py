"""Refining many files into an object store is killed; the store fails at times.

Each object must be absent, as it was before, or complete, and the same command must go on to the
same objects, to the last byte, with nothing else left there or in the directory of unfinished work.

python tests/storm/storm_store.py --kills 20 --seed 0
python tests/storm/storm_store.py --kills 20 --faults 0.05
python tests/storm/storm_store.py --kills 20 --server moto
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen
from xml.sax.saxutils import unescape

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
os.environ["OMP_NUM_THREADS"] = "1"

import killing  # noqa: E402
import storm_many  # noqa: E402
from tqdm import tqdm  # noqa: E402

from geothresh.durability.strips import read_log  # noqa: E402
from geothresh.raster import gdal, objects  # noqa: E402
from geothresh.run.staging import WORK  # noqa: E402
from tests.support.objects import ObjectStore, object_store  # noqa: E402

BUCKET = "bucket"
#: Without the first moto hides objects from whoever asks, though it does not look at the signature;
#: without the second it takes what is put for a form, and stores nothing.
HEADERS = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=storm/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0",
    "Content-Type": "application/octet-stream",
}
#: An object that is put to let the store fail from then on.
FAIL = "fail/now"
#: Runs that the store may end, one after another, before one comes to its end.
TRIES = 10
OUT = f"s3://{BUCKET}/out"
#: Moments to aim at, in the directory of unfinished work: a file is there, and soon it is sent.
MOMENTS = (
    "*/.geothresh.jsonl", "*/p*_mask.tif", "*/p*_confidence.tif", "*/mask.vrt",
    "*/confidence.gti.gpkg", f"*/.*.tmp/{storm_many.VECTOR}", "*/.p*_mask.tif.geothresh/s*.bin",
)  # fmt: skip
DELAYS = (0, 0.002, 0.01, 0.02, 0.05, 0.1)
#: Of what an earlier run with another threshold has made.
OLD_THRESHOLD = "0.3"


def serve(faults: float, seed: int) -> None:
    """Be a store until somebody ends it, on a port that is printed."""
    rng = random.Random(seed)
    with object_store() as store:
        failing = False

        def fail(request: str) -> None:
            nonlocal failing
            failing = failing or request == f"PUT /{FAIL}"
            # A store that fails longer than anybody tries again ends a run, as it should.
            if failing and rng.random() < faults:
                store.faults.append((re.escape(request), rng.choice(["busy", "slow", "cut"])))

        store.before = fail
        print(store.url, flush=True)
        sys.stdin.read()


@contextmanager
def served(server: str, faults: float, seed: int) -> Iterator[str]:
    """The URL of a store in a process of its own."""
    if server == "moto":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    else:
        command = [__file__, "--serve", "--faults", str(faults), "--seed", str(seed)]
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        if server == "moto":
            url = f"http://127.0.0.1:{port}"
        else:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
        until = time.monotonic() + 60
        while True:
            try:
                urlopen(Request(f"{url}/{BUCKET}", method="PUT")).close()
                break
            except URLError:
                assert time.monotonic() < until and process.poll() is None, "no server"
                time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.communicate()


class Bucket:
    """What is in the store, as another program sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _ask(self, path: str, method: str = "GET", data: bytes | None = None) -> bytes:
        for _ in range(20):  # the store fails at times
            with suppress(OSError), urlopen(
                Request(f"{self.url}/{BUCKET}{path}", method=method, data=data, headers=HEADERS)
            ) as answer:  # fmt: skip
                content: bytes = answer.read()
                return content
            time.sleep(0.05)
        raise AssertionError(f"the store does not answer to {method} {path}")

    def contents(self) -> dict[str, bytes]:
        """All objects by their last names."""
        keys = re.findall(r"<Key>([^<]*)</Key>", self._ask("").decode())
        found = {}
        for key in map(unescape, keys):
            assert key.startswith("out/"), key
            found[key.removeprefix("out/")] = self._ask(f"/{quote(key)}")
        return found

    def put(self, wanted: dict[str, bytes]) -> None:
        """Have these objects and no other."""
        for name in self.contents():
            self._ask(f"/out/{quote(name)}", "DELETE")
        for name, content in wanted.items():
            self._ask(f"/out/{quote(name)}", "PUT", content)


class Storm:
    """Scenes, what becomes of them when nobody interferes, and runs that are killed."""

    def __init__(self, folder: Path, bucket: Bucket, *, seed: int) -> None:
        self.folder, self.bucket = folder, bucket
        self.work = folder / "work"
        os.environ[WORK] = str(self.work)
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.scenes = storm_many.write_scenes(folder / "scenes")
        self.old = self._undisturbed("--threshold", OLD_THRESHOLD)
        begun = time.monotonic()
        self.whole = self._undisturbed()
        self.length = time.monotonic() - begun
        assert set(self.old) == set(self.whole) and storm_many.RECORD in self.whole
        self.drawn = {id(one): self._drawn(one[storm_many.VECTOR])
                      for one in (self.old, self.whole)}  # fmt: skip
        assert self.drawn[id(self.old)] != self.drawn[id(self.whole)]

    def _undisturbed(self, *options: str) -> dict[str, bytes]:
        self.bucket.put({})
        shutil.rmtree(self.work, ignore_errors=True)
        child = self.start(*options)
        assert child.wait() == 0, child.said
        return self.bucket.contents()

    def start(self, *options: str) -> killing.Child:
        arguments = [
            "refine", str(self.scenes), "--output-dir", OUT, "--no-progress",
            "--layers", "mask,confidence", "--precision", "fp32", "--tile-size", "128",
            "--overlap", "64", "--batch-size", "1", "--device", "cpu",
            "--vector-out", f"{OUT}/{storm_many.VECTOR}", *options,
        ]  # fmt: skip
        return killing.start(killing.command(arguments), self.folder / "log")

    def _drawn(self, content: bytes) -> object:
        path = self.folder / storm_many.VECTOR
        path.write_bytes(content)
        return storm_many.drawn(path)

    def is_of(self, run: dict[str, bytes], name: str, content: bytes) -> bool:
        """Whether an object is that of a run with which nobody interfered."""
        if name not in run:
            return False
        if name == storm_many.VECTOR:
            return self._drawn(content) == self.drawn[id(run)]
        if name.endswith(storm_many.TIMED):
            return len(content) == len(run[name]) and content.startswith(b"SQLite format 3")
        if name == storm_many.RECORD:
            path = self.folder / name
            path.write_bytes(content)
            return len(read_log(path)) == content.count(b"\n")
        return content == run[name]

    def judge(self, before: dict[str, bytes]) -> None:
        """What is in the store after a kill."""
        there = self.bucket.contents()
        for name in before:
            self.counts["objects that vanished"] += name not in there
        for name, content in there.items():
            new = self.is_of(self.whole, name, content)
            old = bool(before) and self.is_of(self.old, name, content)
            self.counts["new after it" if new else "old after it"] += new or old
            self.counts["wrong objects"] += not (new or old)
        self.counts["absent after it"] += len(self.whole) - len(there)

    def kill(self, before: dict[str, bytes], options: list[str]) -> bool:
        """Kill a run at a random time, or about when a random file is sent."""
        child = self.start(*options)
        if self.rng.random() < 0.5:
            killed = killing.kill_after(child, self.rng.random() * self.length)
        else:
            pattern, delay = self.rng.choice(MOMENTS), self.rng.choice(DELAYS)
            killed = killing.kill_at(child, killing.appeared(self.work, pattern, delay))
        if killed:
            self.counts["kills"] += 1
            self.judge(before)
        elif child.code != 0:
            self.counts["ended by the store"] += 1
        else:
            self.counts["ended before the kill"] += 1
        return killed

    def chain(self) -> None:
        """Kill a run, and those that go on after it, and let one come to its end."""
        replaces = self.rng.random() < 0.5
        before = self.old if replaces else {}
        options = ["--overwrite"] if replaces else []
        self.counts["chains over old objects"] += replaces
        self.bucket.put(before)
        shutil.rmtree(self.work, ignore_errors=True)
        for _ in range(self.rng.randint(1, storm_many.CHAIN)):
            if not self.kill(before, options):
                break
        for _ in range(TRIES):
            child = self.start(*options)
            if child.wait() == 0:
                break
            self.counts["ended by the store"] += 1
            self.judge(before)
        else:
            self.counts["resume failed"] += 1
            print(child.said, file=sys.stderr)
            return
        self.counts["resumed"] += 1
        there = self.bucket.contents()
        wrong = [name for name in self.whole
                 if name not in there or not self.is_of(self.whole, name, there[name])]  # fmt: skip
        more = set(there) - set(self.whole)
        here = [path for path in self.work.rglob("*") if path.is_file()]
        more |= {str(path) for path in here if path.name != storm_many.RECORD}
        self.counts["wrong after resuming"] += len(wrong)
        self.counts["leftovers"] += len(more)
        if wrong or more:
            print(f"missing, wrong or left over: {sorted(wrong)}, {sorted(more)}", file=sys.stderr)


BAD = (
    "wrong objects", "objects that vanished", "wrong after resuming", "resume failed", "leftovers",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that fail")
    parser.add_argument("--server", choices=["own", "moto"], default="own")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.faults, given.seed)
        return
    if given.server == "own":  # moto takes parts of 5 MB at least, as S3 does
        objects.ONE_REQUEST, objects.PART = 4000, 8000
    gdal._OPTIONS["GDAL_HTTP_RETRY_DELAY"] = objects._DELAY = 0.05
    with (
        served(given.server, given.faults, given.seed) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.environ.update(ObjectStore(url=url).environment)
        storm = Storm(Path(folder), Bucket(url), seed=given.seed)
        if given.faults:
            urlopen(Request(f"{url}/{FAIL}", method="PUT")).close()
        bar = tqdm(total=given.kills, unit="kill", mininterval=5)
        with suppress(KeyboardInterrupt):  # it ends early, with what there is to tell
            while (done := storm.counts["kills"]) < given.kills:
                bar.update(done - bar.n)
                storm.chain()
    counts = dict.fromkeys(BAD, 0) | storm.counts
    print(killing.table(sorted(counts.items())))
    sys.exit(1 if any(counts[name] for name in BAD) else 0)


if __name__ == "__main__":
    main()
