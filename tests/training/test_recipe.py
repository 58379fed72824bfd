"""Named recipes: their numbers, the options that change them, and what is recorded."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from geothresh.api.train import train
from geothresh.base.config import BaseRecipe
from geothresh.base.task import BaseTask
from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.nn.config import LossWeights
from geothresh.nn.modelfile import read_card
from geothresh.training.options import FolderData
from geothresh.training.recipe import DEFAULT_RECIPE, RECIPES, Recipe, recipe_of
from tests.support.cli_runner import runner
from tests.support.roads import make_roads

#: The numbers of section 4.2 and 3.5 of the paper.
PAPER = {
    "epochs": 300,
    "batch_size": 4,
    "learning_rate": 8e-4,
    "min_learning_rate": 5e-8,
    "schedule": "plateau",
    "patience": 5,
    "stop_patience": 10,
    "head": "confidence",
}


def test_the_papers_recipe_is_the_papers() -> None:
    numbers = RECIPES["paper"].as_dict()
    assert {name: numbers[name] for name in PAPER} == PAPER
    assert RECIPES["paper"].loss == LossWeights(region=0.7, focal=1, boundary=1)
    plain = dataclasses.replace(RECIPES["paper"], name="")
    assert plain == Recipe(), "every ingredient is off in it"


def test_a_recipe_is_changed_by_what_is_given_alone() -> None:
    changed = recipe_of("best", ema=0.9, chips_per_epoch=0, boundary=0.5, zoom=None)
    best = RECIPES["best"]
    assert (changed.ema, changed.chips_per_epoch, changed.loss.boundary) == (0.9, None, 0.5)
    assert changed.loss.overlap == best.loss.overlap
    same = {"ema": best.ema, "chips_per_epoch": best.chips_per_epoch, "loss": best.loss}
    assert dataclasses.replace(changed, **same) == best
    with pytest.raises(UsageError, match="paper, best"):
        recipe_of("worst")


def test_what_is_no_recipe_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^`recipe` 3: give Recipe\(...\)$"):
        train("nowhere", tmp_path / "m.safetensors", recipe=3)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    floats = [f.name for f in dataclasses.fields(Recipe) if f.type == "float"]
    weights = [f.name for f in dataclasses.fields(LossWeights)]
    assert {"learning_rate", "zoom", "jitter", "ema"} < {*floats}
    for name in [*floats, *weights]:
        with pytest.raises(UsageError, match=f"^`{name}` {value}: give a number"):
            recipe_of("best", **{name: value})
    with pytest.raises(UsageError, match="^`focal` -1: give a number of at least 0$"):
        recipe_of("best", focal=-1)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "jitter"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_of_base_networks_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"`{name}` {value}: give"):
        BaseRecipe(**{name: value})


@pytest.mark.parametrize("options", [Recipe, BaseRecipe])
def test_a_seed_is_one_that_torch_takes_at_every_step(options: type[Recipe | BaseRecipe]) -> None:
    with pytest.raises(UsageError, match=r"`seed` .*: give a whole number from 0 to 4294967295"):
        options(seed=2**64)
    torch.manual_seed(BaseTask.seed(SimpleNamespace(recipe=options(seed=2**32 - 1)), 10**6))


def test_a_number_that_is_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`epochs` 1000.*: give a whole number of at least 1"):
        Recipe(epochs=10**400)


def test_the_commands_refuse_numbers_that_are_none(tmp_path: Path) -> None:
    for command in (["train"], ["base", "train"]):
        start = [*command, str(tmp_path), "-o", str(tmp_path / "m.safetensors")]
        for name in ("learning-rate", "weight-decay", "jitter"):
            result = runner().invoke(main, [*start, f"--{name}", "nan"])
            assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.stderr
            assert f"--{name} nan: give a number" in result.stderr


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that the command hands to training, which does not run."""
    found: list[Recipe] = []

    def record(data, output, *, recipe, **options):
        found.append(recipe)
        raise UsageError("no training here")

    monkeypatch.setattr("geothresh.api.train.train", record)
    return found


@pytest.mark.parametrize("name", [None, *RECIPES])
def test_the_command_starts_from_a_recipe_and_changes_what_is_given(received, name) -> None:
    chosen = [] if name is None else ["--recipe", name]
    start = RECIPES[name or DEFAULT_RECIPE]
    runner().invoke(main, ["train", "data", "-o", "m.safetensors", *chosen])
    runner().invoke(
        main,
        ["train", "data", "-o", "m.safetensors", *chosen]
        + ["--epochs", "7", "--ema", "0.9", "--overlap-weight", "0.25", "--balance", "0.5"],
    )
    loss = dataclasses.replace(start.loss, overlap=0.25)
    changed = dataclasses.replace(start, epochs=7, ema=0.9, loss=loss, balance=0.5)
    assert received == [start, changed]


def test_what_starts_from_a_model_is_tuned_unless_something_else_is_said(received) -> None:
    for more in ([], ["--recipe", "best"]):
        runner().invoke(main, ["train", "data", "-o", "m.safetensors", "--init", "roads", *more])
    assert received == [RECIPES["tune"], RECIPES["best"]]


def test_every_number_of_a_recipe_has_its_option() -> None:
    names = {f.name for f in dataclasses.fields(Recipe)} - {"name", "loss"}
    weights = {f.name for f in dataclasses.fields(LossWeights)}
    flags = {flag for p in main.get_command(None, "train").params for flag in p.opts}
    assert {f"--{name.replace('_', '-')}" for name in names} <= flags
    assert {f"--{name}-weight" for name in weights} <= flags


def test_the_help_shows_the_numbers_of_all_recipes() -> None:
    text = " ".join(runner().invoke(main, ["train", "--help"]).stdout.split())
    best, tune = RECIPES["best"], RECIPES["tune"]
    assert f"[paper: 300, best: {best.epochs}, tune: {tune.epochs}]" in text
    chips = f"best: {best.chips_per_epoch}, tune: {tune.chips_per_epoch}"
    assert f"[paper: as many as maps, {chips}]" in text
    assert "[default: auto]" in text


def test_a_model_records_its_recipe(tmp_path: Path) -> None:
    data, networks = make_roads(tmp_path)
    recipe = recipe_of("best", epochs=1, chips_per_epoch=2, chip_size=64, batch_size=2)
    maps = FolderData(folders=[data], confidence=networks)
    result = train(maps, tmp_path / "m.safetensors", recipe=recipe, device="cpu")
    card = read_card(result.model)
    assert card.config.head == "correction"
    told = card.training["recipe"]
    assert (told["name"], told["epochs"], told["loss"]["overlap"]) == ("best", 1, 1.0)
