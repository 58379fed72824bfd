"""Test-time augmentation over the eight symmetries of the square (D4)."""

from __future__ import annotations

from typing import get_args

import numpy as np
from scipy.special import expit, logit

from geothresh.errors import ModelError, UsageError
from geothresh.mosaic import Refiner, parallel_calls
from geothresh.options import Tta
from geothresh.types import Float32Array

SATURATED = np.float32(1e-6)
"""What a network gives as 0 or 1 is taken to be this far from it where its logit is wanted."""

# Logits are rounded to so many parts of 1, finer than the float32 confidences they come from.
_PARTS = 2.0**24


def require_tta(tta: str) -> None:
    """Raise UsageError unless this is one of `Tta`."""
    if tta not in get_args(Tta):
        raise UsageError(f"TTA {tta!r} is unknown; say {' or '.join(get_args(Tta))}")


class SymmetricRefiner:
    """Averages the logits of a refiner over the eight rotations and reflections of each tile.

    The mean is of logits, added up as whole numbers of 2**-24: the order of the eight does not
    matter, so that the refined form of a turned tile is the turned refined form to the last bit,
    as long as the refiner gives the same for equal tiles. Costs eight passes of the refiner, one
    after the other, and the memory of one.
    """

    def __init__(self, refiner: Refiner) -> None:
        self.refiner = refiner
        self.name = refiner.name
        self.digest = refiner.digest
        self.parallel_calls = parallel_calls(refiner)
        self.patch = refiner.patch

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, (B, T, T) float32 in [0, 1].

        Raises:
            ModelError: the tiles are not square, or the refiner refuses them.
        """
        if tiles.ndim != 3 or tiles.shape[1] != tiles.shape[2]:
            raise ModelError(f"tiles of shape {tiles.shape} cannot be turned; give (B, T, T)")
        total = np.zeros(tiles.shape, np.float64)  # of whole numbers, which add up without rounding
        mirrored = total.transpose(0, 2, 1)
        for seen, into in ((tiles, total), (tiles.transpose(0, 2, 1), mirrored)):
            for turns in range(4):
                turned = np.ascontiguousarray(np.rot90(seen, turns, axes=(1, 2)))
                refined = np.clip(self.refiner(turned), SATURATED, 1 - SATURATED)
                parts = np.rint(logit(refined) * np.float32(_PARTS))
                into += np.rot90(parts, -turns, axes=(1, 2))
        return np.asarray(expit(total / (8 * _PARTS)), np.float32)
