"""Ground sample distance of a model, and the factor by which a raster is resampled to it.

No torch here: reading a model card must stay cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geothresh.errors import ModelError, UsageError

ENTRY = "ground_sample_distance"
"""Where the card of a model keeps it: least and greatest, in metres."""

TOLERANCE = 1.5
"""A raster whose pixels are this many times smaller or larger than the model's is warned about."""

MAX_RESAMPLING = 8
"""Pixels are made at most this many times larger or smaller: beyond it a raster is of another kind,
and the tiles that the engine holds grow with the square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundSampleDistance:
    """Range of ground sample distances that a model was trained on, in metres per pixel."""

    least: float
    """Of the finest maps."""
    greatest: float
    """Of the coarsest."""

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.greatest < math.inf:
            raise UsageError(
                f"ground sample distance {self.least:g} to {self.greatest:g} m: give one size of a "
                "pixel above 0, or the least and the greatest"
            )

    @classmethod
    def of_card(cls, training: Mapping[str, Any]) -> GroundSampleDistance | None:
        """What a model's card says of its training; None where it does not tell.

        Raises:
            ModelError: the entry is there and is no range.
        """
        entry = training.get(ENTRY) if isinstance(training, Mapping) else None
        if entry is None:
            return None
        try:
            least, greatest = entry
            return cls(least=float(least), greatest=float(greatest))
        except (TypeError, ValueError, OverflowError, UsageError) as error:
            raise ModelError(
                f"the model's {ENTRY} is {entry!r}, not a least and a greatest size in metres; "
                "fetch the model again or train another"
            ) from error

    @property
    def middle(self) -> float:
        """Geometric mean of the range."""
        return math.sqrt(self.least * self.greatest)

    @property
    def text(self) -> str:
        """Such as ``0.3 to 1 m``."""
        if self.least == self.greatest:
            return f"{self.least:.3g} m"
        return f"{self.least:.3g} to {self.greatest:.3g} m"

    def widened(self, zoom: float) -> GroundSampleDistance:
        """The sizes that training has shown well, where chips are zoomed at random up to `zoom`.

        That is the square root of it in either direction.
        """
        reach = math.sqrt(zoom)
        return GroundSampleDistance(least=self.least / reach, greatest=self.greatest * reach)

    def ratio(self, metres: float) -> float:
        """Ratio of a pixel size to the nearest of the range; 1 within it."""
        return metres / min(max(metres, self.least), self.greatest)

    def differs(self, metres: float) -> bool:
        """Whether a pixel size is outside the range by more than `TOLERANCE`."""
        ratio = self.ratio(metres)
        return max(ratio, 1 / ratio) > TOLERANCE


def resampled_patch(patch: int, ratio: float) -> int:
    """Side in raster pixels of one patch of the network, for pixels `ratio` times as large.

    The factor between the two is ``patch / resampled_patch``: as near to `ratio` as a whole number
    allows, so that tiles and strides are whole patches and whole pixels at once.

    Args:
        patch: side of the network's patch, in its own pixels.
        ratio: above 1 for a raster coarser than the network's, below 1 for a finer one.

    Raises:
        UsageError: the ratio is out of reach.
    """
    if not 1 / MAX_RESAMPLING <= ratio <= MAX_RESAMPLING:
        raise UsageError(
            f"pixels {max(ratio, 1 / ratio):.3g} times {'larger' if ratio > 1 else 'smaller'} than "
            f"the model's: at most {MAX_RESAMPLING} times can be matched; use a model trained "
            "nearer to this resolution, or resample the raster yourself"
        )
    below = max(1, math.floor(patch / ratio))
    # Nearest as a factor, not as a difference.
    return below if patch / below / ratio <= ratio * (below + 1) / patch else below + 1
