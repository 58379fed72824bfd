"""Studies of the method, each one command.

Long ones: a run of 4,400 steps takes about an hour on two cores.

    python tests/benchmarks/study.py leave-network-out --data DATA --output studies
    python tests/benchmarks/study.py leave-set-out     --data DATA --output studies
    python tests/benchmarks/study.py ablation          --data DATA --output studies
    python tests/benchmarks/study.py patch             --data DATA --output studies
    python tests/benchmarks/study.py seeds             --data DATA --output studies

DATA holds SET/<id>_mask.png and confidence/SET/NETWORK/<id>.png; --confidence adds folders with
SET/NETWORK. Folders NETWORK-step00500 are snapshots of a network: trained on and left out with it,
not scored. --gsd SET=M and --resolution M bring all data sets to one resolution. Each study writes
its page STUDY.md and its figures STUDY.json after every run, and a folder runs/RUN for each run; a
run that is done is not done again, in no study that has it too, and one that was stopped goes on.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import wraps
from pathlib import Path
from typing import Any

import click
from study_runs import TRIED, Maps, Run, Setting, find_maps, perform, stepped
from study_tables import page

import geothresh
from geothresh.cli.values import SizeRange
from geothresh.errors import GeothreshError, UsageError
from geothresh.files import write_text
from geothresh.nn.config import PRESETS, LossWeights
from geothresh.training import RECIPES, Recipe

SPLIT = Path(geothresh.__file__).parent / "nn" / "models" / "roads.split.json"
#: What the recipe is without, and at what strength it is tried.
ADDED: dict[str, Any] = {
    "degrade": 0.3,
    "synthesise": 0.3,
    "dropout": 0.1,
    "balance": 0.5,
    "jitter": 0.5,
    "regional_jitter": 1.0,
    "zoom": 1.6,
    "weight_decay": 0.02,
    "ema": 0.998,
    "schedule": "cosine",
}
#: Of these, what the packaged model's recipe had: tried together as well.
TOGETHER = ("jitter", "regional_jitter", "zoom", "weight_decay", "ema", "schedule")
ADDED_LOSSES: dict[str, float] = {"centerline": 0.5, "harm": 3.0}
#: Times the paper's weight.
MORE_BOUNDARY = 3.0
#: How long is trained, on what chips and with what seed is no ingredient.
NO_INGREDIENTS = (
    "name",
    "epochs",
    "chips_per_epoch",
    "chip_size",
    "batch_size",
    "seed",
    "precision",
)
#: A chip that all patches divide, and as many pixels in a batch as 8 chips of 320.
PATCH_CHIP, PATCH_BATCH = 256, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What was asked for on the command line."""

    maps: tuple[Maps, ...]
    recipe: Recipe
    """Over as many steps as were asked for."""
    steps: int
    preset: str


Runs = Iterator[Run]


