"""``geothresh base crossfit``: confidence maps by networks that have not seen the place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geothresh.base.config import BasePlan, ImageData
from geothresh.cli import options
from geothresh.cli.base.shared import training_options
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import checking, reporting, training_steps
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import PATH
from geothresh.errors import number_of

if TYPE_CHECKING:
    from geothresh.api.crossfit import CrossfitResult


@click.command(
    cls=HelpfulCommand,
    common=("output", "network", "encoder", "steps", "folds", "device", "overwrite"),
    examples={
        "Maps of all images, each by a network trained on three quarters of the others": (
            "geothresh base crossfit DATA -o maps --folds 4"
        ),
    },
)
@training_options
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="DIR",
    help="Folder for the maps, the manifest and the models.",
)  # fmt: skip
@click.option(
    "--folds", type=click.IntRange(min=2), default=2, show_default=True, metavar="K",
    help="Number of folds of the data; each is predicted by a network trained on the others.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Start anew where there is an earlier run.")
def crossfit(
    data: ImageData,
    output: Path,
    plan: BasePlan,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Write out-of-fold confidence maps of the images in DATA.

    DATA are folders with <id>_sat.jpg and <id>_mask.png. The places are divided into K folds. For
    each fold, a network is trained on all the others and predicts it, so that no map is made by a
    network that has seen its place. `geothresh train` learns from such maps of all labelled data.

    The maps are DIR/<network>-<encoder>/<id>.png, or with several DATA DIR/<name of DATA>/..., and
    can be given to `geothresh train --confidence`. Run the same command again to resume a run that
    was stopped. The folders of the maps are printed.
    """
    from geothresh.api.crossfit import crossfit as run

    with (
        checking(progress) as on_check,
        training_steps(progress) as on_step,
        reporting(progress, "predict", unit="map") as on_map,
    ):
        result = run(
            data,
            output,
            plan,
            on_check=on_check,
            on_map=on_map,
            on_step=lambda fold, folds, step, steps, loss: on_step(
                f"fold {fold}/{folds}", step, steps, loss
            ),
            **arguments,
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    for folders in result.maps.values():
        for folder in folders:
            print_result(folder)
    if options.verbosity() >= 0:
        for line in summary(result):
            print_note(line)


def summary(result: CrossfitResult) -> list[str]:
    """A summary for people, in a few lines."""
    lines = [
        f"{number_of(result.images, 'image')}, {result.folds} folds of "
        f"{number_of(result.steps, 'step')} each, {result.seconds:.0f} s of training; "
        f"manifest {result.manifest}"
    ]
    for name, scores in result.scores.items():
        for dataset, score in scores.items():
            lines.append(
                f"{name} on {dataset}: miou {100 * score['miou']:.1f}, pooled IoU "
                f"{100 * score['iou_pooled']:.1f} at 0.5"
            )
    return lines
