"""How large the data's pixels are on the ground, and how large those that the network is to see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import UsageError
from geothresh.nn.scope import GroundSampleDistance, resampled_patch

# Any patch tells whether a factor is within reach.
_PATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What was said of them, see `geothresh.training.train`."""

    given: Sequence[GroundSampleDistance] = ()
    """Of all data, or one for each."""
    resolution: float | None = None
    """What the network is to see, in metres; None = the data as it is."""

    @classmethod
    def of(cls, sizes: Sequence[tuple[float, float]], resolution: float | None) -> Pixels:
        """From least and greatest sizes in metres.

        Raises:
            UsageError: a size is not above 0, or the least above the greatest.
        """
        if resolution is not None and not 0 < resolution < math.inf:
            raise UsageError(f"resolution {resolution:g} m: give the size of a pixel above 0")
        given = [GroundSampleDistance(least=least, greatest=most) for least, most in sizes]
        return cls(given=tuple(given), resolution=resolution)

    def sizes(
        self, data: Sequence[Path], measured: Sequence[GroundSampleDistance | None] | None = None
    ) -> list[GroundSampleDistance | None]:
        """Of each data set: as was said, or else as it says itself.

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
        """What the network sees, for its card; None unless all data tells."""
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
