"""What chips are cut from and what is validated on, and both for folders of maps and masks.

`geothresh.training.scenes` has both for scenes. What is done with the cut squares, turning,
flipping, disturbing them, is the same for all of them: see `geothresh.training.chips`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from geothresh.chipping import random_window
from geothresh.nn.wrappers import clipped_logit
from geothresh.raster.pairs import Pair, read_confidence, read_mask
from geothresh.types import BoolArray, Float32Array, UInt8Array

#: Decoded maps are kept in memory up to this many bytes.
_CACHE_BYTES = 2 * 1024**3


class Cut(NamedTuple):
    """A square of a map, or less of it where the map is smaller; arrays (h, w)."""

    confidence: Float32Array
    """In [0, 1]; 0 where there is no data, as `refine` gives it to the network."""
    truth: BoolArray
    """True = foreground."""
    data: BoolArray | None = None
    """True = the confidence is known; None = everywhere."""
    valid: BoolArray | None = None
    """True = confidence and truth are known, so that the pixel counts; None = everywhere."""


class ChipSource(Protocol):
    """Something that chips are cut from, in any process that loads them."""

    @property
    def dataset(self) -> str:
        """What it belongs to; `Recipe.balance` weighs these against each other."""
        ...

    @property
    def n_chips(self) -> int:
        """How often it is drawn until everything was seen about once."""
        ...

    @property
    def factor(self) -> float:
        """Pixels of the network along one of the map; 1 = it is read as it is."""
        ...

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        """A square at random.

        Args:
            side: of the square in pixels.
            rng: the only source of chance.
            mix: probability of mixing the maps of several base networks.
        """
        ...


class ValidationMap(Protocol):
    """A held-out map that is scored as a whole."""

    @property
    def dataset(self) -> str:
        """Name of its data set, for the log."""
        ...

    @property
    def source(self) -> str:
        """Name of its base network, for the log."""
        ...

    @property
    def factor(self) -> float:
        """Pixels of the network along one of the map; 1 = it is read as it is."""
        ...

    def read(self) -> Cut:
        """All of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMap:
    """The whole of a pair, to be validated on."""

    pair: Pair
    factor: float = 1.0
    """Pixels of the network along one of the map."""

    @property
    def dataset(self) -> str:
        """Name of the folder that holds the masks."""
        return self.pair.dataset

    @property
    def source(self) -> str:
        """Name of the folder that holds the maps."""
        return self.pair.source

    def read(self) -> Cut:
        """Map and mask. Raises InputError where they cannot be read."""
        return Cut(read_confidence(self.pair.confidence), read_mask(self.pair.mask))


@dataclass(slots=True)
class MapCache:
    """Decoded files, as long as they fit."""

    pixels: dict[Path, UInt8Array] = field(default_factory=dict)
    n_bytes: int = 0

    def get(self, path: Path, read: Callable[[Path], UInt8Array]) -> UInt8Array:
        """The pixels of a file, read if they are not there."""
        if path not in self.pixels:
            pixels = read(path)
            if self.n_bytes + pixels.nbytes > _CACHE_BYTES:
                return pixels
            self.pixels[path] = pixels
            self.n_bytes += pixels.nbytes
        return self.pixels[path]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSource:
    """Chips of one pair."""

    pair: Pair
    others: tuple[Path, ...]
    """Maps of the same place by other base networks."""
    cache: MapCache
    """Shared by all pairs."""
    factor: float = 1.0
    """Pixels of the network along one of the map."""

    @property
    def dataset(self) -> str:
        """Name of the folder that holds the masks."""
        return self.pair.dataset

    @property
    def n_chips(self) -> int:
        """1: maps are small."""
        return 1

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        """A square at random, or all of a side that is shorter."""
        truth = self.cache.get(self.pair.mask, _read_truth)
        window = random_window(truth.shape, side, rng)
        confidence = self._confidence(self.pair.confidence, window)
        if self.others and rng.random() < mix:
            other = self._confidence(self.others[rng.integers(len(self.others))], window)
            share = np.float32(rng.random())
            confidence = mixed(confidence, other, share)
        return Cut(confidence, truth[window].astype(bool))

    def _confidence(self, path: Path, window: tuple[slice, slice]) -> Float32Array:
        pixels = self.cache.get(path, _read_map)[window]
        return pixels.astype(np.float32) / np.float32(255)


def pair_sources(
    pairs: Sequence[Pair], factors: Mapping[str, float] = MappingProxyType({})
) -> list[PairSource]:
    """A source for each pair; they know of each other's maps of the same place.

    `factors` are the pixels of the network along one of a data set's maps, 1 if left out.
    """
    by_id: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_id[pair.id].append(pair)
    cache = MapCache()
    return [
        PairSource(
            pair=pair,
            others=tuple(p.confidence for p in by_id[pair.id] if p.source != pair.source),
            cache=cache,
            factor=factors.get(pair.dataset, 1.0),
        )
        for pair in pairs
    ]


def pair_maps(
    pairs: Iterable[Pair], factors: Mapping[str, float] = MappingProxyType({})
) -> list[PairMap]:
    """The pairs as maps to validate on; `factors` as for `pair_sources`."""
    return [PairMap(pair=pair, factor=factors.get(pair.dataset, 1.0)) for pair in pairs]


def mixed(one: Float32Array, other: Float32Array, share: np.float32) -> Float32Array:
    """Weighted mean of the logits of two maps, as confidences; the first has the share."""
    return np.asarray(expit(share * clipped_logit(one) + (1 - share) * clipped_logit(other)))


def _read_map(path: Path) -> UInt8Array:
    """A map in 8 bits: what base networks leave, and a quarter of the memory of floats."""
    return np.rint(read_confidence(path) * 255).astype(np.uint8)


def _read_truth(path: Path) -> UInt8Array:
    return read_mask(path).astype(np.uint8)
