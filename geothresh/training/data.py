"""Data of a training: what chips are cut from, and what is validated on.

`geothresh.training.folder_data` makes these of folders of maps and masks, and
`geothresh.training.scene_data` of scenes and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from geothresh.errors import UsageError
from geothresh.nn.scope import GroundSampleDistance, resampled_patch
from geothresh.nn.transformation import clipped_logit
from geothresh.options import Size
from geothresh.types import BoolArray, Float32Array

OnCheck = Callable[[int, int], None]
"""Called with the parts of the data that are checked, and all of them."""

TILE = 512
"""Side at most of the tiles in which blocks are validated, and of what the network sees at once."""

# Any patch tells whether a factor is within reach.
_PATCH = 64


class Fold(NamedTuple):
    """Both sides of a split: what is learnt from, and what is held out."""

    train: Sequence[ChipSource]
    validation: Sequence[ValidationMap]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Pixel sizes of the data, and the resolution that the network is to see."""

    given: Sequence[GroundSampleDistance] = ()
    """Of all data, or one for each."""
    resolution: float | None = None
    """What the network is to see, in metres; None = the data as it is."""

    @classmethod
    def of(cls, sizes: Sequence[Size], resolution: float | None) -> Pixels:
        """From sizes in metres, or the least and the greatest."""
        ends = [size if isinstance(size, tuple) else (size,) for size in sizes]
        given = [GroundSampleDistance(least=end[0], greatest=end[-1]) for end in ends]
        return cls(given=tuple(given), resolution=resolution)

    def sizes(
        self, data: Sequence[Path], measured: Sequence[GroundSampleDistance | None] | None = None
    ) -> list[GroundSampleDistance | None]:
        """Ground sample distance of each data set: as given, or else as it says itself.

        Raises:
            UsageError: neither one size nor one for each was given.
        """
        if not self.given:
            return [None] * len(data) if measured is None else list(measured)
        if len(self.given) not in (1, len(data)):
            raise UsageError(
                f"{len(self.given)} ground sample distances for {len(data)} sets of data; give one "
                "for all of them, or one for each in the same order"
            )
        return [*self.given] * len(data) if len(self.given) == 1 else [*self.given]

    def factors(
        self, data: Sequence[Path], sizes: Sequence[GroundSampleDistance | None]
    ) -> list[float]:
        """Pixels of the network along one of each data set; 1 = it is read as it is.

        Raises:
            UsageError: the size is not known, or too far from what the network is to see.
        """
        if self.resolution is None:
            return [1.0] * len(data)
        factors = []
        for path, size in zip(data, sizes, strict=True):
            if size is None:
                raise UsageError(
                    f"{path}: the size of its pixels on the ground is not known, so that it cannot "
                    f"be brought to {self.resolution:g} m; add `ground_sample_distance`"
                )
            factor = size.middle / self.resolution
            resampled_patch(_PATCH, factor)
            factors.append(factor)
        return factors

    def seen(self, sizes: Sequence[GroundSampleDistance | None]) -> GroundSampleDistance | None:
        """Ground sample distance that the network sees, for its card; None unless all data say."""
        if self.resolution is not None:
            return GroundSampleDistance(least=self.resolution, greatest=self.resolution)
        known = [size for size in sizes if size is not None]
        if not known or len(known) < len(sizes):
            return None
        return GroundSampleDistance(
            least=min(s.least for s in known), greatest=max(s.greatest for s in known)
        )

    def described(
        self, names: Sequence[str], sizes: Sequence[GroundSampleDistance | None]
    ) -> dict[str, dict[str, list[float]]]:
        """Sizes of the data's own pixels, for the card, where they are resampled."""
        if self.resolution is None:
            return {}
        known = zip(names, sizes, strict=True)
        return {"pixels": {name: [s.least, s.greatest] for name, s in known if s is not None}}


def seen_side(patch: int, factor: float) -> int:
    """Side, in pixels of the map, of what a network takes in at once in validation.

    That is `TILE` pixels of its own.

    Args:
        patch: side of the network's patch.
        factor: pixels of the network along one of the map.
    """
    return TILE // patch * resampled_patch(patch, factor)


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
    """Source of chips, in any process that loads them."""

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


def mixed(one: Float32Array, other: Float32Array, share: np.float32) -> Float32Array:
    """Weighted mean of the logits of two maps, as confidences; the first has the share."""
    return np.asarray(expit(share * clipped_logit(one) + (1 - share) * clipped_logit(other)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Training and validation data, checked and split."""

    train: Sequence[ChipSource]
    """What the model learns from."""
    validation: Sequence[ValidationMap]
    """What it is scored on; none where there are folds."""
    described: Mapping[str, Any]
    """What the model file says of it; a resumed run must agree."""
    manifest: str
    """Text of the file that says which places are on which side."""
    n_train: int
    """Maps, or blocks of scenes."""
    n_validation: int
    """Maps, or tiles of scenes; of all folds together."""
    resolution: GroundSampleDistance | None = None
    """Sizes on the ground of the pixels that the network sees, where they are known."""
    folds: Sequence[Fold] = ()
    """Splits of all of it in which every place is held out once."""
