"""What a model is for, as its card tells: theme, pixel sizes, widths, and how readily it removes.

No torch here: reading a model card must stay cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geothresh.errors import ModelError, UsageError
from geothresh.nn.resolution import GroundSampleDistance


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Two numbers above 0, the least and the greatest of what a model has seen."""

    least: float
    greatest: float

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.greatest < math.inf:
            raise UsageError(
                f"range {self.least:g} to {self.greatest:g}: give finite numbers above 0"
            )

    def ratio(self, value: float) -> float:
        """How many times larger than the nearest number of the range; 1 within it."""
        return value / min(max(value, self.least), self.greatest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScope:
    """What a model was trained on and for; None and empty where its card does not tell."""

    theme: str = ""
    """What its foreground is, in words: ``roads and streets``."""
    pixels: GroundSampleDistance | None = None
    """Sizes of pixels on the ground that it has seen."""
    widths: Range | None = None
    """Widths of the foreground that it has seen, in pixels; see `foreground_width`."""
    keep: float | None = None
    """Refined confidence down to which a pixel that the input has as foreground stays foreground;
    None = the threshold itself."""

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise UsageError(f"keep threshold {self.keep:g}: give a confidence from 0 to 1")

    @classmethod
    def of_card(cls, training: Mapping[str, Any]) -> ModelScope:
        """What a model's card says.

        Raises:
            ModelError: an entry is there and makes no sense.
        """
        widths, keep = training.get("widths"), training.get("keep")
        try:
            return cls(
                theme=str(training.get("theme", "")),
                pixels=GroundSampleDistance.of_card(training),
                widths=None if widths is None else Range(least=widths[0], greatest=widths[1]),
                keep=None if keep is None else float(keep),
            )
        except (TypeError, ValueError, IndexError, UsageError) as error:
            raise ModelError(
                f"the model's card tells a scope that makes no sense ({error}); fetch the model "
                "again or train another"
            ) from error

    def text(self) -> str:
        """Such as ``roads and streets, pixels of 0.2 to 2 m``; empty where nothing is told."""
        told = [self.theme] if self.theme else []
        if self.pixels is not None:
            told.append(f"pixels of {self.pixels.text}")
        return ", ".join(told)


UNKNOWN = ModelScope()
"""Of a model that tells nothing."""
