"""Training is killed again and again, and must end in the bytes of a run that nobody touched.

    python tests/storm/storm_train.py --kills 100 --limits 20 --seed 0

Each chain is one output: killed at random times, or when one of its files appears or changes, gone
on with by the same command, killed again, and let finish at last. Then a run meets disks that end
at random sizes of a file.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import killing  # noqa: E402
import torch  # noqa: E402

from geothresh.durability.resuming import earlier_state  # noqa: E402
from geothresh.nn.config import NetworkConfig  # noqa: E402
from geothresh.nn.modelfile import (  # noqa: E402
    beside,
    require_seal,
    save_model,  # noqa: E402
)
from geothresh.nn.network import ThreshNet  # noqa: E402
from geothresh.training import loop  # noqa: E402
from tests.support.roads import make_roads  # noqa: E402

#: Of one output in a row.
CHAIN = 3
MADE = (".safetensors", ".last.safetensors", ".split.json")
BESIDE = (*MADE, ".csv", ".state.safetensors", ".state.previous.safetensors")


def prepare(folder: Path) -> list[str]:
    """Data and a small network in a folder; the command that trains it, but for the output."""
    data, networks = make_roads(folder)
    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=32, shuffle=4)
    init = folder / "init.safetensors"
    save_model(init, tensors=ThreshNet(config).state_dict(), config=config, training={})
    return [
        "train", str(data), "--confidence", str(networks[0]), "--recipe", "paper", "--init",
        str(init), "--epochs", "3", "--chip-size", "64", "--batch-size", "2", "--chips-per-epoch",
        "6", "--dropout", "0.2", "--ema", "0.9", "--precision", "fp32", "--device", "cpu",
        "--validation-fraction", "0.34", "--no-progress",
    ]  # fmt: skip


def storm(folder: Path, *, kills: int, limits: int, seed: int) -> dict[str, int]:
    """Kill so many trainings, in chains, and let so many run out of disk; what came of it.

    Raises:
        AssertionError: a process that was not killed failed, or left others behind.
    """
    # Within epochs too, after every step.
    loop.STATE_SECONDS = 0.0
    torch.set_num_threads(1)
    rng = random.Random(seed)
    arguments = prepare(folder)

    def start(output: Path, limit: int | None = None) -> killing.Child:
        body = killing.command([*arguments, "-o", str(output)])
        return killing.start(body, output.with_suffix(".log"), largest_file=limit)

    begun = time.monotonic()
    whole = folder / "whole.safetensors"
    assert start(whole).wait() == 0, whole.with_suffix(".log").read_text()
    length = time.monotonic() - begun
    counts = dict.fromkeys(
        ("kills", "at a random time", "at a change of a file", "ended before the kill", "resumes",
         "outputs", "byte-equal", "wrong files", "leftovers", "limits of size", "exit 4",
         "states left whole"), 0
    )  # fmt: skip
    chain = 0
    while counts["kills"] < kills:
        chain += 1
        place = folder / f"chain{chain}"
        place.mkdir()
        output = place / "m.safetensors"
        for _ in range(min(CHAIN, kills - counts["kills"])):
            child = start(output)
            if rng.random() < 0.5:
                kind, killed = "at a random time", killing.kill_after(child, rng.random() * length)
            else:
                kind = "at a change of a file"
                killed = killing.kill_at(child, changed(place, rng))
            if not killed:
                assert child.code == 0 or "exists already" in child.said, child.said
                counts["ended before the kill"] += 1
                break
            counts["kills"] += 1
            counts[kind] += 1
            counts["wrong files"] += wrong_models(output)
        child = start(output)
        code = child.wait()
        # Killed when all was done, it is a model like any that exists.
        assert code == 0 or (code == 4 and "exists already" in child.said), child.said
        counts["resumes"] += 1
        counts["outputs"] += 1
        same = all(
            (place / f"m{ending}").read_bytes() == (folder / f"whole{ending}").read_bytes()
            for ending in MADE
        )
        counts["byte-equal"] += same
        expected = {f"m{ending}" for ending in BESIDE} | {"m.log"}
        counts["leftovers"] += len({file.name for file in place.iterdir()} - expected)
    place = folder / "limits"
    place.mkdir()
    output, newest = place / "m.safetensors", place / "m.state.safetensors"
    largest = beside(whole, ".state.safetensors").stat().st_size
    for _ in range(limits):
        code = start(output, rng.randrange(largest)).wait()
        counts["limits of size"] += 1
        counts["exit 4"] += code == 4
        there = [file for file in (newest, earlier_state(newest)) if file.exists()]
        for file in there:
            # Raises where it is not.
            require_seal(file)
        counts["states left whole"] += 1
        counts["wrong files"] += wrong_models(output)
    if limits:
        child = start(output)
        assert child.wait() == 0, child.said
        counts["outputs"] += 1
        counts["byte-equal"] += output.read_bytes() == whole.read_bytes()
        expected = {f"m{ending}" for ending in BESIDE} | {"m.log"}
        counts["leftovers"] += len({file.name for file in place.iterdir()} - expected)
    return counts


def changed(place: Path, rng: random.Random) -> Callable[[], bool]:
    """Whether the files of a folder have changed a number of times since."""
    left, seen = rng.randint(1, 24), state(place)

    def there() -> bool:
        nonlocal left, seen
        now = state(place)
        if now != seen:
            seen = now
            left -= 1
        return left <= 0

    return there


def state(place: Path) -> list[tuple[str, int]]:
    found = []
    for entry in os.scandir(place):
        try:
            found.append((entry.name, entry.inode()))
        except FileNotFoundError:
            continue
    return sorted(found)


def wrong_models(output: Path) -> int:
    """Models at their final names that cannot be read."""
    from geothresh.errors import ModelError
    from geothresh.nn.modelfile import load_weights, read_card

    wrong = 0
    for file in (output, beside(output, ".last.safetensors")):
        if file.exists():
            try:
                load_weights(file, read_card(file).config)
            except ModelError:
                wrong += 1
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--limits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = storm(Path(folder), kills=given.kills, limits=given.limits, seed=given.seed)
    print(killing.table(list(counts.items())))
    good = counts["byte-equal"] == counts["outputs"] and not counts["wrong files"]
    good = good and counts["exit 4"] == counts["limits of size"] == counts["states left whole"]
    sys.exit(0 if good and not counts["leftovers"] else 1)


if __name__ == "__main__":
    main()
