"""``geothresh train``: train a model on maps and masks, or on scenes and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import checking, training_steps
from geothresh.cli.recipe import recipe as recipe_options
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import PATH
from geothresh.errors import UsageError, number_of
from geothresh.files import is_file
from geothresh.options import Reading
from geothresh.training.options import (
    SCENE_LABELS,
    SCENE_READING,
    FolderData,
    NetworkChoice,
    SceneData,
    Splitting,
)
from geothresh.training.recipe import Recipe

if TYPE_CHECKING:
    from geothresh.api.train import TrainResult


@click.command(
    cls=HelpfulCommand,
    common=(
        "output",
        "confidence",
        "labels",
        "init",
        "preset",
        "epochs",
        "hold_out",
        "folds",
        "device",
        "overwrite",
    ),
    examples={
        "On masks and the maps of two base networks, in folders": (
            "geothresh train DATA --confidence DATA/confidence/unet \\\n"
            "    --confidence DATA/confidence/linknet -o model.safetensors"
        ),
        "On a scene and road lines with 3.5 m to each side, from a packaged model": (
            "geothresh train scene.tif --labels roads.gpkg --buffer 3.5 \\\n"
            "    --aoi aoi.geojson --init roads -o model.safetensors"
        ),
    },
)
@click.argument("data", type=PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=PATH, required=True,
    help="File for the model of the best epoch, MODEL.safetensors. The last epoch's model, the "
    "state to resume from, the log (CSV) and the split are written beside it.",
)  # fmt: skip
@options_of(FolderData, "maps", make=dict)
@options_of(SceneData, "scenes", only=SCENE_LABELS, make=dict)
@options_of(Reading, "reading", only=SCENE_READING)
@options_of(NetworkChoice, "network", make=dict)
@recipe_options
@options_of(Splitting, "splitting")
@click.option(
    "--loader-workers", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Processes that prepare chips.",
)  # fmt: skip
@options.device
@options.resume
@options.overwrite
@options.as_json
@options.progress
@options.common
def train(
    data: tuple[Path, ...],
    output: Path,
    *,
    maps: dict[str, Any],
    scenes: dict[str, Any],
    reading: Reading,
    network: dict[str, Any],
    recipe: Recipe,
    splitting: Splitting,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Train a ThreshNet on confidence maps and masks, or on confidence rasters and labels.

    DATA are folders with <id>_mask.png, with folders mask/ and confidence/, or as --layout says.
    Or DATA are scenes (confidence rasters as `geothresh refine` takes them) whose ground truth is
    given with --labels. The confidences must come from networks that were not trained on the same
    images. Run the same command again to resume a training that was stopped.
    """
    from geothresh.api.train import TrainCallbacks
    from geothresh.api.train import train as run

    folds = splitting.folds
    if folds is not None and options.was_given("validation_fraction"):
        raise UsageError(
            "`folds` holds every place out in turn, and `validation_fraction` says what to "
            "validate on; give one or the other"
        )
    # There is a run for each fold, and one for the model.
    epochs = recipe.epochs * (1 + (folds or 0))
    # With --init the head is that of the initial model, unless --head is given.
    head = recipe.head if options.was_given("head") else None
    with checking(progress) as on_check, training_steps(progress) as steps:

        def on_step(epoch: int, step: int, n_steps: int, loss: float) -> None:
            done = (epoch - 1) * n_steps + step
            steps(f"epoch {epoch}/{epochs}", done, epochs * n_steps, loss)

        result = run(
            _data(data, maps, scenes, reading),
            output,
            network=NetworkChoice(head=head, **network),
            recipe=recipe,
            splitting=splitting,
            callbacks=TrainCallbacks(on_check=on_check, on_step=on_step, on_epoch=steps.tell_epoch),
            **arguments,
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.model)
    scores = steps.scores(result.best_epoch)
    if scores is not None and options.verbosity() >= 0:
        print_note(f"best epoch {result.best_epoch}: {scores}")
    if options.verbosity() >= 0:
        print_note(
            f"{number_of(result.epochs, 'epoch')}, {number_of(result.steps, 'step')}, "
            f"{result.seconds:.0f} s on {result.train_maps} {result.unit}; "
            f"{_chosen(result, folds)}; log {result.log}"
        )
        if result.tuning is not None:
            for line in (*result.tuning.lines(), result.tuning.sentence()):
                print_note(line)


def _chosen(result: TrainResult, folds: int | None) -> str:
    """Describe the epoch that was kept, or the folds."""
    units = "maps" if result.unit == "maps" else "tiles"
    if folds is not None:
        return f"{result.validation_maps} {units} held out in {folds} folds"
    return f"best epoch {result.best_epoch} on {result.validation_maps} validation {units}"


def _data(
    data: tuple[Path, ...], maps: dict[str, Any], scenes: dict[str, Any], reading: Reading
) -> FolderData | SceneData:
    """Make the data of the arguments: scenes or folders; options for the other kind are refused."""
    both = {"ground_sample_distance": maps["ground_sample_distance"]}
    if scenes["labels"] or any(map(is_file, data)):
        options.refuse(
            maps.keys() - both.keys(), f"is for folders with masks, and {data[0]} is a scene"
        )
        return SceneData(scenes=data, reading=reading, **scenes, **both)
    options.refuse(
        (*scenes, *SCENE_READING), f"is for scenes with labels, and {data[0]} is a folder"
    )
    return FolderData(folders=data, **maps)
