"""``geothresh base train``: a base network from images and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.base.config import BasePlan, Holdout, ImageData
from geothresh.cli import options
from geothresh.cli.base.shared import training_options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import checking, training_steps
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import PATH
from geothresh.errors import number_of


@click.command(
    cls=HelpfulCommand,
    common=("output", "network", "encoder", "steps", "device", "overwrite"),
    examples={
        "A LinkNet on images and masks": ("geothresh base train DATA -o base.safetensors"),
        "A U-Net that starts from ImageNet's weights": (
            "geothresh base train DATA -o base.safetensors --network unet \\\n"
            "    --encoder resnet34 --encoder-weights imagenet"
        ),
    },
)
@training_options
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="MODEL.safetensors",
    help="File for the model. The split is written beside it, and until the training ends also the "
    "state to resume from.",
)  # fmt: skip
@options_of(Holdout, "holdout")
@options.resume
@click.option("--overwrite", is_flag=True, help="Start anew, and replace the model if it exists.")
def train(
    data: ImageData,
    output: Path,
    plan: BasePlan,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Train a base network on the images in DATA.

    DATA are folders with <id>_sat.jpg and <id>_mask.png (or as --layout says).
    The loss is binary cross-entropy plus Dice; crops are turned, flipped, and changed in
    brightness and contrast. Held-out images are listed in MODEL.split.json and are not used.
    The model's path is printed.
    """
    from geothresh.api.train_base import train_base

    with checking(progress) as on_check, training_steps(progress) as on_step:
        result = train_base(
            data,
            output,
            plan,
            on_check=on_check,
            on_step=lambda step, steps, loss: on_step("train", step, steps, loss),
            **arguments,
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.model)
    if options.verbosity() >= 0:
        loss = on_step.recent_loss()
        print_note(
            f"{number_of(result.steps, 'step')}, {result.seconds:.0f} s on "
            f"{number_of(result.images, 'image')}"
            f"{'' if loss is None else f', {loss}'}; "
            f"{result.held_out} held out, listed in {result.split}"
        )
