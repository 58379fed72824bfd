"""Seconds of a training step: forward, losses, backward, optimiser.

    python tests/benchmarks/bench_training.py
    python tests/benchmarks/bench_training.py --chip-size 512 --batch-size 4 --steps 5
    python tests/benchmarks/bench_training.py --before ../geothresh-of-yesterday --preset small
    python tests/benchmarks/bench_training.py --shares --preset small --precision bf16
    python tests/benchmarks/bench_training.py --shares --base unet DIR --batch-size 8
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python tests/benchmarks/bench_training.py --compile

Each preset in fp32 and, where the device has instructions for it, in bf16, in turn, on chips of
bands with soft edges. By default two chips of 256 x 256; what a step takes goes with the pixels.
With ``--before``, a checkout to compare with, each case is run with that one and with this one
right after it, in processes of their own, and how far the losses of the steps differ is told.
With ``--compile`` each is compared with itself, its network and losses by `torch.compile`, steps in
turn; the first steps have the compiler's work in them. With ``--base`` the steps are those of a
base network on crops of a folder of images and masks, and making a batch is timed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, peak_megabytes, script_parser, table, timed

from geothresh.base.config import BasePlan, BaseRecipe, ImageData
from geothresh.base.networks import describe_network
from geothresh.base.task import BaseTask, Crops, images_of, normalised
from geothresh.nn.compiling import compiler_options
from geothresh.nn.config import PRESETS
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.training.data import Cut
from geothresh.training.loop import Task, _step
from geothresh.training.recipe import recipe_of
from geothresh.training.threshnet import ThreshNetTask

HERE = Path(__file__).parents[2]
# Of a base network's folder.
MOST_IMAGES = 24


@dataclass(frozen=True)
class NoMap:
    """Stands in for the data, of which none is read."""

    dataset = "random"
    n_chips = 1
    factor = 1.0

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        raise AssertionError("the batch is made beforehand: nothing is cut")


@dataclass(frozen=True, slots=True)
class Step:
    """A step, forward and backward."""

    wall: float
    """Seconds by the clock."""
    cpu: float
    """Seconds of processors, in all threads."""
    loss: float
    """Before it."""


class Training:
    """A network with its optimiser, its dtype, and one batch for all steps."""

    def __init__(self, task: Task, batch: Any) -> None:
        task.network.train()
        self._task = task
        self._batch = batch

    @classmethod
    def of(cls, preset: str, precision: str, batch: list[torch.Tensor], device: str) -> Training:
        """That of a ThreshNet."""
        task = ThreshNetTask(
            [NoMap()], [], Path("unwritten.safetensors"), config=PRESETS[preset], facts={},
            recipe=recipe_of("best", learning_rate=1e-4, precision=precision), device=device,
        )  # fmt: skip
        return cls(task, batch)

    def compile(self) -> None:
        """Have the next step compile the network and the losses, forward and backward."""
        plain = self._task.losses
        options = compiler_options(self._task.device.type)
        compiled = torch.compile(plain, dynamic=False, options=options)
        self._task.losses = compiled  # type: ignore[method-assign]

    def step(self) -> Step:
        """Take one; its losses are read, so that a GPU has finished."""
        losses: list[float] = []
        taken = timed(lambda: losses.append(_step(self._task, self._batch, 0)["total"]))
        return Step(taken.wall, taken.cpu, losses[0])


def chips(count: int, side: int) -> list[torch.Tensor]:
    """A batch: bands with soft edges, their confidences off by smooth noise."""
    shape = (count, 1, side, side)
    generator = torch.Generator().manual_seed(0)

    def field(cells: int) -> torch.Tensor:
        noise = torch.randn((count, 1, cells, cells), generator=generator)
        return torch.nn.functional.interpolate(noise, size=shape[-2:], mode="bicubic")

    height = field(side // 16)
    confidence = torch.sigmoid(8 * (0.3 - height.abs()) + field(side // 8))
    return [
        confidence,
        (confidence > 0.7).float(),
        (height.abs() < 0.3).float(),
        torch.ones(shape, dtype=torch.bool),
    ]


def in_checkout(checkout: Path, case: tuple[str, str], arguments: argparse.Namespace) -> list[Step]:
    """The steps of one case with the package of a checkout, in a process of its own."""
    command = [
        sys.executable, __file__, "--preset", case[0], "--precision", case[1], "--json",
        "--chip-size", str(arguments.chip_size), "--batch-size", str(arguments.batch_size),
        "--steps", str(arguments.steps), "--device", arguments.device,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(checkout.absolute())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return [Step(*step) for step in json.loads(done.stdout.splitlines()[-1])]


def compare(cases: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    """Print what steps take, before and now."""
    rows = []
    for case in cases:
        pairs = []
        for _ in range(arguments.repeat):
            before, now = (in_checkout(c, case, arguments) for c in (arguments.before, HERE))
            pairs.append((before, now))
        least = [
            min(step.cpu for run in runs for step in run[1:]) for runs in zip(*pairs, strict=True)
        ]
        apart = max(
            abs(a.loss - b.loss) / abs(a.loss)
            for before, now in pairs
            for a, b in zip(before, now, strict=True)
        )
        ratios = [
            min(step.cpu for step in now[1:]) / min(step.cpu for step in before[1:])
            for before, now in pairs
        ]
        rows.append(
            [
                ", ".join(case),
                *(f"{seconds:.3f}" for seconds in least),
                f"{statistics.median(ratios):.2f}",
                f"{apart:.1e}",
            ]
        )
    print(f"\n{described(arguments)}, {arguments.repeat} pairs\n")
    head = ["", "processor s a step, before", "now", "of before", "losses differ at most by"]
    print(table(head, rows))


def shares(cases: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    """Print which of torch's operators a step spends its time in, one case after the other."""
    for case in cases:
        batch = chips(arguments.batch_size, arguments.chip_size)
        training = Training.of(*case, batch, arguments.device)
        print(f"\n{', '.join(case)}: {described(arguments)}\n")
        print_shares(training)