def study(text: str) -> Callable[[Callable[..., Runs]], click.Command]:
    """A command from a function that yields the runs; `text` heads its page."""

    def decorate(runs: Callable[..., Runs]) -> click.Command:
        name = runs.__name__.replace("_", "-")

        @main.command(name, help=text)
        @click.option("--data", type=click.Path(path_type=Path), required=True)
        @click.option(
            "--confidence", type=click.Path(path_type=Path), multiple=True,
            help="A further folder with SET/NETWORK; may be repeated.",
        )  # fmt: skip
        @click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
        @click.option("--split", type=click.Path(path_type=Path), default=SPLIT)
        @click.option("--recipe", type=click.Choice(list(RECIPES)), default="best")
        @click.option("--preset", type=click.Choice([*PRESETS, *TRIED]), default="small")
        @click.option("--chip-size", type=click.IntRange(min=1), help="In place of the recipe's.")
        @click.option(
            "--gsd", multiple=True, metavar="SET=M|MIN,MAX",
            help="Pixels of a data set on the ground, in metres.",
        )  # fmt: skip
        @click.option(
            "--resolution", type=float, help="Bring all data sets to pixels of this size."
        )
        @click.option("--steps", type=click.IntRange(min=1), default=4400, show_default=True)
        @click.option("--only", multiple=True, metavar="GLOB", help="Do these runs; repeatable.")
        @click.option("--device", default="auto")
        @wraps(runs)
        def command(  # noqa: PLR0913 - click hands over one argument for each option
            data: Path,
            confidence: tuple[Path, ...],
            output: Path,
            split: Path,
            recipe: str,
            preset: str,
            chip_size: int | None,
            gsd: tuple[str, ...],
            resolution: float | None,
            steps: int,
            only: tuple[str, ...],
            device: str,
            **options: Any,
        ) -> None:
            try:
                maps = find_maps(data, confidence)
                start = RECIPES[recipe]
                chosen = stepped(replace(start, chip_size=chip_size or start.chip_size), steps)
                asked = Study(maps=maps, recipe=chosen, steps=steps, preset=preset)
                setting = Setting(
                    maps=maps, split=split, preset=preset, device=device, output=output / "runs",
                    sizes=dict(map(_size, gsd)), resolution=resolution,
                )  # fmt: skip
                results = []
                for run in runs(asked, **options):
                    done = (setting.output / run.name / "result.json").exists()
                    if only and not done and not any(fnmatchcase(run.name, o) for o in only):
                        continue
                    results.append(perform(run, setting, lambda line: click.echo(line, err=True)))
                    _write(output / name, name, text, results)
            except GeothreshError as error:
                raise click.ClickException(str(error)) from error
            if not results:
                raise click.ClickException(f"no run is named like {', '.join(only)}")
            click.echo(output / f"{name}.md")

        return command

    return decorate


def _size(text: str) -> tuple[str, tuple[float, float]]:
    """``SET=M`` or ``SET=MIN,MAX``."""
    name, found, numbers = text.partition("=")
    if not found:
        raise click.BadParameter(f"{text!r} is not SET=M", param_hint="--gsd")
    return name, SizeRange().convert(numbers, None, None)


def _write(stem: Path, name: str, text: str, results: list[dict[str, Any]]) -> None:
    command = shlex.join(["python", "tests/benchmarks/study.py", *sys.argv[1:]])
    title = name.replace("-", " ").capitalize()
    write_text(stem.with_name(f"{name}.json"), json.dumps(results, indent=1) + "\n")
    write_text(stem.with_name(f"{name}.md"), page(title, text, results, command=command))


@click.group()
def main() -> None:
    """Studies of the method; each is one command."""


@study("Each base network is left out of training, in all data sets, and refined.")
def leave_network_out(asked: Study) -> Runs:
    """All maps, then all but one network's."""
    yield Run(name="all", maps=asked.maps, recipe=asked.recipe)
    for network in sorted({maps.family for maps in asked.maps}):
        rest = tuple(maps for maps in asked.maps if maps.family != network)
        if rest:
            yield Run(name=f"without-{network}", maps=rest, recipe=asked.recipe)


@study("Each data set is left out of training: another place, and another style of label.")
@click.option(
    "--together", multiple=True, metavar="SET,SET",
    help="Data sets of like images and labels, which are left out as one; may be repeated.",
)  # fmt: skip
def leave_set_out(asked: Study, together: tuple[str, ...]) -> Runs:
    """All maps, then all but one data set's."""
    groups = [tuple(names.split(",")) for names in together]
    datasets = {maps.dataset for maps in asked.maps}
    joined = {name for group in groups for name in group}
    if joined - datasets:
        raise UsageError(f"--together {min(joined - datasets)}: there is no such data set")
    yield Run(name="all", maps=asked.maps, recipe=asked.recipe)
    for group in sorted([*groups, *((name,) for name in datasets - joined)]):
        rest = tuple(maps for maps in asked.maps if maps.dataset not in group)
        if rest:
            yield Run(name=f"without-{'-and-'.join(group)}", maps=rest, recipe=asked.recipe)


seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Of every run; a run's name ends in it unless it is 0.",
)  # fmt: skip


def _seeded(run: Run, seed: int) -> Run:
    if not seed:
        return run
    return replace(run, name=f"{run.name}-seed-{seed}", recipe=replace(run.recipe, seed=seed))


