"""Make out-of-fold confidence maps by base networks: files and steps of a resumable run."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from geothresh._version import __version__
from geothresh.base.config import BaseConfig, BasePlan
from geothresh.base.networks import read_base_card
from geothresh.base.predictor import BaseSource, predict_picture
from geothresh.base.pretrained import weights_name
from geothresh.base.task import BaseTask, snapshot_file, snapshot_steps
from geothresh.durability.resuming import find_state, forget_states, require_same_run
from geothresh.errors import InputError, ModelError, OutputError, names
from geothresh.files import remove_stale, write_text
from geothresh.metrics import Counts
from geothresh.nn.modelfile import beside, digest, require_seal
from geothresh.raster.image_pairs import ImagePair
from geothresh.raster.pictures import read_gray, write_png
from geothresh.splitting import read_manifest
from geothresh.training.loop import fit

#: Called after each step with fold (from 1), folds, step, steps, and the loss.
OnFoldStep = Callable[[int, int, int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossfitRun:
    """Configuration and output files of a crossfit."""

    pairs: Mapping[str, ImagePair]
    config: BaseConfig
    plan: BasePlan
    """The plan, whose recipe has the number of steps of a fold."""
    output: Path
    device: str

    @property
    def work(self) -> Path:
        """The folder of the models of the folds."""
        return self.output / f"{self.config.name}.folds"

    @property
    def manifest(self) -> Path:
        """The file that says which fold predicted which image."""
        return self.output / f"{self.config.name}.json"

    def model(self, fold: int) -> Path:
        """The model file of a fold, counted from 0."""
        return self.work / f"fold{fold + 1}.safetensors"

    def models(self, fold: int) -> dict[str, Path]:
        """Model files of a fold by the name of their maps."""
        final = self.model(fold)
        steps = snapshot_steps(self.plan.recipe.steps, self.plan.snapshots)
        return {
            **{f"{self.config.name}-step{s:05}": snapshot_file(final, s) for s in steps},
            self.config.name: final,
        }

    def folder(self, name: str, dataset: str) -> Path:
        """Folder of the maps of a data set, for `train --confidence`."""
        return self.output / dataset / name if len(self.datasets) > 1 else self.output / name

    def map(self, name: str, i: str) -> Path:
        """The map of image `i` by the models called `name`."""
        return self.folder(name, self.pairs[i].dataset) / f"{i}.png"

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, sorted."""
        return sorted({pair.dataset for pair in self.pairs.values()})

    @property
    def folders(self) -> dict[str, list[Path]]:
        """Folders of maps, one for each data set, by the name of the maps."""
        return {name: [self.folder(name, d) for d in self.datasets] for name in self.models(0)}

    @property
    def all_folders(self) -> list[Path]:
        """The folder of the models, and those of the maps."""
        return [self.work, *(folder for of_name in self.folders.values() for folder in of_name)]

    @property
    def described(self) -> dict[str, Any]:
        """Network and recipe, for the manifest."""
        return {
            "config": self.config.as_dict(),
            "encoder_weights": weights_name(self.plan.encoder_weights),
            "recipe": self.plan.recipe.as_dict(),
            "snapshots": self.plan.snapshots,
        }

    @property
    def made(self) -> Iterator[Path]:
        """The existing maps, models and states, which a new run replaces."""
        for folder in self.all_folders:
            for pattern in ("*.png", "fold*.safetensors"):
                yield from folder.glob(pattern)

    def make_folders(self, overwrite: bool) -> None:
        """Make all folders.

        Raises:
            OutputError: there are maps or models but no manifest, or a folder cannot be made.
        """
        try:
            for folder in self.all_folders:
                folder.mkdir(parents=True, exist_ok=True)
            first = next(self.made, None)
            # A run that was stopped has its manifest, which is written before anything else.
            if first is not None and not overwrite and not self.manifest.exists():
                raise OutputError(
                    f"{first.parent}: holds {'maps' if first.suffix == '.png' else 'models'} of an "
                    f"earlier run, but its manifest {self.manifest} is missing; put that back, "
                    "choose another folder, or add `overwrite=True`"
                )
        except OSError as error:
            raise OutputError(f"{self.output}: cannot be written ({error.strerror})") from error

    def remove_stale(self) -> None:
        """Remove temporary files of killed runs."""
        for folder in (self.output, *self.all_folders):
            remove_stale(folder)

    def begin(self, described: Mapping[str, Any], overwrite: bool) -> list[float]:
        """Start the manifest, or check that the existing one is of the same run.

        Returns:
            Seconds of training of each fold; 0 for a fold that is not trained yet.

        Raises:
            OutputError: the manifest is of another run.
            InputError: the file is no manifest.
        """
        if overwrite or not self.manifest.exists():
            for file in list(self.made):
                file.unlink()
            self.write_manifest({**described, "complete": False})
            return [0.0] * len(described["folds"])
        try:
            earlier = read_manifest(self.manifest)
            seconds = [float(fold.get("seconds", 0)) for fold in earlier["folds"]]
            earlier["folds"] = [{"ids": fold["ids"]} for fold in earlier["folds"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.manifest}: not the manifest of a run ({error!r}); add `overwrite=True` to "
                "start anew"
            ) from error
        noted = {key: earlier.get(key) for key in described}
        require_same_run(self.manifest, noted, described, error=OutputError)
        return seconds

    def write_manifest(self, values: Mapping[str, Any]) -> None:
        """Write the manifest."""
        text = json.dumps({"geothresh": __version__, **values}, indent=1) + "\n"
        write_text(self.manifest, text)

    def train(
        self,
        fold: int,
        dealt: Sequence[Sequence[str]],
        data: str,
        on_step: OnFoldStep | None = None,
    ) -> float | None:
        """Train the network of a fold unless its models exist.

        Args:
            fold: number of the fold, from 0.
            dealt: ids of each fold.
            data: digest of all data.
            on_step: progress callback.

        Returns:
            Seconds of training; None if the models existed.
        """
        model, ids = self.model(fold), dealt[fold]
        states = beside(model, ".state.safetensors")
        if all(file.exists() for file in self.models(fold).values()):
            # A run that was killed after writing its last model leaves its state.
            forget_states(states)
            return None
        training = sorted(self.pairs.keys() - set(ids))
        state = find_state(states, require_seal)
        task = BaseTask(
            [self.pairs[i] for i in training], model, config=self.config, plan=self.plan,
            data={"sha256": data, "train": training, "left_out": list(ids)},
            device=self.device, resumed=state is not None,
        )  # fmt: skip

        def report(_: int, step: int, steps: int, loss: float) -> None:
            if on_step is not None:
                on_step(fold + 1, len(dealt), step, steps, loss)

        return fit(task, model, state=state, on_step=report).seconds

    def predict(self, fold: int, ids: Sequence[str], on_map: Callable[[], None]) -> None:
        """Write the missing maps of a fold.

        Raises:
            ModelError: a model of the fold was trained on an image of the fold.
        """
        for name, model in self.models(fold).items():
            missing = [i for i in ids if not self.map(name, i).exists()]
            if missing:
                seen = read_base_card(model).trained_ids & set(ids)
                if seen:
                    raise ModelError(
                        f"{model}: was trained on {len(seen)} images of the fold that it is to "
                        f"predict ({names(seen, 3)}); start anew with `overwrite`"
                    )
                precision = self.plan.recipe.precision
                source = BaseSource.find(model, device=self.device, precision=precision)
                predictor = source.load()
            for i in ids:
                if i in missing:
                    picture = predict_picture(predictor, self.pairs[i].read_image())
                    write_png(self.map(name, i), picture)
                on_map()

    def described_models(self, fold: int) -> dict[str, dict[str, str]]:
        """Files and sha256 of a fold's models, by the name of their maps."""
        return {
            name: {"file": str(file.relative_to(self.output)), "sha256": digest(file)}
            for name, file in self.models(fold).items()
        }

    def scores(self, name: str) -> dict[str, dict[str, float]]:
        """Scores of maps cut at 0.5, by data set: ``miou`` and ``iou_pooled``, 0 to 1."""
        counts: dict[str, list[Counts]] = defaultdict(list)
        for i, pair in self.pairs.items():
            foreground = read_gray(self.map(name, i)) >= np.uint8(128)
            truth = pair.read_truth()
            counts[pair.dataset].append(Counts.of(prediction=foreground, target=truth))
        return {
            dataset: {
                "miou": fmean(c.iou() for c in of_maps),
                "iou_pooled": sum(of_maps, Counts()).iou(),
            }
            for dataset, of_maps in counts.items()
        }
