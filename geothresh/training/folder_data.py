"""Folders of maps and masks as training data: found, checked, split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.errors import InputError, names
from geothresh.raster.pairs import MaskFacts, Pair, by_dataset, check_pairs, find_pairs
from geothresh.splitting import Split, split_ids
from geothresh.training.data import FolderData, OnCheck, Splitting, TrainingData
from geothresh.training.pixels import Pixels
from geothresh.training.sources import pair_maps, pair_sources


def gather_folders(
    data: FolderData,
    splitting: Splitting,
    pixels: Pixels,
    *,
    seed: int,
    progress: OnCheck | None,
) -> TrainingData:
    """Find, check and split maps and masks.

    Args:
        data: where they are.
        splitting: what to validate on.
        pixels: their size on the ground, and what the network is to see.
        seed: of the draw.
        progress: called with maps checked and all maps.

    Raises:
        InputError: the data cannot be used.
        UsageError: options contradict each other.
    """
    folders = [Path(folder) for folder in data.folders]
    sizes = pixels.sizes(folders)
    factors = by_dataset(folders, pixels.factors(folders, sizes))
    pairs = find_pairs(folders, data.confidence, skip_unpaired=data.skip_unpaired)
    draw = partial(
        split_pairs,
        pairs,
        fraction=splitting.fraction,
        hold_out=splitting.hold_out,
        place_pattern=splitting.place_pattern,
        seed=seed,
    )
    # Once for its errors alone: to read all data takes long, and adds no other ids.
    manifest = splitting.manifest
    sides = draw({}) if manifest is None else Split.load(Path(manifest))
    train, validation = _sides(pairs, sides)
    facts = check_pairs(pairs, progress=progress)
    if manifest is None:
        sides = draw(facts)
        train, validation = _sides(pairs, sides)
    return TrainingData(
        train=pair_sources(train, factors),
        validation=pair_maps(validation, factors),
        described=_describe(train, validation, facts)
        | pixels.described([folder.name for folder in folders], sizes),
        manifest=json.dumps({"train": sides.train, "validation": sides.validation}, indent=1)
        + "\n",
        n_train=len(train),
        n_validation=len(validation),
        resolution=pixels.seen(sizes),
    )


def split_pairs(
    pairs: Sequence[Pair],
    facts: Mapping[str, MaskFacts],
    *,
    fraction: float,
    hold_out: Sequence[str] = (),
    place_pattern: str | None = None,
    seed: int = 0,
) -> Split:
    """Split the ids of the pairs by place: the maps of several base networks stay together.

    Ids whose masks are equal pixel by pixel are one place under two names.

    Args:
        pairs: all of them.
        facts: of each id's mask; empty = not known yet, so that whatever is wrong with the options
            is found before the masks are read.
        fraction, hold_out, place_pattern, seed: as for `split_ids`.

    Raises:
        UsageError: as `split_ids` does.
    """
    by_dataset: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        by_dataset[pair.dataset].add(pair.id)
    return split_ids(
        by_dataset,
        {pair.id: facts[pair.id].marks if facts else () for pair in pairs},
        fraction=fraction,
        hold_out=hold_out,
        place_pattern=place_pattern,
        seed=seed,
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


def _describe(
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
