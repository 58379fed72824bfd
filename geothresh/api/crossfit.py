"""Make out-of-fold confidence maps: each fold is predicted by a network trained on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.base.config import BasePlan, ImageData
from geothresh.base.crossfit import CrossfitRun, OnFoldStep
from geothresh.base.networks import describe_network
from geothresh.base.task import images_of
from geothresh.durability.locking import only_run
from geothresh.durability.resuming import noting
from geothresh.fields import checked, plain
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.options import Progress
from geothresh.raster.image_pairs import check_images, digest_of
from geothresh.splitting import folds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossfitResult:
    """Folders of the maps, and their scores against the masks."""

    maps: dict[str, list[Path]]
    """Folders of maps by name: the network at the end, and its snapshots."""
    manifest: Path
    """JSON: which fold predicted which ids, and what it was trained on."""
    images: int
    folds: int
    steps: int
    """Optimiser steps of each fold."""
    scores: dict[str, dict[str, dict[str, float]]]
    """``miou`` and ``iou_pooled`` at 0.5, in [0, 1], by name of the maps and by data set."""
    seconds: float
    """Training time, of all runs together."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return dict(plain(self))


@checked()
def crossfit(
    data: ImageData | str | Path | Sequence[str | Path],
    output: str | Path,
    plan: BasePlan = BasePlan(),
    *,
    folds: int = 2,
    overwrite: bool = False,
    device: str = "auto",
    on_check: Progress | None = None,
    on_step: OnFoldStep | None = None,
    on_map: Progress | None = None,
) -> CrossfitResult:
    """Train a base network for each fold on all the others, and predict the fold with it.

    Places are dealt out, not images, see `folds_of`. The maps are ``OUTPUT/<name>/<id>.png``, of
    several data sets ``OUTPUT/<data set>/<name>/<id>.png``, uint8, confidence x 255; the name is
    that of network and encoder, and for a snapshot of its step too. The same call again goes on
    where the last one was stopped.

    Args:
        data: images and masks; paths are folders of them.
        output: folder for maps, models and manifest; it is made.
        plan: network and recipe; its epochs are passes through the fold's training images, and the
            maps of its snapshots are written as well.
        folds: number of folds, at least 2.
        overwrite: start anew if there is an earlier run.
        device: auto, cpu, cuda, cuda:i or mps.
        on_check, on_step, on_map: progress callbacks for checked images, steps and maps.

    Returns:
        The folders of maps of each network, their scores, and the manifest.

    Raises:
        InputError: the data cannot be used, or the encoder's weights cannot be fetched.
        OutputError: there are maps of another run, another run is making them, or a file cannot be
            written.
        UsageError: options contradict each other or the data.
        ModelError: a model or a state in the folder is damaged.

    Example:
        >>> crossfit("DATA", "maps", folds=4).maps
        {'linknet-resnet18': [PosixPath('maps/linknet-resnet18')]}
    """
    data, output = ImageData.of(data), Path(output)
    pick_dtype(plan.recipe.precision, pick_device(device))
    found = images_of(data)
    config = describe_network(plan.network, plan.encoder, plan.encoder_weights)
    recipe = plan.recipe_for(len(found) - len(found) // max(folds, 1))
    run = CrossfitRun(
        pairs={pair.id: pair for pair in found},
        config=config,
        plan=replace(plan, recipe=recipe, epochs=None),
        output=output,
        device=device,
    )
    homes = {pair.id: pair.dataset for pair in found}
    deal = partial(folds_of, homes, folds=folds, place_pattern=data.place_pattern, seed=recipe.seed)
    # Called first to find errors early: reading all images takes long, and changes no ids.
    deal({})
    run.make_folders(overwrite)
    # The lock is of one network: maps of others may be made in the folder at the same time.
    with only_run(run.manifest):
        run.remove_stale()
        facts = check_images(found, progress=on_check)
        dealt = deal({i: image.marks for i, image in facts.items()})
        described = {
            **run.described,
            "place_pattern": data.place_pattern,
            "data": digest_of(found, facts),
            **data.described,
            "datasets": homes,
            "folds": [{"ids": list(ids)} for ids in dealt],
        }
        seconds = run.begin(described, overwrite)
        with noting(lambda: "where this run ended", overwrite=overwrite):
            _make_maps(run, described, dealt, seconds, on_step, on_map)
        scores = {name: run.scores(name) for name in run.models(0)}
        total = round(sum(seconds), 1)
        timed = _timed(dealt, seconds)
        made = [{**entry, "models": run.described_models(k)} for k, entry in enumerate(timed)]
        finished = {"folds": made, "scores": scores, "seconds": total, "complete": True}
        run.write_manifest({**described, **finished})
        return CrossfitResult(
            maps=run.folders,
            manifest=run.manifest,
            images=len(found),
            folds=folds,
            steps=recipe.steps,
            scores=scores,
            seconds=total,
        )


def _make_maps(
    run: CrossfitRun,
    described: dict[str, Any],
    dealt: Sequence[Sequence[str]],
    seconds: list[float],
    on_step: OnFoldStep | None,
    on_map: Progress | None,
) -> None:
    """Train and predict missing folds; `seconds` has the training time of each fold."""
    n_maps, done = len(run.pairs) * len(run.models(0)), 0

    def on_one_map() -> None:
        nonlocal done
        done += 1
        if on_map is not None:
            on_map(done, n_maps)

    for fold, ids in enumerate(dealt):
        took = run.train(fold, dealt, described["data"], on_step)
        if took is not None:
            seconds[fold] = round(took, 1)
            unfinished = {"folds": _timed(dealt, seconds), "complete": False}
            run.write_manifest({**described, **unfinished})
        run.predict(fold, ids, on_one_map)


def _timed(dealt: Sequence[Sequence[str]], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """The entries of the folds in the manifest."""
    return [{"ids": list(ids), "seconds": took} for ids, took in zip(dealt, seconds, strict=True)]
