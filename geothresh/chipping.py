"""Crop, pad, rotate and flip arrays: augmentation that all trainings share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def random_window(
    shape: tuple[int, ...], chip_size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """A square of the chip's size in an array (H, W, ...), or all of a side that is shorter."""
    starts = [int(rng.integers(max(side - chip_size, 0) + 1)) for side in shape[:2]]
    rows, cols = (slice(start, start + chip_size) for start in starts)
    return rows, cols


def pad_to(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Mirror an array (H, W, ...) outwards, below and to the right.

    `refine` does so with tiles that reach beyond the raster.
    """
    rows, cols = max(height - array.shape[0], 0), max(width - array.shape[1], 0)
    rest = ((0, 0),) * (array.ndim - 2)
    return np.pad(array, ((0, rows), (0, cols), *rest), mode="symmetric")


def turned(array: NDArray[Any], turns: int, flip: bool) -> NDArray[Any]:
    """One of the eight symmetries of the square, of an array (H, W, ...)."""
    result = np.rot90(array, turns)
    return result[:, ::-1] if flip else result


def in_passes(position: int, count: int, seed: tuple[int, ...]) -> int:
    """Index of the sample at a position of an endless, shuffled run through ``count`` samples.

    Every sample comes once before any comes again: a permutation per pass, which depends on the
    seed and the pass alone and so is the same in all processes.
    """
    passes, place = divmod(position, count)
    return int(np.random.default_rng([*seed, passes, 1]).permutation(count)[place])
