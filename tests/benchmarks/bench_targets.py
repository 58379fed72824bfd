"""Region-thresholded targets by histogram against the naive loop over patches and thresholds.

    python tests/benchmarks/bench_targets.py

The loop is the oracle of the tests. Both are measured in turn; that they choose the same threshold
in every patch is checked, not measured. The last line makes the targets of six patch sizes from one
histogram of 16-pixel patches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import in_turn, least, machine, ratio, table, timed

from geothresh.thresholding import (
    apply_thresholds,
    best_thresholds,
    coarsen,
    patch_histograms,
    region_target,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.thresholds import naive_best, naive_target  # noqa: E402

PATCHES = (16, 32, 64, 128, 256, 512)
FINEST, USUAL = PATCHES[0], 64


def chip(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A road-like truth and confidences about it, of any value."""
    rng = np.random.default_rng(0)
    row, col = np.mgrid[:side, :side]
    truth = np.abs((row + 40 * np.sin(col / 50)) % 128 - 64) < 5
    noise = rng.normal(0, 0.2, truth.shape)
    return np.clip(np.where(truth, 0.6, 0.3) + noise, 0, 1).astype(np.float32), truth


def all_sizes(confidence: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """The targets of six patch sizes from one histogram, each from the one before it."""
    histograms = patch_histograms(confidence, truth, patch=FINEST)
    targets = []
    for patch in PATCHES:
        if patch > FINEST:
            histograms = coarsen(histograms, 2)
        targets.append(apply_thresholds(confidence, best_thresholds(histograms), patch=patch))
    return targets


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--side", type=int, default=512, help="rows and columns of the map")
    parser.add_argument("--repeat", type=int, default=9, help="rounds")
    arguments = parser.parse_args()
    print(machine("numpy"))
    confidence, truth = chip(arguments.side)
    chosen = best_thresholds(patch_histograms(confidence, truth, patch=USUAL))
    for (row, col), threshold in np.ndenumerate(chosen):
        place = np.s_[row * USUAL : (row + 1) * USUAL, col * USUAL : (col + 1) * USUAL]
        assert threshold == naive_best(confidence[place], truth[place]), (row, col)
    for patch, made in zip(PATCHES, all_sizes(confidence, truth), strict=True):
        assert (made == region_target(confidence, truth, patch=patch)).all(), patch

    calls = {
        "naive loop": lambda: naive_target(confidence, truth, USUAL),
        "histogram": lambda: region_target(confidence, truth, patch=USUAL),
        "histogram, six patch sizes": lambda: all_sizes(confidence, truth),
    }
    # Ten calls of the fast ones, or the clock's steps show.
    times = {"naive loop": 1, "histogram": 10, "histogram, six patch sizes": 10}

    def case(name: str) -> Callable[[], Any]:
        return lambda: timed(lambda: [calls[name]() for _ in range(times[name])])

    runs = in_turn({name: case(name) for name in calls}, arguments.repeat)
    rows = []
    for name in calls:
        per_call = times[name]
        over = {
            of: ratio(runs[name], runs["histogram"], of=of) * times["histogram"] / per_call
            for of in ("wall", "cpu")
        }
        rows.append(
            [
                name,
                f"{1e3 * least(runs[name]).wall / per_call:.2f}",
                f"{over['wall']:.2f}",
                f"{over['cpu']:.2f}",
            ]
        )
    print(f"\none map of {arguments.side} x {arguments.side}, P = {USUAL}, same thresholds\n")
    print(table(["", "ms", "wall over histogram", "processor time over histogram"], rows))


if __name__ == "__main__":
    main()
