"""Define the interfaces of training data: sources of chips, and maps to validate on.

`geothresh.training.folder_data` implements them for folders of maps and masks, and
`geothresh.training.scene_data` for scenes with labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from geothresh.errors import UsageError
from geothresh.geobox import PixelSize
from geothresh.nn.scope import GroundSampleDistance, resampled_patch
from geothresh.nn.transformation import clipped_logit
from geothresh.options import Size
from geothresh.types import BoolArray, Float32Array

OnCheck = Callable[[int, int], None]
"""Called with (parts of the data checked, parts in all)."""

TILE = 512
"""Side in pixels of the squares that the network reads in validation; tiles of scenes that are
scored are about as large at most, see `geothresh.training.holdout.tiles`."""

# Used only to check that a factor is within `MAX_RESAMPLING`; any patch would do.
_PATCH = 64


class Fold(NamedTuple):
    """Both sides of a split: training and held-out data."""

    train: Sequence[ChipSource]
    validation: Sequence[ValidationMap]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Ground sample distances of the data, and the resolution that the network is trained at."""

    given: Sequence[GroundSampleDistance] = ()
    """One distance for all data sets, or one for each; empty = not given."""
    resolution: float | None = None
    """Resolution that all data is resampled to, in metres; None = no resampling."""

    @classmethod
    def of(cls, sizes: Sequence[Size], resolution: float | None) -> Pixels:
        """Make it of sizes in metres, each of which is a number or (least, greatest)."""
        ends = [size if isinstance(size, tuple) else (size,) for size in sizes]
        given = [GroundSampleDistance(least=end[0], greatest=end[-1]) for end in ends]
        return cls(given=tuple(given), resolution=resolution)

    def sizes(
        self, data: Sequence[Path], measured: Sequence[PixelSize | None] | None = None
    ) -> list[GroundSampleDistance | None]:
        """Ground sample distance of each data set: as given, else as measured.

        Raises:
            UsageError: neither one size nor one for each was given.
        """
        if not self.given:
            known = [None] * len(data) if measured is None else measured
            return [
                None if size is None else GroundSampleDistance(least=size.mean, greatest=size.mean)
                for size in known
            ]
        if len(self.given) not in (1, len(data)):
            raise UsageError(
                f"{len(self.given)} ground sample distances for {len(data)} sets of data; give one "
                "for all of them, or one for each in the same order"
            )
        return [*self.given] * len(data) if len(self.given) == 1 else [*self.given]

    def factors(
        self, data: Sequence[Path], sizes: Sequence[GroundSampleDistance | None]
    ) -> list[float]:
        """Resampling factor of each data set: pixels of the network per pixel of the data.

        Raises:
            UsageError: the size is not known, or too far from `resolution`.
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
        """Ground sample distance that the network is trained at; None unless all are known."""
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
        """Entry ``pixels`` of the card, if data is resampled: the original sizes by data set."""
        if self.resolution is None:
            return {}
        known = zip(names, sizes, strict=True)
        return {"pixels": {name: [s.least, s.greatest] for name, s in known if s is not None}}


def seen_side(patch: int, factor: float) -> int:
    """Side of the square that a network reads in validation, in pixels of the map.

    It is `TILE` in pixels of the network.

    Args:
        patch: side of the network's patch.
        factor: pixels of the network per pixel of the map.
    """
    return TILE // patch * resampled_patch(patch, factor)


class Cut(NamedTuple):
    """A square cut from a map, as arrays (h, w); it is smaller if the map is."""

    confidence: Float32Array
    """Confidence in [0, 1]; 0 where there is no data, as `refine` passes it to the network."""
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
        """Name of its data set; `Recipe.balance` weighs data sets against each other."""
        ...

    @property
    def n_chips(self) -> int:
        """Number of chips in one pass over the data."""
        ...

    @property
    def factor(self) -> float:
        """Pixels of the network per pixel of the map; 1 = it is not resampled."""
        ...

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        """Cut a random square.

        Args:
            side: side of the square in pixels.
            rng: the only source of randomness.
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
        """Pixels of the network per pixel of the map; 1 = it is not resampled."""
        ...

    def read(self) -> Cut:
        """Read the whole map."""
        ...


def mixed(one: Float32Array, other: Float32Array, share: np.float32) -> Float32Array:
    """Average two maps by their logits; `share` is the weight of the first."""
    return np.asarray(expit(share * clipped_logit(one) + (1 - share) * clipped_logit(other)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Training and validation data, checked and split."""

    train: Sequence[ChipSource]
    """Sources of training chips."""
    validation: Sequence[ValidationMap]
    """Held-out maps; empty if there are folds."""
    described: Mapping[str, Any]
    """Description for the model file; a resumed run must have the same."""
    manifest: str
    """Text of the split manifest."""
    n_train: int
    """Number of training maps; for scenes, of training blocks."""
    n_validation: int
    """Number of validation maps, in all folds together; for scenes, of validation tiles."""
    resolution: GroundSampleDistance | None = None
    """Ground sample distance that the network is trained at; None = not known."""
    folds: Sequence[Fold] = ()
    """Splits of all data in which every place is held out once; empty = one split."""
