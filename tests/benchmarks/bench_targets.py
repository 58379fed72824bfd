"""Region-thresholded targets by histogram against the naive loop over patches and thresholds.

    python tests/benchmarks/bench_targets.py

The loop is the oracle of the tests. All are measured in turn, each the second of two calls, whose
data is in the cache, and the least of each is told: they are so short that whatever else runs would
show. That they choose the same threshold in every patch is checked, not measured. The last line
makes the targets of six patch sizes at once. ``--before`` takes another checkout, whose targets are
made in turn with these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
from measuring import Seconds, in_turn, least, machine, script_parser, table, timed

from geothresh.thresholding import (
    best_thresholds,
    patch_histograms,
    region_target,
    region_targets,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.thresholds import naive_best, naive_target  # noqa: E402

PATCHES = (16, 32, 64, 128, 256, 512)
USUAL = 64


def chip(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A road-like truth and confidences about it, of any value."""
    rng = np.random.default_rng(0)
    row, col = np.mgrid[:side, :side]
    truth = np.abs((row + 40 * np.sin(col / 50)) % 128 - 64) < 5
    noise = rng.normal(0, 0.2, truth.shape)
    return np.clip(np.where(truth, 0.6, 0.3) + noise, 0, 1).astype(np.float32), truth


def thresholding_of(checkout: Path) -> ModuleType:
    """The module `geothresh.thresholding` of another checkout, beside this one's."""
    spec = spec_from_file_location("thresholding_before", checkout / "geothresh/thresholding.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{checkout}: no checkout of geothresh")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of the map")
    parser.add_argument("--repeat", type=int, default=100, help="rounds")
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    arguments = parser.parse_args()
    print(machine("numpy"))
    confidence, truth = chip(arguments.side)
    chosen = best_thresholds(patch_histograms(confidence, truth, patch=USUAL))
    for (row, col), threshold in np.ndenumerate(chosen):
        place = np.s_[row * USUAL : (row + 1) * USUAL, col * USUAL : (col + 1) * USUAL]
        assert threshold == naive_best(confidence[place], truth[place]), (row, col)
    sizes = partial(region_targets, confidence, truth, patches=PATCHES)
    for patch, made in zip(PATCHES, sizes(), strict=True):
        assert (made == region_target(confidence, truth, patch=patch)).all(), patch

    calls = {
        "naive loop": lambda: naive_target(confidence, truth, USUAL),
        "histogram": lambda: region_target(confidence, truth, patch=USUAL),
        f"histogram, P = {PATCHES[0]}": lambda: region_target(confidence, truth, patch=PATCHES[0]),
        f"histogram, six patch sizes from {PATCHES[0]} on": sizes,
    }

    if arguments.before is not None:
        before = thresholding_of(arguments.before).region_targets
        for name, patches in {
            "histogram": [USUAL],
            f"six patch sizes from {PATCHES[0]} on": PATCHES,
        }.items():
            calls[f"{name}, before"] = partial(before, confidence, truth, patches=patches)
        for made, as_before in zip(
            sizes(), before(confidence, truth, patches=PATCHES), strict=True
        ):
            assert (made == as_before).all()

    def second(call: Callable[[], object]) -> Seconds:
        call()
        return timed(call)

    runs = in_turn({name: partial(second, call) for name, call in calls.items()}, arguments.repeat)
    found = {name: least(runs[name]) for name in calls}
    one = found["histogram"]
    rows = [
        [name, f"{1e3 * took.wall:.2f}", f"{took.wall / one.wall:.2f}"]
        for name, took in found.items()
    ]
    print(f"\none map of {arguments.side} x {arguments.side}, P = {USUAL}, same thresholds\n")
    print(table(["", "ms at best", "over histogram"], rows))


if __name__ == "__main__":
    main()
