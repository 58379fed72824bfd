"""Scope of a model, from its card, and the factor by which a raster is resampled to it.

The scope is the theme, the pixel sizes and foreground widths that the model was trained on, and how
it reads and cuts maps. torch is not imported: reading a model card must stay cheap.
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
"""A warning is given for pixels that are this many times smaller or larger than the model's."""

MAX_RESAMPLING = 8
"""Greatest resampling factor. Beyond it, objects look different from those that the model was
trained on. The memory of a tile grows with the square of the factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The least and the greatest value that a model was trained on: finite numbers above 0."""

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
        """A value divided by the nearest number of the range; 1 within the range."""
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
        """Read the range from a model's card; None if the card has none.

        Raises:
            ModelError: the entry is not a range.
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
        """The range in a message, such as ``0.3 to 1 m``."""
        if self.least == self.greatest:
            return f"{self.least:.3g} m"
        return f"{self.least:.3g} to {self.greatest:.3g} m"

    def widened(self, zoom: float) -> GroundSampleDistance:
        """The range that training covers well if chips are zoomed at random by up to `zoom`.

        Both ends are moved outwards by a factor of the square root of `zoom`.
        """
        reach = math.sqrt(zoom)
        return GroundSampleDistance(least=self.least / reach, greatest=self.greatest * reach)

    def differs(self, metres: float) -> bool:
        """Whether a pixel size is outside the range by more than `TOLERANCE`."""
        ratio = self.ratio(metres)
        return max(ratio, 1 / ratio) > TOLERANCE


def resampled_patch(patch: int, ratio: float) -> int:
    """Side of the network's patch in raster pixels, which are `ratio` times as large as its own.

    It is a whole number, so that tiles and strides are whole patches and whole raster pixels. The
    resampling factor is ``patch / resampled_patch``, the nearest to `ratio` with a whole number.

    Args:
        patch: side of the network's patch, in its own pixels.
        ratio: above 1 for a raster that is coarser than the network's pixels, below 1 for a finer
            one.

    Raises:
        UsageError: the ratio is greater than `MAX_RESAMPLING`, or less than its inverse.
    """
    if not 1 / MAX_RESAMPLING <= ratio <= MAX_RESAMPLING:
        raise UsageError(
            f"pixels {max(ratio, 1 / ratio):.3g} times {'larger' if ratio > 1 else 'smaller'} than "
            f"the model's: at most {MAX_RESAMPLING} times can be matched; use a model trained "
            "nearer to this resolution, or resample the raster yourself"
        )
    below = max(1, math.floor(patch / ratio))
    # Nearest by ratio, not by difference.
    return below if patch / below / ratio <= ratio * (below + 1) / patch else below + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScope:
    """What a model was trained on and for; a field is None or empty if the card lacks it."""

    theme: str = ""
    """Name of the foreground, such as ``roads and streets``."""
    pixels: GroundSampleDistance | None = None
    """Ground sample distances that the model was trained on."""
    widths: Range | None = None
    """Widths of the foreground in pixels that it was trained on; see `foreground_width`."""
    keep: float | None = None
    """Threshold of the refined confidence for pixels that are foreground in the input; None = the
    same threshold as for all other pixels."""
    smooth: bool = False
    """Whether it reads smoothed maps, see `geothresh.nn.wrappers.SmoothedRefiner`."""
    strength: float = 1.0
    """Share of the model's logit in the refined one; the rest is the input's. A model may ask for
    less than 1 if its corrections are too large."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise UsageError(f"keep threshold {self.keep:g}: give a confidence from 0 to 1")
        if not 0 < self.strength <= 1:
            raise UsageError(f"strength {self.strength:g}: give a share above 0, at most 1")

    @classmethod
    def of_card(cls, training: Mapping[str, Any]) -> ModelScope:
        """Read the scope from a model's card.

        Raises:
            ModelError: an entry is invalid.
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
        """Pixel size of the raster divided by the pixel size at which the network reads it.

        Args:
            resolution: ``native``: not resampled. A number: resampled to pixels of that many
                metres. ``auto``: not resampled within the model's range, else resampled to the
                nearest end of that range. The range is that of ground sample distances if both are
                known, else that of widths of the foreground.
            metres: ground sample distance of the raster; None = unknown.
            width: width of the raster's foreground, in its pixels; None = not measured.

        Returns:
            1 if the raster is not resampled; with ``auto``, from 1 / `MAX_RESAMPLING` to
            `MAX_RESAMPLING`.

        Raises:
            UsageError: `resolution` is a number, and `metres` is unknown.
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
        """The scope in words, as ``roads and streets, pixels of 0.2 to 2 m``; may be empty."""
        pixels = "" if self.pixels is None else f"pixels of {self.pixels.text}"
        return ", ".join(filter(None, (self.theme, pixels)))


UNKNOWN = ModelScope()
"""The scope of a model whose card has no such entries."""
