"""Train a ThreshNet: check and split the data, fit the network, keep the best epoch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geothresh.errors import UsageError
from geothresh.fields import (
    Function,
    Options,
    Value,
    checked,
    known,
    option,
    plain,
    require,
    require_only,
)
from geothresh.files import is_file, write_text
from geothresh.nn.config import NetworkConfig
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.modelfile import THRESHNET, beside
from geothresh.nn.packaged import find_model
from geothresh.nn.scope import ENTRY
from geothresh.splitting import Split
from geothresh.training.data import OnCheck, Pixels, TrainingData
from geothresh.training.folder_data import gather_folders
from geothresh.training.folds import FoldsTask
from geothresh.training.loop import OnEpoch, OnStep
from geothresh.training.options import (
    FOR_FOLDERS,
    FOR_SCENES,
    FolderData,
    NetworkChoice,
    SceneData,
    Splitting,
)
from geothresh.training.output import TrainingOutput, endings, training_output
from geothresh.training.recipe import Recipe, recipe_of, usual_recipe
from geothresh.training.scene_data import gather_scenes
from geothresh.training.sizes import choose_sizes, preset_of, require_batch
from geothresh.training.start import Start
from geothresh.training.state import Progress
from geothresh.training.threshnet import ThreshNetTask
from geothresh.training.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCallbacks(Options):
    """Progress callbacks of a training."""

    on_check: OnCheck | None = option(
        None, "Called with (parts of the data checked, parts in all).", Function()
    )
    on_step: OnStep | None = option(
        None,
        "Called after each step with epoch (from 1), step within it, steps of an epoch, and loss.",
        Function(),
    )
    on_epoch: OnEpoch | None = option(
        None, "Called after each epoch with its row of the log.", Function()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """Paths of the model and the files beside it, and statistics of the training."""

    model: Path
    """Model of the best epoch by the mean of validation miou and Boundary IoU; with folds, of the
    last epoch."""
    last: Path
    """Model of the last epoch."""
    log: Path
    """The log, CSV with one line per epoch."""
    split: Path
    """Manifest of the ids on each side of the split."""
    epochs: int
    best_epoch: int
    """0 = the initial model, if no epoch was better."""
    steps: int
    seconds: float
    train_maps: int
    """Number of training maps; for scenes, of training blocks."""
    validation_maps: int
    """Number of validation maps; for scenes, of validation tiles."""
    unit: Literal["maps", "blocks"] = "maps"
    """Unit of `train_maps`."""
    tuning: Tuning | None = None
    """Gain on the held-out maps over the cut at 0.5 and over the initial model; None where there is
    neither an initial model nor folds."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@checked()
def train(
    data: FolderData | SceneData | str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    network: NetworkChoice = NetworkChoice(),
    recipe: Recipe | str | None = None,
    splitting: Splitting = Splitting(),
    resume: bool | None = None,
    overwrite: bool = False,
    device: str = "auto",
    loader_workers: int = 0,
    callbacks: TrainCallbacks = TrainCallbacks(),
) -> TrainResult:
    """Train a ThreshNet on confidence maps and their masks, or on scenes and their labels.

    The maps must come from base networks that have not been trained on the same images (section
    4.1 of the paper): those of the validation set, or out-of-fold maps.

    A model to start from is scored on the held-out maps first, as epoch 0, and it is what is
    written if no epoch is better. Its theme is taken over, and where the data does not tell the
    size of its pixels, its pixel sizes.

    Args:
        data: maps and masks, or scenes and labels; paths are folders with masks.
        output: the model file, ``.safetensors``. Beside it come ``.last.safetensors``,
            ``.state.safetensors`` and ``.state.previous.safetensors`` (to go on from), ``.csv`` and
            ``.split.json``.
        network: size of the network, and the initial model.
        recipe: hyperparameters, or the name of a recipe: ``paper``, ``best`` or ``tune``; None =
            ``tune`` where there is a model to start from, or else ``best``.
        splitting: the held-out places; by default they are drawn. With folds each place is held
            out once, in a training of its own, and the model is trained on all of them.
        resume: True goes on with the run that was stopped and fails where there is none; None goes
            on with it if there is one, so that the same call again is all it takes; False never
            does.
        overwrite: start anew and replace an existing model and the files beside it.
        device: auto, cpu, cuda, cuda:i or mps.
        loader_workers: processes that prepare chips.
        callbacks: progress callbacks.

    Returns:
        The model and the files beside it, and how many maps or tiles it was trained on.

    Raises:
        InputError: the data cannot be used.
        OutputError: the output exists or cannot be written, or another run is making it.
        UsageError: options contradict each other.
        ModelError: the state or the initial model does not fit.

    Example:
        >>> data = FolderData(folders=["DATA"], confidence=["DATA/confidence/unet"])
        >>> train(data, "model.safetensors", network=NetworkChoice(init="roads")).best_epoch
        7
    """
    given = _data(data)
    recipe = usual_recipe(network.init) if recipe is None else recipe
    recipe = recipe_of(recipe) if isinstance(recipe, str) else recipe
    require("recipe", recipe, Value((Recipe,)))
    start = None if network.init is None else find_model(network.init)
    with training_output(
        output, THRESHNET, endings(splitting), resume=resume,
        # The initial model must not be overwritten: a resumed run, and its card, refer to it.
        overwrite=overwrite, inputs=() if start is None else (start,),
    ) as making:  # fmt: skip
        # All other errors are found before the data is read, which takes long.
        config = choose_sizes(network, recipe, start)
        smooth = recipe.smooth or (start is not None and Start.of(start).scope.smooth)
        recipe = dataclasses.replace(
            recipe, head=config.head, branches=config.branches, smooth=smooth
        )
        _check_recipe(recipe, config, device)
        splitting = _known_splitting(making, splitting, config, recipe)
        gathered = _gather(
            given, splitting, Pixels.of(given.ground_sample_distance, network.resolution),
            recipe=recipe, patch=config.patch, progress=callbacks.on_check,
        )  # fmt: skip
        facts = _facts(gathered, config, start, smooth=recipe.smooth)
        manifest = beside(making.model, ".split.json")

        def keep_split() -> None:
            # A resumed run has its manifest; without a state it would be that of another run.
            if making.state is None or not manifest.exists():
                write_text(manifest, gathered.manifest)

        made: list[ThreshNetTask] = []

        def make() -> ThreshNetTask:
            made.append(
                _task(gathered, making.model, config=config, recipe=recipe, facts=facts,
                      init=start, device=device, loader_workers=loader_workers,
                      keep_folds=splitting.fold_models)
            )  # fmt: skip
            return made[0]

        progress = making.fit(
            make, on_begin=keep_split, on_step=callbacks.on_step, on_epoch=callbacks.on_epoch
        )
        unit: Literal["blocks", "maps"] = "blocks" if isinstance(given, SceneData) else "maps"
        return _result(making.model, gathered, progress, made[0].tuning, unit)


