"""Make training samples: random squares of maps, augmented, with their targets.

Each chip has a random generator seeded by (seed, epoch, position), so that a resumed run sees the
same chips with any number of loader processes. Base networks also use the functions that crop, pad,
turn and flip arrays, and the cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch.utils.data import Dataset

from geothresh.nn.transformation import clipped_logit
from geothresh.nn.wrappers import resize_map, smoothed
from geothresh.thresholding import region_target
from geothresh.training.data import ChipSource
from geothresh.training.degradation import degrade, synthesise
from geothresh.training.recipe import Recipe
from geothresh.types import Float32Array

# An interpolated mask is above this value if all source pixels are set; the rest is for rounding.
_WHOLE = 1 - 1e-4


class Chip(NamedTuple):
    """One sample, each array float32 (1, T, T)."""

    confidence: Float32Array
    region_target: Float32Array
    truth: Float32Array
    valid: Float32Array
    """1 where confidence and truth are known; the losses ignore all other pixels."""


class ChipDataset(Dataset[Chip]):
    """The chips of one epoch; `set_epoch` draws those of another one."""

    def __init__(self, sources: Sequence[ChipSource], recipe: Recipe, *, patch: int) -> None:
        recipe.require_whole_patches(patch)
        self.sources = list(sources)
        self.recipe = recipe
        self.patch = patch
        self.epoch = 0
        # The indices of the sources in one pass over the data, each once for each of its chips.
        self._pass = np.repeat(np.arange(len(self.sources)), [s.n_chips for s in self.sources])
        self._by_dataset: dict[str, list[int]] = defaultdict(list)
        for number in self._pass.tolist():
            self._by_dataset[self.sources[number].dataset].append(number)

    def set_epoch(self, epoch: int) -> None:
        """Draw the chips of this epoch from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.recipe.chips_per_epoch or len(self._pass)

    def __getitem__(self, position: int) -> Chip:
        rng = np.random.default_rng([self.recipe.seed, self.epoch, position])
        source = self.sources[self._draw(position, rng)]
        size = self.recipe.chip_size
        factor = source.factor * _zoom_factor(self.recipe.zoom, rng)
        side = max(1, round(size / factor))
        confidence, truth, data, valid = source.cut(side, rng, mix=self.recipe.mix)
        if self.recipe.smooth:
            confidence = smoothed(confidence)
        if factor != 1:
            confidence = _zoomed(confidence, factor)[:size, :size]
            truth = _zoomed(truth.astype(np.float32), factor)[:size, :size] >= 0.5
            # A pixel that is interpolated from a pixel without data has no data either.
            data, valid = (
                None
                if mask is None
                else _zoomed(mask.astype(np.float32), factor)[:size, :size] > _WHOLE
                for mask in (data, valid)
            )
        if self.recipe.synthesise and rng.random() < self.recipe.synthesise:
            confidence = expit(synthesise(truth, rng))
        elif self.recipe.degrade and rng.random() < self.recipe.degrade:
            confidence = expit(degrade(clipped_logit(confidence), truth, rng))
        if self.recipe.jitter or self.recipe.regional_jitter:
            confidence = _jittered(confidence, self.recipe, rng)
        if data is not None:
            # Set to 0 where there is no data after any augmentation, as `refine` does.
            confidence = np.where(data, confidence, np.float32(0))
        if valid is None:
            valid = np.ones(truth.shape, np.bool_)
        # Turning and flipping map the patch grid onto itself.
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        confidence, truth, valid = (
            turned(pad_to(part, size, size), turns, flip) for part in (confidence, truth, valid)
        )
        target = region_target(confidence, truth, patch=self.patch, valid=valid)
        parts = (confidence, target, truth, valid)
        return Chip(*(np.ascontiguousarray(part[None], np.float32) for part in parts))

    def _draw(self, position: int, rng: np.random.Generator) -> int:
        """Index of the source that a chip is cut from."""
        if self.recipe.balance:
            datasets = sorted(self._by_dataset)
            weights = [len(self._by_dataset[d]) ** (1 - self.recipe.balance) for d in datasets]
            chosen = rng.choice(len(datasets), p=np.divide(weights, sum(weights)))
            return int(rng.choice(self._by_dataset[datasets[chosen]]))
        place = in_passes(position, len(self._pass), (self.recipe.seed, self.epoch))
        return int(self._pass[place])


