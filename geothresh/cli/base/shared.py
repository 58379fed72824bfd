"""Options of the commands that train base networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geothresh.cli import options
from geothresh.cli.values import PATH

if TYPE_CHECKING:
    from geothresh.base.config import BasePlan, ImageData

Command = TypeVar("Command", bound=Callable[..., Any])

_POSITIVE = click.IntRange(min=1)
_DATA = ("skip_unpaired", "place_pattern")
_PLAN = ("network", "encoder", "encoder_weights", "epochs", "snapshots")
_RECIPE = (
    "steps", "crop_size", "batch_size", "learning_rate", "weight_decay", "jitter", "precision",
    "seed",
)  # fmt: skip


def training(command: Command) -> Command:
    """The network and its hyperparameters; `data_and_plan` takes them out of the arguments."""
    for decorate in reversed(
        (
            click.argument("data", type=PATH, nargs=-1, required=True),
            click.option(
                "--network", default="linknet", show_default=True,
                type=click.Choice(
                    ["linknet", "dlinknet", "unet", "deeplabv3plus", "pspnet", "fcn8s"]
                ),
                help="Architecture.",
            ),
            click.option(
                "--encoder", default="resnet18", show_default=True, metavar="NAME",
                help="Any encoder of segmentation-models-pytorch.",
            ),
            click.option(
                "--encoder-weights", default="none", show_default=True,
                metavar="none|imagenet|FILE",
                help="What the encoder starts from: random numbers, ImageNet's weights, which are "
                "fetched, or a .safetensors file of its state dict.",
            ),
            click.option(
                "--steps", type=_POSITIVE, default=2000, show_default=True,
                help="Optimiser steps.",
            ),
            click.option(
                "--epochs", type=_POSITIVE,
                help="Passes through the images, in place of --steps.",
            ),
            click.option(
                "--crop-size", type=_POSITIVE, default=256, show_default=True,
                help="Side of a crop in pixels, a multiple of 32; smaller images are mirrored "
                "outwards.",
            ),
            click.option(
                "--batch-size", type=click.IntRange(min=2), default=8, show_default=True,
                help="Crops in a step.",
            ),
            click.option(
                "--learning-rate", type=click.FloatRange(min=0, min_open=True), default=5e-4,
                show_default=True, help="Of AdamW, at its highest.",
            ),
            click.option(
                "--weight-decay", type=click.FloatRange(min=0), default=1e-2, show_default=True,
                help="Of AdamW.",
            ),
            click.option(
                "--jitter", type=click.FloatRange(0, 1, max_open=True), default=0.2,
                show_default=True, help="How far contrast and brightness are changed at random.",
            ),
            click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
            click.option(
                "--snapshots", type=click.IntRange(min=0), default=0, show_default=True,
                metavar="N",
                help="Keep the network at N moments of the training too: cheap further networks.",
            ),
            click.option(
                "--place-pattern", metavar="REGEX",
                help="What makes ids one place: the first group, such as '^(.*)_[0-9]+$'.",
            ),
            click.option(
                "--skip-unpaired", is_flag=True,
                help="Leave out images and masks without a partner.",
            ),
            options.device,
            click.option(
                "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto",
                show_default=True, help="Number format inside the network.",
            ),
            options.progress,
            options.as_json,
            options.common,
        )
    ):  # fmt: skip
        command = decorate(command)
    return command


def data_and_plan(data: tuple[Path, ...], arguments: dict[str, Any]) -> tuple[ImageData, BasePlan]:
    """What is trained on and how; their options are taken out of the command's arguments."""
    from geothresh.base.config import BasePlan, BaseRecipe, ImageData

    images, recipe, plan = (
        {name: arguments.pop(name) for name in names} for names in (_DATA, _RECIPE, _PLAN)
    )
    return ImageData(folders=data, **images), BasePlan(recipe=BaseRecipe(**recipe), **plan)
