"""Find on labelled maps how to refine and cut the confidences of a base network."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from geothresh.api.train import TrainCallbacks, train
from geothresh.calibration.candidates import STRENGTHS, image_free, of_model
from geothresh.calibration.choosing import Choice
from geothresh.calibration.counts import CountedMaps, MapCounter
from geothresh.calibration.file import Calibration
from geothresh.calibration.options import Calibrating
from geothresh.calibration.report import CalibrationReport
from geothresh.calibration.with_images import DENSE_CRF, MapsWithImages, with_dense_crf
from geothresh.errors import InputError, UsageError
from geothresh.evaluation.options import Maps
from geothresh.evaluation.scoring import Sample
from geothresh.fields import checked, require_only
from geothresh.files import check_output, file_digest, is_file, paths_of, require_other_files
from geothresh.nn.modelfile import THRESHNET
from geothresh.nn.packaged import find_model, packaged_models
from geothresh.nn.refiner import ModelSource
from geothresh.options import IN_THIS_PROCESS, Compute, PathLike, Progress, Refining, Tiling
from geothresh.raster.pictures import reliability_picture, write_png
from geothresh.run.labelled import Dealt, FolderMaps, SceneMaps, count_maps
from geothresh.run.models import Choose, ChosenModel, choose_model
from geothresh.training.folds import fold_model
from geothresh.training.options import FolderData, NetworkChoice, SceneData, Splitting
from geothresh.training.output import endings, training_output
from geothresh.training.recipe import RECIPES, Recipe

# Options of `Calibrating` that apply to a scene, whose places are squares.
_FOR_SCENES = ("folds", "seed", "patch", "output", "overwrite")

_OnShare: TypeAlias = Callable[[float], None]
"""Called with the share of the training that is done, 0 to 1."""


@checked()
def calibrate(
    data: PathLike | Sequence[PathLike] | SceneData,
    *,
    models: PathLike | Sequence[PathLike] | None = None,
    maps: Maps = Maps(),
    refining: Refining = Refining(),
    calibrating: Calibrating = Calibrating(),
    recipe: Recipe | None = None,
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> CalibrationReport:
    """Find on labelled maps how best to refine and cut a base network's confidences.

    The cut at 0.5 is compared with the best single threshold, with calibrations, and with models
    at several strengths, by cross-validation over places. The best one is advised if it beats the
    cut at 0.5 by more than chance would among so many (see `geothresh.calibration.choosing`), else
    the cut at 0.5. Maps are kept as histograms, a few kilobytes each.

    Args:
        data: folders with masks (``<id>_mask.png``, or ``mask/`` and ``confidence/``); or a scene
            with its labels, whose cells of 512 x 512 pixels are the maps, and squares of cells the
            places.
        models: one or several names of packaged models, or model files; None = all packaged
            models, () = none.
        maps: which maps of folders are taken, and the size of their pixels on the ground.
        refining: test-time augmentation and resolution of the models.
        calibrating: folds, places, images to compare DenseCRF with, and what is written.
        recipe: how a model is fine-tuned; None = the recipe ``tune``.
        tiling: as for `refine`.
        compute: as for `refine`, without workers.
        progress: called with (maps done, maps in all); each pass over the maps counts them again.

    Returns:
        Scores of each candidate on places that it was not fitted to, and the advice; `table()`
        shows them, `as_dict()` has all figures.

    Raises:
        UsageError: options contradict each other.
        InputError: maps, masks or images are missing, damaged, do not fit each other, or show one
            place.
        OutputError: the calibration cannot be written.
        ModelError: a model is missing or damaged.

    Example:
        >>> report = calibrate("DATA", calibrating=Calibrating(output="calibration.json"))
        >>> print(report.advice)
    """
    require_only(compute, *IN_THIS_PROCESS, why="is for `geothresh refine`")
    require_only(refining, "tta", "resolution", why="is what calibrating finds")
    scene = data if isinstance(data, SceneData) else None
    folders = [] if isinstance(data, SceneData) else _folders(data)
    _require_use(scene, maps, calibrating, recipe)
    files = _models(models)
    if not files:
        require_only(refining, why="is for models, and there is none")
    named = folders if scene is None else [*scene.scenes, *scene.labels]
    ids = () if maps.ids is None else (maps.ids,)
    output, diagram = _outputs(calibrating, [*named, *ids, *_paths(files)])

    def chooser(model: str | Path) -> Choose:
        return partial(
            choose_model, model, compute, tta=refining.tta, resolution=refining.resolution
        )

    choose = {name: chooser(model) for name, model in files.items()}
    tuning = _tuning(folders, maps, calibrating, recipe, compute.device, _paths(files))
    # Loaded before the data is read, so that faults of models are found first.
    found = {name: make() for name, make in choose.items()}
    labelled = FolderMaps.of(folders, maps) if scene is None else SceneMaps.of(scene)
    images = _images(labelled, calibrating, (output, diagram))
    counted, dealt = count_maps(labelled, choose, tiling, calibrating, progress)
    passes = 1 + len(choose)
    if images is not None:
        on_map = _map_progress(progress, labelled.number, passes)
        counted = with_dense_crf(counted, images, [fold for fold in dealt.folds if fold], on_map)
        passes += 1
    called: dict[str, str] = {}
    if tuning is not None and isinstance(labelled, FolderMaps):
        start = _best_start(counted, found)
        counted, last = _with_tuned(
            counted, labelled, dealt, tuning, chooser, start=find_model(files[start]),
            tiling=tiling, on_share=_share_progress(progress, labelled.number, passes),
        )  # fmt: skip
        found[last.stem] = chooser(last)()
        called[last.stem] = f"{start} fine-tuned"
    report = _report(
        counted, dealt, found, called, calibrating=calibrating, unit=labelled.unit, output=output,
        diagram=diagram,
    )  # fmt: skip
    if output is not None and diagram is not None:
        _draw(report, diagram)
        _calibration(report, found, refining).save(output)
    return report


def _require_use(
    scene: SceneData | None, maps: Maps, calibrating: Calibrating, recipe: Recipe | None
) -> None:
    """Refuse options that would be ignored."""
    if scene is not None:
        require_only(maps, why="is for folders of maps")
        require_only(calibrating, *_FOR_SCENES, why="is for folders of maps")
        if scene.ground_sample_distance:
            raise UsageError(
                "`ground_sample_distance` of a scene is for training; here its georeference alone "
                "tells the size of its pixels: leave it out"
            )
    maps.require_manifest()
    if recipe is not None and not calibrating.fine_tune:
        raise UsageError("`recipe` says how a model is fine-tuned; add `fine_tune=True`")


def _folders(data: PathLike | Sequence[PathLike]) -> list[Path]:
    folders = paths_of(data)
    if not folders:
        raise UsageError("no data; name a folder with masks, or a scene with `labels`")
    files = [path for path in folders if is_file(path)]
    if files:
        raise UsageError(f"{files[0]}: is a file; name its labels with `labels`")
    return folders


@dataclass(frozen=True, slots=True, kw_only=True)
class _FineTuning:
    """Data, recipe and output of a fine-tuning."""

    data: FolderData
    recipe: Recipe | None
    """None = the recipe with which `geothresh train` fine-tunes."""
    place_pattern: str | None
    seed: int
    """Seed of the folds."""
    device: str
    output: Path
    """Base of the names of the models and the files beside them."""
    overwrite: bool

    def trained(self, start: Path, dealt: Dealt, on_share: _OnShare | None) -> Path:
        """Train a model without each fold, and one on everything, whose path is returned.

        Args:
            start: the model to start from.
            dealt: the folds, which are those of the training.
            on_share: called after each step with the share of the training that is done.

        Raises:
            InputError: the data cannot be used, or has changed since it was divided into folds.
            OutputError: another model of that name exists.
        """
        recipe = RECIPES["tune"] if self.recipe is None else self.recipe
        epochs = recipe.epochs * (len(dealt.folds) + 1)

        def on_step(epoch: int, step: int, steps: int, _: float) -> None:
            if on_share is not None:
                on_share((epoch - 1 + step / steps) / epochs)

        done = train(
            self.data, self.output.with_suffix(".safetensors"),
            network=NetworkChoice(init=start), recipe=replace(recipe, seed=self.seed),
            splitting=Splitting(
                folds=len(dealt.folds), place_pattern=self.place_pattern, fold_models=True
            ),
            device=self.device, overwrite=self.overwrite,
            callbacks=TrainCallbacks(on_step=on_step),
        )  # fmt: skip
        folds = [set(ids) for ids in json.loads(done.split.read_text())["folds"]]
        if folds != [{name.rpartition("/")[2] for name in fold} for fold in dealt.folds]:
            raise InputError(f"{done.split}: the maps changed while they were read; start again")
        return done.last

    def counted(
        self, maps: FolderMaps, dealt: Dealt, choose: Callable[[Path], Choose], tiling: Tiling
    ) -> MapCounter:
        """Count the maps of each fold, refined by the model that has not seen them."""
        counter = MapCounter(1)
        name = f"{self.output.stem}.last"

        def count(sample: Sample) -> None:
            counter.add_refined(sample, name, STRENGTHS)

        for number, fold in enumerate(dealt.folds, start=1):
            model = fold_model(self.output.with_suffix(".safetensors"), number)
            maps.refined(choose(model), tiling, count, only=frozenset(fold))
        return counter


def _best_start(counted: CountedMaps, models: Mapping[str, ChosenModel]) -> str:
    """Name of the model with the highest mean IoU over places, as `refine` uses it."""

    def score(name: str) -> float:
        usual = of_model(name, models[name].scope.keep)[0]
        return float(counted.weights @ usual.fit(counted).iou(counted))

    return max(models, key=score)


def _with_tuned(
    counted: CountedMaps,
    maps: FolderMaps,
    dealt: Dealt,
    tuning: _FineTuning,
    choose: Callable[[Path], Choose],
    *,
    start: Path,
    tiling: Tiling,
    on_share: _OnShare | None,
) -> tuple[CountedMaps, Path]:
    """Add the counts of a fine-tuned model; returns them, and the file of that model.

    Args:
        counted: the maps as they are and refined by other models.
        maps: the labelled maps.
        dealt: the folds, each of which is refined by a model that has not seen it.
        tuning: data, recipe and output of the fine-tuning.
        choose: chooses a model for ``metres`` and ``width``, by its file.
        start: the model to start from.
        tiling: size, overlap and blending of tiles.
        on_share: called after each step of the training with the share that is done.

    Raises:
        InputError: the data cannot be used.
        OutputError: another model of that name exists.
    """
    last = tuning.trained(start, dealt, on_share)
    started = time.perf_counter()
    counter = tuning.counted(maps, dealt, choose, tiling)
    # Seconds per megapixel, as those of the other sources.
    seconds = (time.perf_counter() - started) / counted.megapixels
    return counted.with_sources(counter.sources(counted.ids), {last.stem: seconds}), last


def _tuning(
    folders: Sequence[Path],
    maps: Maps,
    calibrating: Calibrating,
    recipe: Recipe | None,
    device: str,
    models: Sequence[Path],
) -> _FineTuning | None:
    """The fine-tuning, or None if it is not asked for; raises as `calibrate` does."""
    if not calibrating.fine_tune or calibrating.output is None:
        return None
    if not models:
        raise UsageError("`fine_tune` starts from one of the models, and there is none; name one")
    if maps.ids is not None:
        raise UsageError(
            "`fine_tune` trains on whole folders, and `ids` names some of their maps; put these "
            "into a folder of their own"
        )
    output = Path(calibrating.output)
    model, overwrite = output.with_suffix(".safetensors"), calibrating.overwrite
    # What is in the way is found here, before the maps are scored, which takes long.
    # At most so many folds: there are fewer where there are fewer places.
    files = endings(Splitting(folds=calibrating.folds, fold_models=True))
    with training_output(model, THRESHNET, files, resume=None, overwrite=overwrite, inputs=models):
        return _FineTuning(
            data=FolderData(
                folders=folders, confidence=maps.confidence, skip_unpaired=maps.skip_unpaired,
                layout=maps.layout, resize=maps.resize,
                ground_sample_distance=maps.ground_sample_distance,
            ),
            recipe=recipe, place_pattern=calibrating.place_pattern, seed=calibrating.seed,
            device=device, output=output, overwrite=overwrite,
        )  # fmt: skip


def _share_progress(progress: Progress | None, maps: int, passes: int) -> _OnShare | None:
    """The callback of a training, which counts as one more pass over the maps."""
    if progress is None:
        return None
    before = maps * passes

    def on_share(share: float) -> None:
        progress(before + round(share * maps), before + maps)

    return on_share


def _map_progress(progress: Progress | None, maps: int, passes: int) -> Callable[[], None]:
    """The callback of one more pass over the maps, to call after each map."""
    done = maps * passes

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, maps * (passes + 1))

    return step


def _outputs(
    calibrating: Calibrating, inputs: Sequence[PathLike]
) -> tuple[Path | None, Path | None]:
    """Paths of calibration and diagram, None if not written; raises as `calibrate` does."""
    if calibrating.output is None:
        return None, None
    output = check_output(calibrating.output, overwrite=calibrating.overwrite, inputs=inputs)
    if output.suffix.lower() != ".json":
        raise UsageError(f"{output}: a calibration is JSON; name it .json")
    png = output.with_suffix(".png")
    return output, check_output(png, overwrite=calibrating.overwrite, inputs=inputs)


def _images(
    maps: FolderMaps | SceneMaps, calibrating: Calibrating, outputs: Sequence[Path | None]
) -> MapsWithImages | None:
    """The images, if asked for; refuses outputs that are one of the maps, masks or images."""
    if not isinstance(maps, FolderMaps):
        return None
    images = None
    if calibrating.images is not None:
        images = MapsWithImages.of(maps.named, Path(calibrating.images))
    read = [path for pair in maps.pairs for path in (pair.confidence, pair.mask)]
    read += () if images is None else images.images.values()
    require_other_files([path for path in outputs if path is not None], read)
    return images


def _models(models: PathLike | Sequence[PathLike] | None) -> dict[str, str | Path]:
    """Find the models, by name; UsageError where two have one name."""
    if isinstance(models, str | os.PathLike):
        models = [models]
    given = list(packaged_models()) if models is None else list(models)
    found: dict[str, str | Path] = {}
    for model in given:
        source = ModelSource.find(model if isinstance(model, str) else Path(model))
        if source.name in found:
            raise UsageError(
                f"{model}: another model is named {source.name} too; name each once, and rename "
                "one of two files"
            )
        found[source.name] = model if isinstance(model, str) else Path(model)
    return found


def _paths(models: Mapping[str, str | Path]) -> list[Path]:
    """The files of models, which must not be overwritten."""
    return [find_model(model) for model in models.values()]


def _report(
    counted: CountedMaps,
    dealt: Dealt,
    models: Mapping[str, ChosenModel],
    called: Mapping[str, str],
    *,
    calibrating: Calibrating,
    unit: str,
    output: Path | None,
    diagram: Path | None,
) -> CalibrationReport:
    """Score all candidates, and choose one."""
    candidates = image_free()
    seconds = {candidate.key: counted.seconds[""] for candidate in candidates}
    for name, model in models.items():
        with_model = of_model(name, model.scope.keep, called.get(name))
        candidates += with_model
        seconds |= {candidate.key: counted.seconds[name] for candidate in with_model}
    compared = [DENSE_CRF] if DENSE_CRF.source in counted.counts else []
    seconds |= {rival.key: counted.seconds[rival.key] for rival in compared}
    return CalibrationReport(
        choice=Choice.of(counted, candidates, _numbers(counted, dealt), compared),
        tiles=len(counted.ids),
        places=len(set(counted.places)),
        folds=len(dealt.folds),
        unit=unit,
        seconds=seconds,
        output=output,
        diagram=diagram,
    )


def _numbers(counted: CountedMaps, dealt: Dealt) -> list[list[int]]:
    """Indices of the maps that each fold holds out."""
    number = {i: k for k, i in enumerate(counted.ids)}
    return [[number[i] for i in fold] for fold in dealt.folds if fold]


def _calibration(
    report: CalibrationReport, models: Mapping[str, ChosenModel], refining: Refining
) -> Calibration:
    fitted = report.choice.fitted
    name = fitted.source.model
    packaged = packaged_models().get(name)
    # A file may have the name of a packaged model.
    is_packaged = packaged is not None and file_digest(packaged) == models[name].digest
    return Calibration(
        candidate=report.choice.best.label,
        advice=report.advice,
        model=name or None,
        model_sha256=models[name].digest if name else "",
        model_file=None if not name or is_packaged else f"{name}.safetensors",
        tta=refining.tta if name else "none",
        resolution=refining.resolution if name else "auto",
        transformation=fitted.transformation,
        figures=report.figures(),
    )


def _draw(report: CalibrationReport, diagram: Path) -> None:
    """Draw the reliability diagram of the confidences as they are and as advised."""
    outcomes, best = report.choice.outcomes, report.choice.best
    curves = {}
    for key in dict.fromkeys((report.nothing.key, best.key)):
        label = next(c.label for c in report.choice.candidates if c.key == key)
        found = outcomes[key].reliability
        curves[f"{label}: ECE {found.error:.4f}"] = [(x, y) for x, y, _ in found.points()]
    write_png(diagram, reliability_picture(curves))
