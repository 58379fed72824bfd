"""Blobs as truth and confidences that follow them: arrays, and folders of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from geothresh.raster.pictures import write_png


def scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs as truth and a confidence that follows them too broadly; 8-bit steps."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), 4)
    truth = field > np.quantile(field, 0.7)
    noise = ndimage.gaussian_filter(rng.normal(size=(height, width)), 2)
    score = field / (field.std() + 1e-9) - 0.2 + noise / (noise.std() + 1e-9) * 0.4
    levels = np.round(255 / (1 + np.exp(-2 * score.clip(-9, 9)))).astype(np.uint8)
    return levels, truth


def write_pairs(
    folder: Path, seeds: range, *, network: str = "net", name: str = "place"
) -> tuple[Path, Path]:
    """DeepGlobe layout; returns the folders of masks and of confidences."""
    data, confidence = folder / "data", folder / network
    data.mkdir(exist_ok=True)
    confidence.mkdir()
    for seed in seeds:
        levels, truth = scene(seed, 70, 90)
        write_png(data / f"{name}{seed}_mask.png", truth.astype(np.uint8) * 255)
        write_png(confidence / f"{name}{seed}.png", levels)
    return data, confidence