def _zoom_factor(most: float, rng: np.random.Generator) -> float:
    """Zoom of a chip: 1 for half of them, otherwise log-uniform between 1 / most and most."""
    if most == 1 or rng.random() < 0.5:
        return 1.0
    return float(np.exp(rng.uniform(-1, 1) * np.log(most)))


def _zoomed(array: Float32Array, factor: float) -> Float32Array:
    """Resample as `refine` does: bilinear when enlarged, means over areas when reduced."""
    height, width = (max(1, round(side * factor)) for side in array.shape)
    return resize_map(array, height, width)


def _jittered(confidence: Float32Array, recipe: Recipe, rng: np.random.Generator) -> Float32Array:
    """Change the calibration of a map by a random temperature and bias of its logits.

    With ``regional_jitter`` a further bias varies smoothly over the chip.
    """
    temperature = np.exp(np.float32(rng.normal() * recipe.jitter / 2))
    bias = np.full(confidence.shape, rng.normal() * recipe.jitter, np.float32)
    if recipe.regional_jitter:
        cells = int(rng.integers(2, 8))
        values = rng.normal(size=(cells, cells)) * abs(rng.normal()) * recipe.regional_jitter
        # Enlarged to the longer side and cropped, so that the cells stay square.
        field = _zoomed(values.astype(np.float32), max(confidence.shape) / cells + 1e-6)
        bias += field[: confidence.shape[0], : confidence.shape[1]]
    return np.asarray(expit(clipped_logit(confidence) * temperature + bias))


def random_window(
    shape: tuple[int, ...], chip_size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Draw a square of the chip's size in an array (H, W, ...); shorter sides are taken whole."""
    starts = [int(rng.integers(max(side - chip_size, 0) + 1)) for side in shape[:2]]
    rows, cols = (slice(start, start + chip_size) for start in starts)
    return rows, cols


def pad_to(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Pad an array (H, W, ...) below and on the right by mirroring, as `refine` pads tiles."""
    rows, cols = max(height - array.shape[0], 0), max(width - array.shape[1], 0)
    rest = ((0, 0),) * (array.ndim - 2)
    return np.pad(array, ((0, rows), (0, cols), *rest), mode="symmetric")


def turned(array: NDArray[Any], turns: int, flip: bool) -> NDArray[Any]:
    """Apply one of the eight symmetries of the square to an array (H, W, ...)."""
    result = np.rot90(array, turns)
    return result[:, ::-1] if flip else result


@dataclass(slots=True)
class ArrayCache:
    """Cache of decoded arrays by file, up to a limit of memory."""

    limit: int
    """Most bytes that are kept; files that would exceed it are read again each time."""
    arrays: dict[Path, tuple[NDArray[Any], ...]] = field(default_factory=dict)
    n_bytes: int = 0

    def get(
        self, path: Path, read: Callable[[], tuple[NDArray[Any], ...]]
    ) -> tuple[NDArray[Any], ...]:
        """Return the arrays of a file, by `read` if they are not in the cache."""
        if path in self.arrays:
            return self.arrays[path]
        arrays = read()
        size = sum(array.nbytes for array in arrays)
        if self.n_bytes + size <= self.limit:
            self.arrays[path] = arrays
            self.n_bytes += size
        return arrays


def in_passes(position: int, count: int, seed: tuple[int, ...]) -> int:
    """Index of the sample at a position in endless, shuffled passes over ``count`` samples.

    Every sample comes once in each pass. The permutation depends only on the seed and the
    number of the pass, so it is the same in all processes.
    """
    passes, place = divmod(position, count)
    return int(np.random.default_rng([*seed, passes, 1]).permutation(count)[place])
