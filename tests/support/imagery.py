"""Small image sets in DeepGlobe layout for tests: bright roads on darker ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geothresh.mosaic import Refiner


def road_image(seed: int, side: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (side, side, 3) with one road across it, and its mask, 0 and 255."""
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 90, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    start = int(rng.integers(4, side - 12))
    mask[start : start + 8] = 255
    if seed % 2:
        mask = mask.T
    image[mask > 0] += 120
    return image, mask


def image_set(folder: Path, count: int, *, side: int = 64, prefix: str = "r") -> Path:
    """Write `count` pairs ``<prefix><n>_sat.png`` and ``_mask.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image, mask = road_image(n + 100 * len(prefix), side)
        Image.fromarray(image).save(folder / f"{prefix}{n}_sat.png")
        Image.fromarray(mask).save(folder / f"{prefix}{n}_mask.png")
    return folder


def in_one_pass(predictor: Refiner, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The confidence (H, W) of a whole image (H, W, 3), its sides mirrored to multiples of 32."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="symmetric")
    tiles = (padded.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]
    return predictor(tiles)[0, :height, :width]
