"""Out-of-fold confidence maps of a whole data set, by base networks that have not seen the place.

Every file appears whole, and what is there is not made again: a run that was stopped goes on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from geothresh._version import __version__
from geothresh.api.pictures import predict_picture
from geothresh.base.checkpoint import read_base_card
from geothresh.base.config import BaseConfig, BaseRecipe
from geothresh.base.folds import folds_of
from geothresh.base.loop import fit, snapshot_file, snapshot_steps
from geothresh.base.networks import describe_network
from geothresh.base.predictor import load_base
from geothresh.base.pretrained import weights_name
from geothresh.errors import InputError, ModelError, OutputError, names
from geothresh.files import remove_stale, write_text
from geothresh.locks import only_run
from geothresh.metrics import Counts
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.modelfile import beside, digest
from geothresh.nn.states import find_state, forget_states
from geothresh.raster.imagery import ImagePair, check_images, digest_of, find_images
from geothresh.raster.images import read_gray, write_png
from geothresh.raster.pairs import read_mask
from geothresh.splitting import read_manifest

#: Called after each step with fold (from 1), folds, step, steps, and the loss.
OnFoldStep = Callable[[int, int, int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossfitResult:
    """Where the maps are, and what they score against the masks."""

    maps: dict[str, list[Path]]
    """Folders of maps by name: the network at the end, and its snapshots."""
    manifest: Path
    """JSON: which fold predicted which ids, and from what it learnt."""
    images: int
    folds: int
    steps: int
    """Of each fold."""
    scores: dict[str, dict[str, dict[str, float]]]
    """By name of the maps and data set: ``miou`` and ``iou_pooled`` at 0.5, in [0, 1]."""
    seconds: float
    """Spent training, in all runs together."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            **asdict(self),
            "maps": {name: [str(f) for f in folders] for name, folders in self.maps.items()},
            "manifest": str(self.manifest),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What all folds share."""

    pairs: dict[str, ImagePair]
    config: BaseConfig
    recipe: BaseRecipe
    snapshots: int
    output: Path
    many_datasets: bool

    @property
    def work(self) -> Path:
        return self.output / f"{self.config.name}.folds"

    @property
    def manifest(self) -> Path:
        return self.output / f"{self.config.name}.json"

    def model(self, fold: int) -> Path:
        return self.work / f"fold{fold + 1}.safetensors"

    def models(self, fold: int) -> dict[str, Path]:
        """Model files of a fold by the name of their maps."""
        final = self.model(fold)
        steps = snapshot_steps(self.recipe.steps, self.snapshots)
        return {
            **{f"{self.config.name}-step{s:05}": snapshot_file(final, s) for s in steps},
            self.config.name: final,
        }

    def folder(self, name: str, dataset: str) -> Path:
        """Where the maps of a data set are: what `train --confidence` is given."""
        return self.output / dataset / name if self.many_datasets else self.output / name

    def map(self, name: str, i: str) -> Path:
        return self.folder(name, self.pairs[i].dataset) / f"{i}.png"

    @property
    def folders(self) -> dict[str, list[Path]]:
        datasets = sorted({pair.dataset for pair in self.pairs.values()})
        return {name: [self.folder(name, d) for d in datasets] for name in self.models(0)}


def crossfit(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    folds: int = 2,
    network: str = "linknet",
    encoder: str = "resnet18",
    encoder_weights: str = "none",
    recipe: BaseRecipe | None = None,
    epochs: int | None = None,
    snapshots: int = 0,
    place_pattern: str | None = None,
    skip_unpaired: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    on_check: Callable[[int, int], None] | None = None,
    on_step: OnFoldStep | None = None,
    on_map: Callable[[int, int], None] | None = None,
) -> CrossfitResult:
    """Train a base network for each fold on all the others, and predict the fold with it.

    Places are dealt out, not images, see `folds_of`. The maps are ``OUTPUT/<name>/<id>.png``, of
    several data sets ``OUTPUT/<data set>/<name>/<id>.png``, uint8, confidence x 255; the name is
    that of network and encoder, and for a snapshot of its step too. The same call again goes on
    where the last one was stopped.

    Args:
        data: folders of images and masks, see `geothresh.raster.imagery`.
        output: folder for maps, models and manifest; it is made.
        folds: number of folds, at least 2.
        network: one of `geothresh.base.config.NETWORKS`.
        encoder: name of an encoder of segmentation-models-pytorch.
        encoder_weights: "none", "imagenet", or a safetensors file of the encoder's state dict.
        recipe: hyperparameters.
        epochs: passes through the fold's training images, in place of the recipe's steps.
        snapshots: networks on the way of each training whose maps are written as well.
        place_pattern: regular expression whose first group names the place of an id.
        skip_unpaired: leave out images and masks without a partner.
        overwrite: start anew where there is an earlier run.
        device: auto, cpu, cuda, cuda:i or mps.
        on_check, on_step, on_map: progress.

    Raises:
        InputError: the data cannot be used, or the encoder's weights cannot be fetched.
        OutputError: there are maps of another run, another run is making them, or a file cannot be
            written.
        UsageError: options contradict each other or the data.
        ModelError: a model or a state in the folder is damaged.
    """
    recipe, output = recipe or BaseRecipe(), Path(output)
    pick_dtype(recipe.precision, pick_device(device))
    found = find_images(data, skip_unpaired=skip_unpaired)
    config = describe_network(network, encoder, encoder_weights)
    if epochs is not None:
        n_training = len(found) - len(found) // max(folds, 1)
        recipe = recipe.with_epochs(epochs, n_training)
    run = _Run(
        pairs={pair.id: pair for pair in found},
        config=config,
        recipe=recipe,
        snapshots=snapshots,
        output=output,
        many_datasets=len({pair.dataset for pair in found}) > 1,
    )
    deal = partial(folds_of, found, folds=folds, place_pattern=place_pattern, seed=recipe.seed)
    # Once for its errors alone: to read all images takes long, and adds no other ids.
    deal({})
    _check_folder(run, overwrite)
    # Of one network: others may be made in the same folder at the same time.
    with only_run(run.manifest):
        for folder in (output, run.work, *(f for some in run.folders.values() for f in some)):
            remove_stale(folder)
        facts = check_images(found, progress=on_check)
        dealt = deal(facts)
        described = {
            "config": config.as_dict(),
            "encoder_weights": weights_name(encoder_weights),
            "recipe": recipe.as_dict(),
            "snapshots": snapshots,
            "place_pattern": place_pattern,
            "data": digest_of(found, facts),
            "datasets": {i: pair.dataset for i, pair in run.pairs.items()},
            "folds": [{"ids": list(ids)} for ids in dealt],
        }
        seconds = _begin(run, described, overwrite)
        n_maps = len(found) * (len(run.models(0)))
        done = 0

        def on_one_map() -> None:
            nonlocal done
            done += 1
            if on_map is not None:
                on_map(done, n_maps)

        with _told_how_to_go_on(overwrite):
            for fold, ids in enumerate(dealt):
                took = _train(run, fold, ids, dealt, described, encoder_weights, device, on_step)
                if took is not None:
                    seconds[fold] = round(took, 1)
                    _write_manifest(
                        run, {**described, "folds": _timed(dealt, seconds), "complete": False}
                    )
                for name, model in run.models(fold).items():
                    _predict(run, name, model, ids, device, on_one_map)
        scores = {name: _scores(run, name) for name in run.models(0)}
        made = [
            {
                **entry,
                "models": {
                    name: {"file": str(file.relative_to(output)), "sha256": digest(file)}
                    for name, file in run.models(fold).items()
                },
            }
            for fold, entry in enumerate(_timed(dealt, seconds))
        ]
        total = round(sum(seconds), 1)
        finished = {"folds": made, "scores": scores, "seconds": total, "complete": True}
        _write_manifest(run, {**described, **finished})
        return CrossfitResult(
            maps=run.folders,
            manifest=run.manifest,
            images=len(found),
            folds=folds,
            steps=recipe.steps,
            scores=scores,
            seconds=total,
        )


@contextmanager
def _told_how_to_go_on(overwrite: bool) -> Iterator[None]:
    """Add to a signal or a failure that nothing of what was done is lost."""
    try:
        yield
    except (ModelError, InputError):
        raise
    except BaseException as error:
        without = " without --overwrite" if overwrite else ""
        error.add_note(f"the same command{without} goes on where this run ended")
        raise


def _check_folder(run: _Run, overwrite: bool) -> None:
    """What can be said of the output before the data is read."""
    try:
        run.work.mkdir(parents=True, exist_ok=True)
        for folders in run.folders.values():
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                if not run.manifest.exists() and not overwrite and any(folder.glob("*.png")):
                    raise OutputError(
                        f"{folder}: holds maps, but {run.manifest.name} that tells whence is not "
                        "there; choose another folder or add --overwrite"
                    )
    except OSError as error:
        raise OutputError(f"{run.output}: cannot be written ({error.strerror})") from error


def _begin(run: _Run, described: Mapping[str, Any], overwrite: bool) -> list[float]:
    """Start the manifest, or see that the one there is of the same run.

    Returns:
        Seconds that the training of each fold took; 0 where it is not done.
    """
    if run.manifest.exists() and not overwrite:
        try:
            earlier = read_manifest(run.manifest)
            seconds = [float(fold.get("seconds", 0)) for fold in earlier["folds"]]
            earlier["folds"] = [{"ids": fold["ids"]} for fold in earlier["folds"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{run.manifest}: not the manifest of a run ({error!r}); add --overwrite to "
                "start anew"
            ) from error
        wanted = json.loads(json.dumps(described))
        changed = sorted(key for key in wanted if earlier.get(key) != wanted[key])
        if changed:
            raise OutputError(
                f"{run.manifest}: is of a run with another {', '.join(changed)}; give the same "
                "options and data to go on with it, choose another folder, or start anew with "
                "--overwrite"
            )
        return seconds
    for folder in (run.work, *(f for folders in run.folders.values() for f in folders)):
        for pattern in ("*.png", "fold*.safetensors"):
            for file in folder.glob(pattern):
                file.unlink()
    _write_manifest(run, {**described, "complete": False})
    return [0.0] * len(described["folds"])


def _timed(dealt: Sequence[Sequence[str]], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """The folds, for the manifest."""
    return [{"ids": list(ids), "seconds": took} for ids, took in zip(dealt, seconds, strict=True)]


def _write_manifest(run: _Run, values: Mapping[str, Any]) -> None:
    write_text(run.manifest, json.dumps({"geothresh": __version__, **values}, indent=1) + "\n")


def _train(
    run: _Run,
    fold: int,
    ids: Sequence[str],
    dealt: Sequence[Sequence[str]],
    described: Mapping[str, Any],
    weights: str,
    device: str,
    on_step: OnFoldStep | None,
) -> float | None:
    """Train the network of a fold unless it is there; the seconds that it took, else None."""
    model = run.model(fold)
    states = beside(model, ".state.safetensors")
    if all(file.exists() for file in run.models(fold).values()):
        # Of a run that was killed when its last model was on the disk.
        forget_states(states)
        return None
    training = sorted(run.pairs.keys() - set(ids))
    return fit(
        [run.pairs[i] for i in training],
        config=run.config,
        recipe=run.recipe,
        output=model,
        data={"sha256": described["data"], "train": training, "left_out": list(ids)},
        weights=weights,
        snapshots=run.snapshots,
        state=find_state(states),
        device=device,
        on_step=None
        if on_step is None
        else lambda step, steps, loss: on_step(fold + 1, len(dealt), step, steps, loss),
    )


def _predict(
    run: _Run, name: str, model: Path, ids: Sequence[str], device: str, on_map: Callable[[], None]
) -> None:
    """Write the maps of a fold that are not there yet."""
    missing = [i for i in ids if not run.map(name, i).exists()]
    if missing:
        seen = read_base_card(model).trained_ids & set(ids)
        if seen:
            raise ModelError(
                f"{model}: was trained on {len(seen)} images of the fold that it is to predict "
                f"({names(seen, 3)}); start anew with --overwrite"
            )
        predictor = load_base(model, device=device, precision=run.recipe.precision)
    for i in ids:
        if i in missing:
            write_png(run.map(name, i), predict_picture(predictor, run.pairs[i].image))
        on_map()


def _scores(run: _Run, name: str) -> dict[str, dict[str, float]]:
    counts: dict[str, list[Counts]] = defaultdict(list)
    for i, pair in run.pairs.items():
        foreground = read_gray(run.map(name, i)) >= np.uint8(128)
        counts[pair.dataset].append(Counts.of(prediction=foreground, target=read_mask(pair.mask)))
    return {
        dataset: {
            "miou": fmean(c.iou() for c in some),
            "iou_pooled": sum(some, Counts()).iou(),
        }
        for dataset, some in counts.items()
    }
