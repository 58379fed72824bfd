"""Read training data from folders: find, check and split maps and masks, and cut chips."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from geothresh.errors import InputError, names
from geothresh.raster.pairs import (
    MaskFacts,
    Pair,
    by_dataset,
    check_pairs,
    dataset_name,
    find_pairs,
)
from geothresh.splitting import Split, folds_of, split_ids
from geothresh.training.chips import ArrayCache, random_window
from geothresh.training.data import Cut, Fold, OnCheck, Pixels, TrainingData, mixed
from geothresh.training.options import FolderData, Splitting
from geothresh.types import Float32Array

#: Decoded maps are kept in memory up to this many bytes.
_CACHE_BYTES = 2 * 1024**3


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
        data: the folders of maps and masks.
        splitting: what is held out for validation.
        pixels: size of the pixels on the ground, and the resolution of the network.
        seed: seed of the random split.
        progress: called with (maps checked, maps in all).

    Raises:
        InputError: the data cannot be used.
        UsageError: options contradict each other.
    """
    folders = [Path(folder) for folder in data.folders]
    sizes = pixels.sizes(folders)
    factors = by_dataset(folders, pixels.factors(folders, sizes))
    pairs = find_pairs(
        folders, data.confidence, skip_unpaired=data.skip_unpaired, layout=data.layout,
        resize=data.resize,
    )  # fmt: skip
    # Drawn first to find errors early: reading all data takes long, and changes no ids.
    for split in _draw(pairs, {}, splitting, seed):
        _sides(pairs, split)
    facts = check_pairs(pairs, progress=progress)
    splits = _draw(pairs, facts, splitting, seed)
    sides = [_sides(pairs, split) for split in splits]
    train, validation = (pairs, []) if splitting.folds else sides[0]
    return TrainingData(
        train=pair_sources(train, factors),
        validation=pair_sources(validation, factors),
        folds=[Fold(pair_sources(t, factors), pair_sources(v, factors)) for t, v in sides]
        if splitting.folds
        else (),
        described=_describe(train, validation, [v for _, v in sides], facts)
        | ({} if data.resize is None else {"resize": data.resize})
        | pixels.described([dataset_name(folder) for folder in folders], sizes),
        manifest=_manifest(splits, folded=splitting.folds is not None),
        n_train=len(train),
        n_validation=sum(len(v) for _, v in sides),
        resolution=pixels.seen(sizes),
    )


def _draw(
    pairs: Sequence[Pair], facts: Mapping[str, MaskFacts], splitting: Splitting, seed: int
) -> list[Split]:
    """Draw the split that is asked for, or one for each fold.

    Maps of one place by several base networks stay together. `facts` of the masks are empty before
    the masks are read.
    """
    if splitting.split is not None:
        return [Split.load(Path(splitting.split))]
    datasets = {pair.id: pair.dataset for pair in pairs}
    marks = {i: mask.marks for i, mask in facts.items()}
    if splitting.folds is None:
        return [
            split_ids(
                datasets,
                marks,
                fraction=splitting.validation_fraction,
                hold_out=splitting.hold_out,
                place_pattern=splitting.place_pattern,
                seed=seed,
            )
        ]
    dealt = folds_of(
        datasets, marks, folds=splitting.folds, place_pattern=splitting.place_pattern, seed=seed
    )
    return [
        Split(train=tuple(sorted(datasets.keys() - set(held))), validation=held) for held in dealt
    ]


def _manifest(splits: Sequence[Split], *, folded: bool) -> str:
    """Make the text of the manifest: ids on both sides, and those that each fold holds out."""
    lists: dict[str, Any] = {"train": splits[0].train, "validation": splits[0].validation}
    if folded:
        held = [split.validation for split in splits]
        lists = {"train": sorted(i for ids in held for i in ids), "validation": [], "folds": held}
    return json.dumps(lists, indent=1) + "\n"


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
    train: Sequence[Pair],
    validation: Sequence[Pair],
    held: Sequence[Sequence[Pair]],
    facts: Mapping[str, MaskFacts],
) -> dict[str, Any]:
    """Describe the data for the model file: number of maps of each base network, and a digest.

    `held` has the held-out maps of each fold, or the validation maps alone.
    """
    folded = not validation
    named = enumerate(held) if folded else (("train", train), ("validation", validation))
    hashed = hashlib.sha256()
    for side, pairs in named:
        for pair in pairs:
            content = hashlib.sha256(pair.confidence.read_bytes()).hexdigest()
            size = "" if pair.resize is None else f" {pair.resize}"
            line = f"{side} {pair.dataset} {pair.source} {pair.id} {content}{size}"
            hashed.update(f"{line} {facts[pair.id].digest}\n".encode())
    return {
        "sha256": hashed.hexdigest(),
        "train_maps": dict(Counter(f"{p.dataset}/{p.source}" for p in train)),
        "validation_maps": dict(Counter(f"{p.dataset}/{p.source}" for p in validation)),
        **({"folds": len(held)} if folded else {}),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSource:
    """A pair as a `ChipSource` and as a `ValidationMap`."""

    pair: Pair
    others: tuple[Pair, ...]
    """Maps of the same place by other base networks."""
    cache: ArrayCache
    """The cache, which all pairs share."""
    factor: float = 1.0
    """Pixels of the network per pixel of the map."""

    @property
    def dataset(self) -> str:
        """Name of the folder that holds the masks."""
        return self.pair.dataset

    @property
    def source(self) -> str:
        """Name of the folder that holds the maps."""
        return self.pair.source

    @property
    def n_chips(self) -> int:
        """One, because maps are small."""
        return 1

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        """Cut a random square; shorter sides are taken whole."""
        (truth,) = self.cache.get(self.pair.mask, lambda: (self.pair.read_truth(),))
        window = random_window(truth.shape, side, rng)
        confidence = self._confidence(self.pair, window)
        if self.others and rng.random() < mix:
            other = self._confidence(self.others[rng.integers(len(self.others))], window)
            share = np.float32(rng.random())
            confidence = mixed(confidence, other, share)
        return Cut(confidence, truth[window])

    def read(self) -> Cut:
        """Read map and mask; InputError if they cannot be used."""
        return Cut(*self.pair.read())

    def _confidence(self, pair: Pair, window: tuple[slice, slice]) -> Float32Array:
        # Kept in 8 bits, as base networks write them: a quarter of the memory of floats.
        (levels,) = self.cache.get(
            pair.confidence, lambda: (np.rint(pair.read_map() * 255).astype(np.uint8),)
        )
        return levels[window].astype(np.float32) / np.float32(255)


def pair_sources(
    pairs: Sequence[Pair], factors: Mapping[str, float] = MappingProxyType({})
) -> list[PairSource]:
    """Make a source for each pair, with the other base networks' maps of the same place.

    `factors` has the pixels of the network per pixel of a data set's maps, 1 if missing.
    """
    by_id: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_id[pair.id].append(pair)
    cache = ArrayCache(_CACHE_BYTES)
    return [
        PairSource(
            pair=pair,
            others=tuple(p for p in by_id[pair.id] if p.source != pair.source),
            cache=cache,
            factor=factors.get(pair.dataset, 1.0),
        )
        for pair in pairs
    ]
