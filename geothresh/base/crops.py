"""Training samples: random squares of images and masks, turned, flipped, brighter or darker.

Each crop is drawn from a random generator seeded by (seed, number of the crop), so that a run that
is resumed sees the very same crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geothresh.base.config import BaseRecipe
from geothresh.raster.image_pairs import ImagePair
from geothresh.raster.pairs import read_mask
from geothresh.raster.pictures import read_rgb
from geothresh.training.chips import in_passes, pad_to, random_window, turned
from geothresh.types import BoolArray, Float32Array, UInt8Array

#: Decoded images are kept in memory up to this many bytes.
_CACHE_BYTES = 4 * 1024**3


class Crops:
    """Batches of crops by the number of the step."""

    def __init__(self, pairs: Sequence[ImagePair], recipe: BaseRecipe) -> None:
        self.pairs = list(pairs)
        self.recipe = recipe
        self._cache: dict[Path, tuple[UInt8Array, BoolArray]] = {}
        self._cached_bytes = 0

    def batch(self, step: int) -> tuple[Float32Array, Float32Array]:
        """The crops of a step, counted from 0.

        Returns:
            Images (B, T, T, 3) in [0, 1] and masks (B, T, T), 0 or 1.
        """
        first = step * self.recipe.batch_size
        drawn = [self._crop(first + k) for k in range(self.recipe.batch_size)]
        images, masks = zip(*drawn, strict=True)
        return np.stack(images), np.stack(masks)

    def _crop(self, number: int) -> tuple[Float32Array, Float32Array]:
        recipe, size = self.recipe, self.recipe.crop_size
        rng = np.random.default_rng([recipe.seed, number])
        pair = self.pairs[in_passes(number, len(self.pairs), (recipe.seed,))]
        image, mask = self._read(pair)
        window = random_window(mask.shape, size, rng)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        picture, truth = (
            turned(pad_to(array[window], size, size), turns, flip) for array in (image, mask)
        )
        contrast = np.float32(1 + rng.uniform(-recipe.jitter, recipe.jitter))
        brightness = np.float32(rng.uniform(-recipe.jitter, recipe.jitter) / 2)
        values = picture.astype(np.float32) / np.float32(255)
        mean = values.mean()
        values = np.clip((values - mean) * contrast + mean + brightness, 0, 1)
        return np.asarray(values, np.float32), truth.astype(np.float32)

    def _read(self, pair: ImagePair) -> tuple[UInt8Array, BoolArray]:
        if pair.image in self._cache:
            return self._cache[pair.image]
        image, mask = read_rgb(pair.image), read_mask(pair.mask)
        if self._cached_bytes + image.nbytes + mask.nbytes <= _CACHE_BYTES:
            self._cache[pair.image] = image, mask
            self._cached_bytes += image.nbytes + mask.nbytes
        return image, mask