@study("Branches, losses, and the recipe's ingredients: one alone, or one taken away.")
@seed_option
@click.option(
    "--leave-out", multiple=True, metavar="NETWORK",
    help="Score on the maps of this network, and train on those of the others; repeatable.",
)  # fmt: skip
@click.option("--leave-set", multiple=True, metavar="SET", help="Likewise of a data set.")
def ablation(
    asked: Study, seed: int, leave_out: tuple[str, ...], leave_set: tuple[str, ...]
) -> Runs:
    """The paper's recipe and its Table 1, and each ingredient by which recipes differ.

    Those that the recipe has and the paper's has not, and those that neither has.
    """
    if lacking := set(leave_out) - {maps.family for maps in asked.maps}:
        raise UsageError(f"--leave-out {min(lacking)}: there are no maps of such a network")
    if lacking := set(leave_set) - {maps.dataset for maps in asked.maps}:
        raise UsageError(f"--leave-set {min(lacking)}: there is no such data set")
    seen = [m for m in asked.maps if m.family not in leave_out and m.dataset not in leave_set]
    asked = replace(asked, maps=tuple(seen))
    for run in _ingredients(asked):
        yield _seeded(run, seed)


def _ingredients(asked: Study) -> Runs:
    def run(name: str, **changes: Any) -> Run:
        return Run(name=name, maps=asked.maps, recipe=replace(asked.recipe, **changes))

    yield run("all")
    yield run("branch-global", branches="global")
    yield run("branch-local", branches="local")
    # The paper's losses by themselves: what is added to them would stand in for what is left out.
    yield run("loss-paper", loss=LossWeights())
    yield run("loss-truth-only", loss=LossWeights(region=0.0))
    yield run("loss-region-only", loss=LossWeights(region=1.0))
    yield run("loss-focal-only", loss=LossWeights(region=1.0, boundary=0.0))
    yield run("loss-boundary-only", loss=LossWeights(region=1.0, focal=0.0))
    paper = RECIPES["paper"]
    as_long = {name: getattr(asked.recipe, name) for name in NO_INGREDIENTS}
    yield Run(name="paper", maps=asked.maps, recipe=replace(paper, **as_long | {"name": "paper"}))
    for field in fields(Recipe):
        plain = getattr(paper, field.name)
        used = getattr(asked.recipe, field.name)
        if field.name not in (*NO_INGREDIENTS, "loss") and used != plain:
            yield run(f"without-{field.name.replace('_', '-')}", **{field.name: plain})
    for part in fields(LossWeights):
        plain, used = (getattr(recipe.loss, part.name) for recipe in (paper, asked.recipe))
        if used != plain:
            loss = replace(asked.recipe.loss, **{part.name: plain})
            yield run(f"without-{part.name}-loss", loss=loss)
    for name, strength in ADDED.items():
        if getattr(asked.recipe, name) == getattr(paper, name) != strength:
            yield run(f"with-{name.replace('_', '-')}", **{name: strength})
    yield run("with-all-together", **{name: ADDED[name] for name in TOGETHER})
    yield run("more-boundary-loss", loss=replace(asked.recipe.loss, boundary=MORE_BOUNDARY))
    for name, strength in ADDED_LOSSES.items():
        if not getattr(asked.recipe.loss, name):
            loss = replace(asked.recipe.loss, **{name: strength})
            yield run(f"with-{name}-loss", loss=loss)


@study("The side of a patch, from 256 pixels down to the least that the preset has.")
@seed_option
def patch(asked: Study, seed: int) -> Runs:
    """The paper's Fig. 5; all on the same chips."""
    recipe = replace(asked.recipe, chip_size=PATCH_CHIP, batch_size=PATCH_BATCH)
    recipe = stepped(recipe, asked.steps)
    for side in (256, 128, 64, 32, 16):
        if side % (TRIED | PRESETS)[asked.preset].multiple == 0:
            yield _seeded(Run(name=f"p{side}", maps=asked.maps, recipe=recipe, patch=side), seed)


@study("The same with several seeds.")
def seeds(asked: Study) -> Runs:
    """Three of them; the first is what other studies have too."""
    yield Run(name="all", maps=asked.maps, recipe=asked.recipe)
    for seed in (1, 2):
        yield Run(name=f"seed-{seed}", maps=asked.maps, recipe=replace(asked.recipe, seed=seed))


if __name__ == "__main__":
    main()