def _result(
    model: Path,
    gathered: TrainingData,
    progress: Progress,
    tuning: Tuning | None,
    unit: Literal["maps", "blocks"],
) -> TrainResult:
    """The result of a finished run."""
    return TrainResult(
        model=model,
        last=beside(model, ".last.safetensors"),
        log=beside(model, ".csv"),
        split=beside(model, ".split.json"),
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        steps=progress.step,
        seconds=progress.seconds,
        train_maps=gathered.n_train,
        validation_maps=gathered.n_validation,
        unit=unit,
        tuning=tuning,
    )


def _task(
    gathered: TrainingData, output: Path, *, keep_folds: bool, **options: Any
) -> ThreshNetTask:
    """The task of one training, or of one for each fold and a last one."""
    if gathered.folds:
        return FoldsTask(gathered.folds, gathered.train, output, keep_folds=keep_folds, **options)
    return ThreshNetTask(gathered.train, gathered.validation, output, **options)


def _data(
    data: FolderData | SceneData | str | Path | Sequence[str | Path],
) -> FolderData | SceneData:
    """Make the data of paths; an object of data is returned as it is."""
    if isinstance(data, FolderData | SceneData):
        return data
    paths = [data] if isinstance(data, str | Path) else list(data)
    is_scene = any(map(is_file, paths))
    return SceneData(scenes=paths, labels=()) if is_scene else FolderData(folders=paths)


def _facts(
    gathered: TrainingData, config: NetworkConfig, start: Path | None, *, smooth: bool
) -> dict[str, Any]:
    """Facts about the run for the model file and the state, besides network and recipe."""
    facts: dict[str, Any] = {"preset": preset_of(config), "data": gathered.described}
    if smooth:
        facts["smooth"] = True
    if gathered.resolution is not None:
        facts[ENTRY] = [gathered.resolution.least, gathered.resolution.greatest]
    if start is not None:
        model = Start.of(start)
        sides = json.loads(gathered.manifest)
        model.warn_of_seen(sides["train"] if gathered.folds else sides["validation"])
        facts = {**model.facts(gathered.resolution), **facts}
    return facts


def _check_recipe(recipe: Recipe, config: NetworkConfig, device: str) -> None:
    pick_dtype(recipe.precision, pick_device(device))
    recipe.require_whole_patches(config.patch)
    require_batch(
        config,
        chip_size=recipe.chip_size,
        batch_size=recipe.batch_size,
        # By default as many as there are maps, a number that is known only when they are read.
        n_chips=recipe.chips_per_epoch or 2,
    )


def _known_splitting(
    making: TrainingOutput, splitting: Splitting, config: NetworkConfig, recipe: Recipe
) -> Splitting:
    """The splitting as given; a resumed run for which none is given follows its own split.

    Raises:
        ModelError: the run was started with another network or recipe.
        InputError: the manifest is not a split manifest.
    """
    saved, manifest = making.saved, beside(making.model, ".split.json")
    if saved is not None:
        # Checked before the data is read, which takes long; the data itself is compared later.
        known = {"config": config.as_dict(), "recipe": recipe.as_dict()}
        saved.require_same({**saved.run, **known})
        drawn = splitting.folds is None and splitting.split is None and not splitting.given
        if drawn and manifest.exists():
            splitting = dataclasses.replace(splitting, split=manifest)
    if splitting.split is not None:
        Split.load(Path(splitting.split))
    return splitting


def _gather(
    data: FolderData | SceneData,
    splitting: Splitting,
    pixels: Pixels,
    *,
    recipe: Recipe,
    patch: int,
    progress: OnCheck | None,
) -> TrainingData:
    """Open, check and split the data; options for the other kind of data are refused."""
    scenes = isinstance(data, SceneData)
    paths = data.scenes if isinstance(data, SceneData) else data.folders
    if not paths:
        raise UsageError("no data; name folders with masks, or confidence rasters with `labels`")
    strange = FOR_FOLDERS if scenes else FOR_SCENES
    why = f"is for {'folders with masks' if scenes else 'scenes with labels'}, and {paths[0]} is "
    why += "a scene" if scenes else "a folder"
    require_only(splitting, *set(known(splitting)) - {*strange}, why=why)
    if isinstance(data, FolderData):
        return gather_folders(data, splitting, pixels, seed=recipe.seed, progress=progress)
    return gather_scenes(
        data,
        splitting,
        pixels,
        seed=recipe.seed,
        patch=patch,
        chip_size=recipe.chip_size,
        largest=recipe.chip_size * recipe.zoom,
        progress=progress,
    )
