"""``geothresh train``: a model from confidence maps and masks, or from scenes and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geothresh.cli import options
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import checking, training_steps
from geothresh.cli.recipe import recipe as recipe_options
from geothresh.cli.scenes import SCENE_OPTIONS
from geothresh.cli.scenes import scenes as scene_options
from geothresh.cli.terminal import give, say
from geothresh.cli.values import PATH, SizeRange
from geothresh.errors import UsageError
from geothresh.training.recipe import VALIDATION_FRACTION, Recipe

if TYPE_CHECKING:
    from geothresh.api.train import TrainResult
    from geothresh.training.data import FolderData, SceneData


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
    help="The model, MODEL.safetensors: the best epoch. The last epoch, the state to resume from, "
    "the log (CSV) and the split come beside it.",
)  # fmt: skip
@click.option(
    "--confidence", type=PATH, multiple=True, metavar="DIR",
    help="Confidence maps of one base network, <id>.png or .tif; may be repeated. The default is "
    "confidence/ in each DATA.",
)  # fmt: skip
@scene_options
@click.option(
    "--preset", type=click.Choice(["full", "small"]),
    help="Size of the network; full is the paper's and wants a GPU.  [default: that of --init, or "
    "small]",
)  # fmt: skip
@click.option(
    "--patch", type=click.Choice(["16", "32", "64", "128", "256"]),
    help="Side of a patch that has its own threshold, in pixels.  [default: that of --init, or 64]",
)  # fmt: skip
@click.option(
    "--init", metavar="NAME|FILE",
    help="Start from this model: a packaged one (see `geothresh model list`) or a .safetensors "
    "file. It is scored first, and stays the model if no epoch is better.",
)  # fmt: skip
@click.option(
    "--ground-sample-distance", "--gsd", type=SizeRange(), metavar="M|MIN,MAX",
    multiple=True,
    help="Size of a pixel of DATA on the ground in metres, or the least and the greatest; may be "
    "repeated, one for each DATA. Kept in the model, which `geothresh refine` compares with its "
    "scenes.  [default: what scenes tell, or else that of --init]",
)  # fmt: skip
@click.option(
    "--resolution", type=click.FloatRange(min=0, min_open=True), metavar="METRES",
    help="Train on pixels of this size: all DATA is resampled to it, from its ground sample "
    "distance.  [default: DATA as it is]",
)  # fmt: skip
@recipe_options
@click.option(
    "--split", type=PATH, help="Follow this manifest, MODEL.split.json of another run."
)  # fmt: skip
@click.option(
    "--validation-fraction", type=click.FloatRange(0, 1, max_open=True),
    default=VALIDATION_FRACTION, show_default=True, help="Share of places to validate on.",
)  # fmt: skip
@click.option(
    "--folds", type=click.IntRange(min=2), metavar="K",
    help="For few maps: hold every place out once, in K trainings, then train the model on all of "
    "them. What the held-out places gain is printed.",
)  # fmt: skip
@click.option(
    "--hold-out", multiple=True, metavar="GLOB",
    help="Validate on the ids that match, such as 'testing_*'; may be repeated. A DATA with a "
    "match is split by it alone.",
)  # fmt: skip
@click.option(
    "--place-pattern", metavar="REGEX",
    help="Ids with the same first group are one place and stay on one side.",
)  # fmt: skip
@click.option("--skip-unpaired", is_flag=True, help="Leave out maps and masks without a partner.")
@click.option(
    "--loader-workers", type=click.IntRange(min=0), default=0, show_default=True,
    help="Processes that prepare chips.",
)  # fmt: skip
@options.device
@click.option(
    "--resume/--no-resume", default=None,
    help="Go on with the run that was stopped; by default where there is one of the same output. "
    "--resume fails where there is none, --no-resume refuses it as any file in the way.",
)  # fmt: skip
@options.overwrite
@options.as_json
@options.progress
@options.common
def train(  # noqa: PLR0913 - click hands over one argument for each option
    data: tuple[Path, ...],
    output: Path,
    *,
    confidence: tuple[Path, ...],
    scenes: dict[str, Any],
    preset: str | None,
    patch: str | None,
    init: str | None,
    ground_sample_distance: tuple[tuple[float, float], ...],
    resolution: float | None,
    recipe: Recipe,
    split: Path | None,
    validation_fraction: float,
    folds: int | None,
    hold_out: tuple[str, ...],
    place_pattern: str | None,
    skip_unpaired: bool,
    loader_workers: int,
    device: str,
    resume: bool | None,
    overwrite: bool,
    as_json: bool,
    progress: str,
) -> None:
    """Train a ThreshNet on confidence maps and masks, or on confidence rasters and labels.

    DATA are folders with <id>_mask.png (DeepGlobe's layout) or with folders mask/ and confidence/.
    Or they are scenes, confidence rasters as `geothresh refine` takes them, and --labels says what
    is on the ground. The confidences must come from networks that were not trained on the same
    images. The same command again goes on where it was stopped.
    """
    from geothresh.api.train import TrainCallbacks
    from geothresh.api.train import train as run
    from geothresh.training.data import Splitting
    from geothresh.training.sizes import NetworkChoice

    if folds is not None and options.was_given("validation_fraction"):
        raise UsageError(
            "`folds` holds every place out in turn, and `validation_fraction` says what to "
            "validate on; give one or the other"
        )
    # Of a run for each fold, and one for the model.
    epochs = recipe.epochs * (1 + (folds or 0))
    with checking(progress) as on_check, training_steps(progress) as steps:

        def on_step(epoch: int, step: int, n_steps: int, loss: float) -> None:
            done = (epoch - 1) * n_steps + step
            steps(f"epoch {epoch}/{epochs}", done, epochs * n_steps, loss)

        result = run(
            _data(data, confidence, skip_unpaired, ground_sample_distance, scenes),
            output,
            network=NetworkChoice(
                preset=preset,
                patch=None if patch is None else int(patch),
                head=recipe.head if options.was_given("head") else None,
                init=init,
                resolution=resolution,
            ),
            recipe=recipe,
            splitting=Splitting(
                fraction=validation_fraction,
                manifest=split,
                hold_out=hold_out,
                place_pattern=place_pattern,
                aoi=scenes["validation_aoi"],
                block_size=scenes["block_size"],
                folds=folds,
            ),
            resume=resume,
            overwrite=overwrite,
            device=device,
            loader_workers=loader_workers,
            callbacks=TrainCallbacks(on_check=on_check, on_step=on_step, on_epoch=steps.tell_epoch),
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    give(result.model)
    scores = steps.scores(result.best_epoch)
    if scores is not None and options.verbosity() >= 0:
        say(f"best epoch {result.best_epoch}: {scores}")
    if options.verbosity() >= 0:
        say(
            f"{result.epochs} epochs, {result.steps} steps, {result.seconds:.0f} s on "
            f"{result.train_maps} {result.unit}; {_chosen(result, folds)}; log {result.log}"
        )
        if result.tuning is not None:
            for line in (*result.tuning.lines(), result.tuning.sentence()):
                say(line)


def _chosen(result: TrainResult, folds: int | None) -> str:
    """Which epoch the model is of."""
    units = "maps" if result.unit == "maps" else "tiles"
    if folds is not None:
        return f"{result.validation_maps} {units} held out in {folds} folds"
    return f"best epoch {result.best_epoch} on {result.validation_maps} validation {units}"


def _data(
    data: tuple[Path, ...],
    confidence: tuple[Path, ...],
    skip_unpaired: bool,
    ground_sample_distance: tuple[tuple[float, float], ...],
    scenes: dict[str, Any],
) -> FolderData | SceneData:
    """Rasters with labels, or folders with masks; an option that is for the other is refused."""
    from geothresh.options import Reading
    from geothresh.training.data import FolderData, SceneData

    own = {name: scenes[name] for name in SCENE_OPTIONS}
    if own["labels"] or any(path.is_file() for path in data):
        strange = ["confidence"] * bool(confidence) + ["skip_unpaired"] * skip_unpaired
        kinds = "folders with masks", "a scene"
    else:
        strange = [name for name in own if options.was_given(name)]
        kinds = "scenes with labels", "a folder"
    if strange:
        raise UsageError(
            f"--{strange[0].replace('_', '-')} is for {kinds[0]}, and {data[0]} is {kinds[1]}; "
            "leave it out"
        )
    if kinds[1] == "a folder":
        return FolderData(
            folders=data,
            confidence=confidence,
            skip_unpaired=skip_unpaired,
            ground_sample_distance=ground_sample_distance,
        )
    reading = Reading(**{name: own.pop(name) for name in ("bidx", "scale", "nodata")})
    return SceneData(
        scenes=data, reading=reading, ground_sample_distance=ground_sample_distance, **own
    )
