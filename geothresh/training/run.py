"""From folders to a model: pair, check, split, fit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.errors import InputError, UsageError, names
from geothresh.files import check_output
from geothresh.nn.checkpoint import digest
from geothresh.nn.config import PRESETS
from geothresh.nn.resolution import ENTRY, GroundSampleDistance
from geothresh.raster.pairs import MaskFacts, Pair, check_pairs, find_pairs
from geothresh.training.loop import OnEpoch, OnStep, beside, fit
from geothresh.training.recipe import DEFAULT_RECIPE, Recipe, recipe_of
from geothresh.training.sources import pair_maps, pair_sources
from geothresh.training.split import Split, split_pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """Where the model is and how far it came."""

    model: Path
    """Best epoch by the mean of validation miou and Boundary IoU."""
    last: Path
    """Last epoch."""
    log: Path
    """CSV, one line per epoch."""
    split: Path
    """Manifest of the ids on either side."""
    epochs: int
    best_epoch: int
    steps: int
    seconds: float
    train_maps: int
    validation_maps: int

    def as_dict(self) -> dict[str, Any]:
        """Plain types, fit for JSON."""
        values = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def train(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    confidence: Sequence[str | Path] = (),
    preset: str = "small",
    patch: int = 64,
    head: str | None = None,
    recipe: Recipe | str = DEFAULT_RECIPE,
    init: str | Path | None = None,
    ground_sample_distance: tuple[float, float] | None = None,
    split: str | Path | None = None,
    validation_fraction: float = 0.15,
    hold_out: Sequence[str] = (),
    place_pattern: str | None = None,
    skip_unpaired: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    loader_workers: int = 0,
    on_check: Callable[[int, int], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainResult:
    """Train a ThreshNet on confidence maps and their masks.

    The maps must come from base networks that have not been trained on the same images (section
    4.1 of the paper): those of the validation set, or out-of-fold maps.

    Args:
        data: one or more folders with masks, see `geothresh.raster.pairs`.
        output: the model file, ``.safetensors``. Beside it come ``.last.safetensors``,
            ``.state.safetensors`` (to resume), ``.csv`` and ``.split.json``.
        confidence: folders of maps; default is ``confidence/`` in each data folder.
        preset: ``full`` or ``small``.
        patch: side P of a patch in pixels.
        head: ``confidence`` (the paper) or ``correction``; the recipe's if left out.
        recipe: hyperparameters, or the name of a recipe: ``paper`` or ``best``.
        init: model file to start from.
        ground_sample_distance: the least and the greatest size of a pixel on the ground, in metres;
            the model file tells them to `geothresh.refine`. None where nobody knows.
        split: manifest to follow; otherwise ids are drawn, see `split_pairs` for the next three.
        validation_fraction: share of places to validate on.
        hold_out: patterns of ids to validate on.
        place_pattern: what makes ids one place.
        skip_unpaired: leave out maps and masks without a partner.
        resume: go on from ``.state.safetensors``.
        overwrite: replace an existing model and what stands beside it.
        device: auto, cpu, cuda, cuda:i or mps.
        loader_workers: processes that prepare chips.
        on_check, on_step, on_epoch: progress.

    Raises:
        InputError: the data cannot be used.
        OutputError: the output exists or cannot be written.
        UsageError: options contradict each other.
        ModelError: the state or the initial model does not fit.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: a model is a .safetensors file; name it so")
    if resume and overwrite:
        raise UsageError("--resume goes on and --overwrite starts anew; give one of them")
    manifest = beside(output, ".split.json")
    others = (beside(output, e) for e in (".last.safetensors", ".state.safetensors", ".csv"))
    for file in (output, manifest, *others):
        check_output(file, overwrite=overwrite or resume)
    if split is not None and (hold_out or place_pattern is not None):
        raise UsageError(
            "--split says which ids to validate on, and so do --hold-out and --place-pattern; "
            "give one or the other"
        )
    known = None
    if ground_sample_distance is not None:
        least, greatest = ground_sample_distance
        known = GroundSampleDistance(least=least, greatest=greatest)
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r} is unknown; there are {', '.join(PRESETS)}")
    if isinstance(recipe, str):
        recipe = recipe_of(recipe)
    if head is not None:
        recipe = dataclasses.replace(recipe, head=head)  # type: ignore[arg-type]
    config = dataclasses.replace(
        PRESETS[preset], patch=patch, head=recipe.head, branches=recipe.branches
    )

    pairs = find_pairs(data, confidence, skip_unpaired=skip_unpaired)
    facts = check_pairs(pairs, progress=on_check)
    if resume and split is None:
        split = manifest
    if split is not None:
        sides = Split.load(Path(split))
    else:
        sides = split_pairs(
            pairs,
            facts,
            fraction=validation_fraction,
            hold_out=hold_out,
            place_pattern=place_pattern,
            seed=recipe.seed,
        )
    train_pairs, validation_pairs = _sides(pairs, sides)
    if not resume or not manifest.exists():
        # A resumed run has its manifest; another split, which `fit` refuses, must not replace it.
        sides.save(manifest)
    described: dict[str, Any] = {
        "preset": preset,
        "data": describe(train_pairs, validation_pairs, facts),
    }
    if known is not None:
        described[ENTRY] = [known.least, known.greatest]
    if init is not None:
        described["init"] = {"name": Path(init).stem, "sha256": digest(init)}
    progress = fit(
        pair_sources(train_pairs),
        pair_maps(validation_pairs),
        config=config,
        recipe=recipe,
        output=output,
        facts=described,
        init=None if init is None else Path(init),
        resume=resume,
        device=device,
        loader_workers=loader_workers,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    return TrainResult(
        model=output,
        last=beside(output, ".last.safetensors"),
        log=beside(output, ".csv"),
        split=manifest,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        steps=progress.step,
        seconds=progress.seconds,
        train_maps=len(train_pairs),
        validation_maps=len(validation_pairs),
    )


def _sides(pairs: Sequence[Pair], split: Split) -> tuple[list[Pair], list[Pair]]:
    train, validation = set(split.train), set(split.validation)
    lost = {p.id for p in pairs} - train - validation
    if lost:
        raise InputError(
            f"{len(lost)} ids of the data stand on neither side of the split: {names(lost)}"
        )
    sides = tuple([p for p in pairs if p.id in ids] for ids in (train, validation))
    if not all(sides):
        raise InputError("the split leaves no map of this data on one side; check its ids")
    return sides[0], sides[1]


def describe(
    train: Sequence[Pair], validation: Sequence[Pair], facts: Mapping[str, MaskFacts]
) -> dict[str, Any]:
    """What the model file says of its data: maps per base network, and a digest of all of it."""
    hashed = hashlib.sha256()
    for side, pairs in (("train", train), ("validation", validation)):
        for pair in pairs:
            content = hashlib.sha256(pair.confidence.read_bytes()).hexdigest()
            line = f"{side} {pair.dataset} {pair.source} {pair.id} {content}"
            hashed.update(f"{line} {facts[pair.id].digest}\n".encode())
    return {
        "sha256": hashed.hexdigest(),
        "train_maps": dict(Counter(f"{p.dataset}/{p.source}" for p in train)),
        "validation_maps": dict(Counter(f"{p.dataset}/{p.source}" for p in validation)),
    }
