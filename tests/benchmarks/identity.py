"""A model that gives back what it gets, so that all else is what takes time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geothresh.mosaic import Layers, RasterReader
from geothresh.raster.writing import confidence_values, mask_values
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow


class Identity:
    """A model that costs one copy."""

    patch = 64
    name = "identity"
    digest = ""

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Give back a copy."""
        return tiles.copy()


@dataclass(frozen=True)
class IdentitySource:
    """Loads the model that gives back what it gets."""

    patch: int = 64

    def load(self, *, cores: int | None = None) -> Identity:
        """Make one."""
        return Identity()


class Costly(Identity):
    """A model that gives back what it gets, after work for one core."""

    name = "costly"

    def __init__(self, rounds: int) -> None:
        """Take a sine of all pixels so many times."""
        self.rounds = rounds

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Work, and give back a copy."""
        for tile in tiles:
            values = tile
            for _ in range(self.rounds):
                values = np.sin(values)
        return tiles.copy()


@dataclass(frozen=True)
class CostlySource:
    """Loads the model that works on one core."""

    rounds: int = 20
    patch: int = 64

    def load(self, *, cores: int | None = None) -> Costly:
        """Make one."""
        return Costly(self.rounds)


@dataclass(frozen=True)
class MaskAndConfidence:
    """What `refine` stores of a chunk, but for what it counts."""

    def __call__(
        self, reader: RasterReader, window: PixelWindow, refined: Float32Array, valid: BoolArray
    ) -> Layers:
        """Make both."""
        layers = (mask_values(refined >= 0.5, valid), confidence_values(refined, valid))
        return Layers(values=layers, counts={})
