"""What a training run is fed with, and how it comes from folders of maps and masks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geothresh.errors import InputError, names
from geothresh.nn.resolution import GroundSampleDistance
from geothresh.raster.pairs import MaskFacts, Pair, by_dataset, check_pairs, find_pairs
from geothresh.training.pixels import Pixels
from geothresh.training.sources import ChipSource, ValidationMap, pair_maps, pair_sources
from geothresh.training.split import Split, split_pairs

OnCheck = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Both sides of the data, checked and split."""

    train: Sequence[ChipSource]
    validation: Sequence[ValidationMap]
    described: Mapping[str, Any]
    """What the model file says of it; a resumed run must agree."""
    manifest: str
    """Text of the file that says which places are on which side."""
    n_train: int
    """Maps, or blocks of scenes."""
    n_validation: int
    """Maps, or tiles of scenes."""
    resolution: GroundSampleDistance | None = None
    """Sizes on the ground of the pixels that the network sees, where they are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """What is particular to folders, see `geothresh.training.train`."""

    confidence: Sequence[str | Path] = ()
    hold_out: Sequence[str] = ()
    place_pattern: str | None = None
    skip_unpaired: bool = False

    def given(self) -> list[str]:
        """The options that were used."""
        used = {
            "--confidence": bool(self.confidence),
            "--hold-out": bool(self.hold_out),
            "--place-pattern": self.place_pattern is not None,
            "--skip-unpaired": self.skip_unpaired,
        }
        return [name for name, there in used.items() if there]


def gather_pairs(
    data: Sequence[Path],
    options: PairOptions,
    pixels: Pixels,
    *,
    split: Path | None,
    fraction: float,
    seed: int,
    progress: OnCheck | None,
) -> Material:
    """Find, check and split maps and masks.

    Args:
        data: folders with masks.
        options: how to pair and split them.
        pixels: their size on the ground, and what the network is to see.
        split: manifest to follow; otherwise ids are drawn, see `split_pairs`.
        fraction: share of places to validate on.
        seed: of the draw.
        progress: called with maps checked and all maps.

    Raises:
        InputError: the data cannot be used.
        UsageError: options contradict each other.
    """
    sizes = pixels.sizes(data)
    factors = by_dataset(data, pixels.factors(data, sizes))
    pairs = find_pairs(data, options.confidence, skip_unpaired=options.skip_unpaired)
    draw = partial(
        split_pairs,
        pairs,
        fraction=fraction,
        hold_out=options.hold_out,
        place_pattern=options.place_pattern,
        seed=seed,
    )
    # Once for its errors alone: to read all data takes long, and adds no other ids.
    sides = draw({}) if split is None else Split.load(split)
    train, validation = _sides(pairs, sides)
    facts = check_pairs(pairs, progress=progress)
    if split is None:
        sides = draw(facts)
        train, validation = _sides(pairs, sides)
    return Material(
        train=pair_sources(train, factors),
        validation=pair_maps(validation, factors),
        described=_describe(train, validation, facts)
        | pixels.described([folder.name for folder in data], sizes),
        manifest=json.dumps({"train": sides.train, "validation": sides.validation}, indent=1)
        + "\n",
        n_train=len(train),
        n_validation=len(validation),
        resolution=pixels.seen(sizes),
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
