"""The options of a recipe: one for every number of it, each left at the recipe's unless given."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from geothresh.training.recipe import DEFAULT_RECIPE, RECIPES, Recipe, recipe_of, usual_recipe

_COUNT = click.IntRange(min=1)
_SHARE = click.FloatRange(0, 1)
_WEIGHT = click.FloatRange(min=0)

_OPTIONS: tuple[tuple[str, click.ParamType, str], ...] = (
    (
        "--head", click.Choice(["confidence", "correction"]),
        "Predict the confidence (the paper), or a correction to the logit of the input.",
    ),
    (
        "--branches", click.Choice(["both", "global", "local"]),
        "Decoders of the network: the paper's two, or one alone.",
    ),
    ("--epochs", _COUNT, "At most."),
    (
        "--chips-per-epoch", click.IntRange(min=0),
        "Random squares that make an epoch; 0 is as many as there are maps.",
    ),
    (
        "--chip-size", _COUNT,
        "Side of a chip in pixels, a multiple of the patch; smaller maps are mirrored outwards.",
    ),
    ("--batch-size", _COUNT, "Chips in a step."),
    (
        "--learning-rate", click.FloatRange(min=0, min_open=True),
        "Of Adam, at the start or at its highest.",
    ),
    ("--min-learning-rate", click.FloatRange(min=0), "Least rate."),
    (
        "--schedule", click.Choice(["plateau", "cosine"]),
        "Reduce the rate when the training loss stalls, or along half a cosine over all epochs.",
    ),
    (
        "--patience", click.IntRange(min=0),
        "Epochs without a lower training loss before the rate is reduced.",
    ),
    (
        "--stop-patience", _COUNT,
        "Epochs without a lower training loss before training ends (plateau only).",
    ),
    (
        "--ema", click.FloatRange(0, 1, max_open=True),
        "Decay of the moving average of the weights that becomes the model; 0 keeps the weights.",
    ),
    (
        "--region-weight", _SHARE,
        "The paper's a: weight of the loss against the region-thresholded target; 1 - a goes to "
        "the ground truth.",
    ),
    ("--focal-weight", _WEIGHT, "Within a."),
    ("--boundary-weight", _WEIGHT, "Within a."),
    (
        "--overlap-weight", _WEIGHT,
        "Soft IoU against the ground truth, per chip (not in the paper).",
    ),
    (
        "--centerline-weight", _WEIGHT,
        "Soft centreline Dice (clDice) against the ground truth, per chip (not in the paper).",
    ),
    (
        "--balance", _SHARE,
        "How far a small DATA catches up: 0 takes every map once an epoch, 1 draws every DATA "
        "equally often, 0.5 goes by the root of the number of maps.",
    ),
    ("--mix", _SHARE, "Share of chips that mix the maps of several base networks."),
    ("--jitter", _WEIGHT, "Spread of a random bias and temperature of each chip's logits."),
    (
        "--regional-jitter", _WEIGHT,
        "Spread of a bias of the logits that varies smoothly over the chip.",
    ),
    (
        "--zoom", click.FloatRange(min=1),
        "Enlarge or reduce half of the chips by up to this factor.",
    ),
    (
        "--degrade", _SHARE,
        "Share of chips whose map is made worse: blur, gaps, false roads, displaced outlines.",
    ),
    ("--synthesise", _SHARE, "Share of chips whose map is made from the mask alone."),
    (
        "--dropout", click.FloatRange(0, 1, max_open=True),
        "Probability that a channel of the bottleneck is left out of a chip.",
    ),
    ("--weight-decay", _WEIGHT, "As in AdamW; 0 is Adam."),
    ("--seed", click.IntRange(min=0), "Of all."),
    (
        "--precision", click.Choice(["auto", "fp32", "bf16"]),
        "Number format of the convolutions; heads and losses stay fp32.",
    ),
)  # fmt: skip


def recipe(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--recipe`` and an option for each number; the command gets one `Recipe`."""

    @wraps(command)
    def with_recipe(*arguments: Any, recipe: str | None, **values: Any) -> Any:
        recipe = recipe or usual_recipe(values.get("init"))
        changes = {_field(name): values.pop(_field(name)) for name, _, _ in _OPTIONS}
        return command(*arguments, recipe=recipe_of(recipe, **changes), **values)

    decorated: Callable[..., Any] = with_recipe
    for name, kind, text in reversed(_OPTIONS):
        text = f"{text}  [{_shown(_field(name))}]"
        decorated = click.option(name, type=kind, default=None, help=text)(decorated)
    return click.option(
        "--recipe", type=click.Choice(list(RECIPES)),
        help="Where the numbers of the options below start: the paper's section 4.2, what measures "
        "better, or what suits a trained model and a few maps. Each option given overrides its "
        "recipe.  [default: best; with --init tune]",
    )(decorated)  # fmt: skip


def _field(name: str) -> str:
    return name.split("/")[0].removeprefix("--").replace("-", "_")


def _shown(field: str) -> str:
    """The recipes' values of one number, for the help."""
    values = {name: _value(numbers, field) for name, numbers in RECIPES.items()}
    if len(set(values.values())) == 1:
        return f"default: {values[DEFAULT_RECIPE]}"
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _value(numbers: Recipe, field: str) -> str:
    part = field.removesuffix("_weight")
    value = getattr(numbers.loss, part) if part != field else getattr(numbers, field)
    return "as many as maps" if value is None else f"{value}"
