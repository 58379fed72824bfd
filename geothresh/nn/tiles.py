"""What refiners of tiles have in common, with or without a network."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from geothresh.types import Float32Array

SATURATED = np.float32(1e-6)
"""What a network gives as 0 or 1 is taken to be this far from it where its logit is wanted."""


class TileRefiner(Protocol):
    """(B, T, T) float32 confidences in [0, 1] to the same; T is a multiple of the patch."""

    @property
    def patch(self) -> int:
        """Side of the patch, in pixels of the tile."""
        ...

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def digest(self) -> str:
        """sha256 of the model, hexadecimal; empty for what is not a file."""
        ...

    def __call__(self, tiles: Float32Array, /) -> Float32Array:
        """Refine tiles."""
        ...


def parallel_calls(refiner: TileRefiner) -> int:
    """Threads that may call a refiner at once: as it says itself, 1 if it says nothing."""
    return int(getattr(refiner, "parallel_calls", 1))
