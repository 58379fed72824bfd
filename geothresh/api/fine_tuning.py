"""Fine-tune a model for `calibrate`: once without each fold, and once on all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from geothresh.api.labelled import Dealt, FolderMaps
from geothresh.api.train import TrainCallbacks, train
from geothresh.calibration.candidates import STRENGTHS, of_model
from geothresh.calibration.counts import CountedMaps, MapCounter
from geothresh.errors import InputError
from geothresh.evaluation.scoring import Sample
from geothresh.options import Tiling
from geothresh.run.models import Choose, ChosenModel
from geothresh.training.folds import fold_model
from geothresh.training.options import FolderData, NetworkChoice, Splitting
from geothresh.training.recipe import RECIPES, Recipe

Told: TypeAlias = Callable[[float], None]
"""Called with the share of the training that is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """Data, recipe and output of a fine-tuning."""

    data: FolderData
    recipe: Recipe | None
    """None = that of `geothresh train` for a start."""
    place_pattern: str | None
    seed: int
    """Of the folds."""
    device: str
    output: Path
    """Base of the names of the models and the files beside them."""
    overwrite: bool

    def trained(self, start: Path, dealt: Dealt, told: Told | None) -> Path:
        """Train a model without each fold, and one on everything, whose path is returned.

        Args:
            start: the model to start from.
            dealt: the folds, which are those of the training.
            told: called after each step with the share that is done.

        Raises:
            InputError: the data cannot be used, or changed since it was dealt.
            OutputError: there is another model of that name.
        """
        recipe = RECIPES["tune"] if self.recipe is None else self.recipe
        epochs = recipe.epochs * (len(dealt.folds) + 1)

        def on_step(epoch: int, step: int, steps: int, _: float) -> None:
            if told is not None:
                told((epoch - 1 + step / steps) / epochs)

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


def best_start(counted: CountedMaps, models: Mapping[str, ChosenModel]) -> str:
    """Name of the model with the highest mean IoU over places, as `refine` uses it."""

    def score(name: str) -> float:
        usual = of_model(name, models[name].scope.keep)[0]
        return float(counted.weights @ usual.fit(counted).iou(counted))

    return max(models, key=score)


def with_tuned(
    counted: CountedMaps,
    maps: FolderMaps,
    dealt: Dealt,
    tuning: FineTuning,
    choose: Callable[[Path], Choose],
    *,
    start: Path,
    tiling: Tiling,
    told: Told | None,
) -> tuple[CountedMaps, Path]:
    """Add the counts of a fine-tuned model; returns them, and the file of that model.

    Args:
        counted: the maps as they are and refined by other models.
        maps: the labelled maps.
        dealt: the folds, each of which is refined by a model that has not seen it.
        tuning: what is trained.
        choose: chooses a model for ``metres`` and ``width``, by its file.
        start: the model to start from.
        tiling: how maps are cut.
        told: called after each step of the training.

    Raises:
        InputError: the data cannot be used.
        OutputError: there is another model of that name.
    """
    last = tuning.trained(start, dealt, told)
    started = time.perf_counter()
    counter = tuning.counted(maps, dealt, choose, tiling)
    # Times are per megapixel.
    seconds = (time.perf_counter() - started) / counted.megapixels
    return counted.with_sources(counter.sources(counted.ids), {last.stem: seconds}), last
