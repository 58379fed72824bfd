"""Domain of a model, from its card, and the factor by which a raster is resampled to it.

The domain is the theme, pixel sizes and foreground widths that the model was trained on, and how it
reads and cuts maps. No torch here: reading a model card must stay cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geothresh.errors import ModelError, UsageError
from geothresh.options import Resolution

ENTRY = "ground_sample_distance"
"""Entry of a model's card: least and greatest ground sample distance, in metres."""

TOLERANCE = 1.5
"""A warning is given for pixels this many times smaller or larger than those of the model."""

MAX_RESAMPLING = 8
"""Greatest resampling factor. Beyond it a raster shows other things than those that the model
knows, and the memory of a tile grows with its square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Two finite numbers above 0: the least and the greatest of what a model was trained on."""

    least: float
    greatest: float

    def __post_init__(self) -> None:
        if not self._is_range:
            raise UsageError(
                f"range {self.least:g} to {self.greatest:g}: give finite numbers above 0"
            )

    @property
    def _is_range(self) -> bool:
        return 0 < self.least <= self.greatest and math.isfinite(self.greatest)

    def ratio(self, value: float) -> float:
        """How many times larger than the nearest number of the range; 1 within it."""
        return value / min(max(value, self.least), self.greatest)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundSampleDistance(Range):
    """Range of ground sample distances that a model was trained on, in metres per pixel."""

    def __post_init__(self) -> None:
        if not self._is_range:
            raise UsageError(
                f"ground sample distance {self.least:g} to {self.greatest:g} m: give one size of a "
                "pixel above 0, or the least and the greatest"
            )

    @classmethod
    def of_card(cls, training: Mapping[str, Any]) -> GroundSampleDistance | None:
        """The entry of a model's card; None where there is none.

        Raises:
            ModelError: the entry is there and is no range.
        """
        entry = training.get(ENTRY)
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
        """The range that training covers well if chips are zoomed at random by up to `zoom`.

        It is widened by the square root of `zoom` in either direction.
        """
        reach = math.sqrt(zoom)
        return GroundSampleDistance(least=self.least / reach, greatest=self.greatest * reach)

    def differs(self, metres: float) -> bool:
        """Whether a pixel size is outside the range by more than `TOLERANCE`."""
        ratio = self.ratio(metres)
        return max(ratio, 1 / ratio) > TOLERANCE


def resampled_patch(patch: int, ratio: float) -> int:
    """Side in raster pixels of one patch of the network, for pixels `ratio` times as large.

    It is a whole number, so that tiles and strides are both whole patches and whole raster pixels.
    The resampling factor is ``patch / resampled_patch``, as near to `ratio` as that allows.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScope:
    """What a model was trained on and for; None or empty where its card does not say."""

    theme: str = ""
    """What its foreground is, in words: ``roads and streets``."""
    pixels: GroundSampleDistance | None = None
    """Sizes on the ground of the pixels that it was trained on."""
    widths: Range | None = None
    """Widths of the foreground that it was trained on, in pixels; see `foreground_width`."""
    keep: float | None = None
    """Threshold of the refined confidence for pixels that are foreground in the input; None = the
    same threshold as for all other pixels."""
    smooth: bool = False
    """Whether it reads maps smoothed, see `geothresh.nn.wrappers.SmoothedRefiner`."""
    strength: float = 1.0
    """Share of its logit in the refined one, the rest being the input's: below 1 for a model that
    is right more often than it is sure of."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise UsageError(f"keep threshold {self.keep:g}: give a confidence from 0 to 1")
        if not 0 < self.strength <= 1:
            raise UsageError(f"strength {self.strength:g}: give a share above 0, at most 1")

    @classmethod
    def of_card(cls, training: Mapping[str, Any]) -> ModelScope:
        """What a model's card says.

        Raises:
            ModelError: an entry is there and makes no sense.
        """
        ends, keep = training.get("widths"), training.get("keep")
        try:
            widths = None
            if ends is not None:
                least, greatest = ends
                widths = Range(least=least, greatest=greatest)
            return cls(
                theme=str(training.get("theme", "")),
                pixels=GroundSampleDistance.of_card(training),
                widths=widths,
                keep=None if keep is None else float(keep),
                smooth=bool(training.get("smooth", False)),
                strength=float(training.get("strength", 1)),
            )
        except (TypeError, ValueError, OverflowError, UsageError) as error:
            raise ModelError(
                f"the model's card tells a scope that makes no sense ({error}); fetch the model "
                "again or train another"
            ) from error

    def raster_ratio(
        self, resolution: Resolution, *, metres: float | None, width: float | None = None
    ) -> float:
        """Size of a raster's pixels divided by the size of those that the network reads.

        Args:
            resolution: ``native`` reads the raster as it is; metres read it at pixels of that size;
                ``auto`` reads it as it is within the model's range, and otherwise resamples it to
                the nearest end of that range: of pixel sizes on the ground if both are known, else
                of widths of the foreground.
            metres: size of the raster's pixels on the ground; None = not known.
            width: of the raster's foreground, in its pixels; None = not measured.

        Returns:
            1 where the raster is read as it is; with ``auto``, within `MAX_RESAMPLING` of 1.

        Raises:
            UsageError: metres are asked for, and the raster's are not known.
        """
        if resolution == "native":
            return 1.0
        if resolution != "auto":
            if metres is None:
                raise UsageError(
                    f"`resolution` {resolution:g}: the size of the raster's pixels on the ground "
                    "is not known (no CRS, or no transform); say native, or georeference it"
                )
            return metres / resolution
        ratio = 1.0
        if metres is not None and self.pixels is not None:
            ratio = self.pixels.ratio(metres)
        elif metres is None and width is not None and self.widths is not None:
            ratio = 1 / self.widths.ratio(width)
        return min(max(ratio, 1 / MAX_RESAMPLING), MAX_RESAMPLING)

    def text(self) -> str:
        """Such as ``roads and streets, pixels of 0.2 to 2 m``; empty where nothing is known."""
        pixels = "" if self.pixels is None else f"pixels of {self.pixels.text}"
        return ", ".join(filter(None, (self.theme, pixels)))


UNKNOWN = ModelScope()
"""The scope of a model whose card says nothing."""
