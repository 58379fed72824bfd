"""Folders of maps and masks for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def deepglobe(folder: Path, ids: list[str], *, seed: int = 0, side: int = 40) -> Path:
    """Masks in DeepGlobe's layout, no two alike, with the image that is not needed beside them."""
    for number, i in enumerate(ids):
        mask = np.random.default_rng([seed, number]).random((side, side)) < 0.3
        write(folder / f"{i}_mask.png", mask.astype(np.uint8) * 255)
        (folder / f"{i}_sat.jpg").write_bytes(b"not looked at")
    return folder


def maps(folder: Path, ids: list[str], *, side: int = 40) -> Path:
    for number, i in enumerate(ids):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)
        write(folder / f"{i}.png", pixels)
    return folder
