"""Seconds of a training step: forward, losses, backward, optimiser.

    python tests/benchmarks/bench_training.py
    python tests/benchmarks/bench_training.py --chip-size 512 --batch-size 4 --steps 5

Each preset in fp32 and, where the device has instructions for it, in bf16, in turn, on chips of
random confidences. By default two chips of 256 x 256; what a step takes goes with the pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import machine, peak_megabytes, table

from geothresh.nn.config import PRESETS
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.training.data import Cut
from geothresh.training.loop import _step
from geothresh.training.recipe import recipe_of
from geothresh.training.threshnet import ThreshNetTask


@dataclass(frozen=True)
class NoMap:
    """Stands in for the data, of which none is read."""

    dataset = "random"
    n_chips = 1
    factor = 1.0

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        raise AssertionError("the batch is made beforehand: nothing is cut")


class Training:
    """A ThreshNet with its optimiser and its dtype."""

    def __init__(self, preset: str, precision: str, batch: list[torch.Tensor], device: str) -> None:
        self._task = ThreshNetTask(
            [NoMap()], [], Path("unwritten.safetensors"), config=PRESETS[preset], facts={},
            recipe=recipe_of("best", learning_rate=1e-4, precision=precision), device=device,
        )  # fmt: skip
        self._task.network.train()
        self._batch = batch

    def step(self) -> float:
        """Seconds of one step; its losses are read, so that a GPU has finished."""
        start = time.perf_counter()
        _step(self._task, self._batch, 0)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--chip-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="measured, after one that is not")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    shape = (arguments.batch_size, 1, arguments.chip_size, arguments.chip_size)
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(shape, generator=generator)
    truth = (confidence + 0.3 * torch.randn(shape, generator=generator) > 0.8).float()
    batch = [confidence, (confidence > 0.7).float(), truth, torch.ones(shape, dtype=torch.bool)]
    print(machine("torch", "numpy"))
    precisions = ["fp32"]
    if pick_dtype("auto", pick_device(arguments.device)) == torch.bfloat16:
        precisions.append("bf16")
    else:
        print("no instructions for bf16, which would be emulated and is not measured")
    cases = {
        (preset, precision): Training(preset, precision, batch, arguments.device)
        for preset in PRESETS
        for precision in precisions
    }
    seconds: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for number in range(arguments.steps + 1):
        for case, training in cases.items():
            took = training.step()
            if number:
                seconds[case].append(took)
    rows = []
    for (preset, precision), taken in seconds.items():
        over = [mine / full for mine, full in zip(taken, seconds["full", "fp32"], strict=True)]
        rows.append(
            [
                f"{preset}, {precision}",
                f"{min(taken):.2f}",
                f"{min(taken) / arguments.batch_size:.2f}",
                f"{statistics.median(over):.2f}",
            ]
        )
    print(
        f"\n{arguments.batch_size} chips of {arguments.chip_size} x {arguments.chip_size}, "
        f"{arguments.steps} steps each on {arguments.device}, {torch.get_num_threads()} threads\n"
    )
    print(table(["", "s a step", "s a chip", "over full, fp32"], rows))
    print(f"\npeak memory with all of them in one process: {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    main()
