"""Training samples: a random square of a map, turned, flipped, perhaps disturbed, with its targets.

Each chip is drawn from a random generator seeded by (seed, epoch, position), so that a run that is
resumed, or loaded by other workers, sees the very same chips.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import Dataset

from geothresh.chipping import in_passes, pad_to, random_window, turned
from geothresh.errors import UsageError
from geothresh.nn.network import LOGIT_MARGIN
from geothresh.raster.pairs import Pair, read_confidence, read_mask
from geothresh.thresholding import region_target
from geothresh.training.recipe import Recipe

Float32Array = NDArray[np.float32]

#: Decoded maps are kept in memory up to this many bytes.
_CACHE_BYTES = 2 * 1024**3


class Chip(NamedTuple):
    """One sample, each array float32 (1, T, T)."""

    confidence: Float32Array
    region_target: Float32Array
    truth: Float32Array


class ChipDataset(Dataset[Chip]):
    """The chips of one epoch; `set_epoch` draws the next ones."""

    def __init__(self, pairs: Sequence[Pair], recipe: Recipe, *, patch: int) -> None:
        if recipe.chip_size % patch:
            raise UsageError(
                f"chip size {recipe.chip_size} is no multiple of the patch {patch}, which keeps "
                "its grid inside every chip"
            )
        self.pairs = list(pairs)
        self.recipe = recipe
        self.patch = patch
        self.epoch = 0
        self._by_id: dict[str, list[Pair]] = defaultdict(list)
        self._by_dataset: dict[str, list[int]] = defaultdict(list)
        for position, pair in enumerate(self.pairs):
            self._by_id[pair.id].append(pair)
            self._by_dataset[pair.dataset].append(position)
        self._cache: dict[Path, NDArray[np.uint8]] = {}
        self._cached_bytes = 0

    def set_epoch(self, epoch: int) -> None:
        """Chips from now on are those of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.recipe.chips_per_epoch or len(self.pairs)

    def __getitem__(self, position: int) -> Chip:
        rng = np.random.default_rng([self.recipe.seed, self.epoch, position])
        pair = self.pairs[self._draw(position, rng)]
        size = self.recipe.chip_size
        truth = self._cached(pair.mask, _read_truth)
        factor = _zoom_factor(self.recipe.zoom, rng)
        window = random_window(truth.shape, round(size / factor), rng)
        confidence, cover = self._confidence(pair, window, rng), truth[window].astype(np.float32)
        if factor != 1:
            confidence, cover = (_zoomed(a, factor)[:size, :size] for a in (confidence, cover))
        if self.recipe.jitter or self.recipe.regional_jitter:
            confidence = _jittered(confidence, self.recipe, rng)
        # The patch grid falls onto itself.
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        confidence = turned(pad_to(confidence, size, size), turns, flip)
        mask = turned(pad_to(cover >= 0.5, size, size), turns, flip)
        target = region_target(confidence, mask, patch=self.patch)
        return Chip(
            *(np.ascontiguousarray(a[None], np.float32) for a in (confidence, target, mask))
        )

    def _draw(self, position: int, rng: np.random.Generator) -> int:
        if self.recipe.balance:
            datasets = sorted(self._by_dataset)
            return int(rng.choice(self._by_dataset[datasets[rng.integers(len(datasets))]]))
        return in_passes(position, len(self.pairs), (self.recipe.seed, self.epoch))

    def _confidence(
        self, pair: Pair, window: tuple[slice, slice], rng: np.random.Generator
    ) -> Float32Array:
        confidence = _unit(self._cached(pair.confidence, _read_map)[window])
        others = [p for p in self._by_id[pair.id] if p.source != pair.source]
        if others and rng.random() < self.recipe.mix:
            path = others[rng.integers(len(others))].confidence
            other = _unit(self._cached(path, _read_map)[window])
            share = np.float32(rng.random())
            confidence = _logistic(share * _logit(confidence) + (1 - share) * _logit(other))
        return confidence

    def _cached(self, path: Path, read: Callable[[Path], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        if path not in self._cache:
            pixels = read(path)
            if self._cached_bytes + pixels.nbytes > _CACHE_BYTES:
                return pixels
            self._cache[path] = pixels
            self._cached_bytes += pixels.nbytes
        return self._cache[path]


def _read_map(path: Path) -> NDArray[np.uint8]:
    """A map in 8 bits: what base networks leave, and a quarter of the memory of floats."""
    return np.rint(read_confidence(path) * 255).astype(np.uint8)


def _read_truth(path: Path) -> NDArray[np.uint8]:
    return read_mask(path).astype(np.uint8)


def _zoom_factor(most: float, rng: np.random.Generator) -> float:
    """1 for half of the chips, otherwise log-uniform between 1 / most and most."""
    if most == 1 or rng.random() < 0.5:
        return 1.0
    return float(np.exp(rng.uniform(-1, 1) * np.log(most)))


def _zoomed(array: Float32Array, factor: float) -> Float32Array:
    """Resampled bilinearly; pixels are areas, so both borders stay where they are."""
    zoomed = ndimage.zoom(array, factor, order=1, mode="nearest", grid_mode=True)
    return np.asarray(zoomed, np.float32)


def _jittered(confidence: Float32Array, recipe: Recipe, rng: np.random.Generator) -> Float32Array:
    """The map of a network that is differently calibrated: a random temperature and bias, and a
    bias that varies over the chip."""
    temperature = np.exp(np.float32(rng.normal() * recipe.jitter / 2))
    bias = np.full(confidence.shape, rng.normal() * recipe.jitter, np.float32)
    if recipe.regional_jitter:
        cells = int(rng.integers(2, 8))
        values = rng.normal(size=(cells, cells)) * abs(rng.normal()) * recipe.regional_jitter
        # Enlarged to the longer side and cut: the cells stay square.
        field = _zoomed(values.astype(np.float32), max(confidence.shape) / cells + 1e-6)
        bias += field[: confidence.shape[0], : confidence.shape[1]]
    return _logistic(_logit(confidence) * temperature + bias)


def _unit(pixels: NDArray[np.uint8]) -> Float32Array:
    return pixels.astype(np.float32) / np.float32(255)


def _logit(confidence: Float32Array) -> Float32Array:
    inside = np.clip(confidence, LOGIT_MARGIN, 1 - LOGIT_MARGIN)
    return np.asarray(np.log(inside / (1 - inside)), np.float32)


def _logistic(logit: Float32Array) -> Float32Array:
    return np.asarray(1 / (1 + np.exp(-logit)), np.float32)