def print_shares(training: Training) -> None:
    """Print the operators that a step spends most of its time in, after one that is not counted."""
    training.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        training.step()
    operators = sorted(profile.key_averages(), key=lambda one: -one.self_cpu_time_total)
    whole = sum(one.self_cpu_time_total for one in operators)
    rows = [
        [one.key, f"{100 * one.self_cpu_time_total / whole:.1f} %", str(one.count)]
        for one in operators[:20]
    ]
    print(table(["operator", "of a step", "calls"], rows))


def base_shares(arguments: argparse.Namespace) -> None:
    """Print what a batch and a step of a base network take, and the operators of the step."""
    name, folder = arguments.base
    recipe = BaseRecipe(
        crop_size=arguments.chip_size, batch_size=arguments.batch_size,
        precision=arguments.precision or "auto",
    )  # fmt: skip
    pairs = images_of(ImageData(folders=(folder,)))[:MOST_IMAGES]
    config, crops = describe_network(name), Crops(pairs, recipe)
    task = BaseTask(
        pairs, Path("unwritten.safetensors"), config=config, plan=BasePlan(recipe=recipe), data={},
        device=arguments.device,
    )  # fmt: skip

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = crops.batch(step)
        return normalised(images, config), torch.from_numpy(masks)

    # Each image is decoded once in a training, when its first crop is cut.
    decoded = -(-len(pairs) // recipe.batch_size)
    made = [timed(partial(batch, step)) for step in range(decoded + arguments.steps)]
    training = Training(task, batch(0))
    steps = [training.step() for _ in range(arguments.steps + 1)][1:]
    print(f"\n{config.name}, {task.dtype}: {described(arguments)}\n")
    rows = [
        ["a batch, of images seen before", f"{min(one.cpu for one in made[decoded:]):.3f}"],
        ["a step", f"{min(step.cpu for step in steps):.3f}"],
    ]
    print(table(["", "processor s, at best"], rows) + "\n")
    print_shares(training)


def compiling(cases: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    """Print what compiling takes and saves, one case after the other."""
    rows = []
    for case in cases:
        batch = chips(arguments.batch_size, arguments.chip_size)
        plain, compiled = (Training.of(*case, batch, arguments.device) for _ in range(2))
        compiled.compile()
        taken: list[tuple[Step, Step, float]] = []
        for _ in range(arguments.steps + 1):
            before = os.times()
            one, other = plain.step(), compiled.step()
            # The compiler works in processes of its own too.
            taken.append((one, other, sum(os.times()[:4]) - sum(before[:4])))
        spent = taken[0][2] - taken[0][0].cpu
        pairs = [(one.cpu, other.cpu) for one, other, _ in taken[1:]]
        usual, now = (statistics.median(side) for side in zip(*pairs, strict=True))
        saved = usual - now
        apart = max(abs(one.loss - other.loss) / abs(one.loss) for one, other, _ in taken)
        rows.append(
            [
                ", ".join(case), f"{usual:.3f}", f"{now:.3f}",
                f"{statistics.median(other / one for one, other in pairs):.2f}", f"{spent:.0f}",
                f"{spent / saved:,.0f}" if saved > 0 else "never", f"{apart:.1e}",
            ]
        )  # fmt: skip
    print(f"\n{described(arguments)}\n")
    head = ["", "processor s a step", "compiled", "of that", "compiling, processor s",
            "paid back after steps", "losses differ at most by"]  # fmt: skip
    print(table(head, rows))


def described(arguments: argparse.Namespace) -> str:
    """The steps in words."""
    side = arguments.chip_size
    return (
        f"{arguments.batch_size} chips of {side} x {side}, {arguments.steps} steps each on "
        f"{arguments.device}, {torch.get_num_threads()} threads"
    )


def measure(cases: list[tuple[str, str]], arguments: argparse.Namespace) -> None:
    """Print what steps take, all cases in one process."""
    batch = chips(arguments.batch_size, arguments.chip_size)
    trainings = {case: Training.of(*case, batch, arguments.device) for case in cases}
    steps: dict[tuple[str, str], list[Step]] = {case: [] for case in cases}
    for _ in range(arguments.steps + 1):
        for case, training in trainings.items():
            steps[case].append(training.step())
    if arguments.json:
        (only,) = steps.values()
        print(json.dumps([astuple(step) for step in only]))
        return
    rows = []
    for case, taken in steps.items():
        walls = [step.wall for step in taken[1:]]
        first = [step.wall for step in steps[cases[0]][1:]]
        over = [mine / other for mine, other in zip(walls, first, strict=True)]
        rows.append(
            [
                ", ".join(case),
                f"{min(walls):.2f}",
                f"{min(walls) / arguments.batch_size:.2f}",
                f"{statistics.median(over):.2f}",
            ]
        )
    print(f"\n{described(arguments)}\n")
    print(table(["", "s a step", "s a chip", f"over {', '.join(cases[0])}"], rows))
    print(f"\npeak memory with all of them in one process: {peak_megabytes():.0f} MB")


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--chip-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="measured, after one that is not")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", choices=list(PRESETS), help="this one alone")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="this one alone")
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--repeat", type=int, default=3, help="pairs of before and now")
    parser.add_argument("--shares", action="store_true", help="of torch's operators in a step")
    parser.add_argument(
        "--base", nargs=2, metavar=("NETWORK", "DIR"), help="with --shares, those of a base network"
    )
    parser.add_argument("--compile", action="store_true", help="beside the same without")
    parser.add_argument("--json", action="store_true", help="of one case, each step as numbers")
    arguments = parser.parse_args()
    precisions = ["fp32"]
    if pick_dtype("auto", pick_device(arguments.device)) == torch.bfloat16:
        precisions.append("bf16")
    else:
        print("no instructions for bf16, which would be emulated and is not measured")
    cases = [
        (preset, precision)
        for preset in ([arguments.preset] if arguments.preset else PRESETS)
        for precision in ([arguments.precision] if arguments.precision else precisions)
    ]
    print(machine("torch", "numpy"), flush=True)
    if arguments.shares and arguments.base:
        base_shares(arguments)
    elif arguments.shares:
        shares(cases, arguments)
    elif arguments.compile:
        compiling(cases, arguments)
    elif arguments.before is None:
        measure(cases, arguments)
    else:
        compare(cases, arguments)


if __name__ == "__main__":
    main()
