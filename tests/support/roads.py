"""Small data to train on, drawn in code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from tests.support.pictures import write

SIDE = 96


def make_roads(folder: Path) -> tuple[Path, list[Path]]:
    """Six places with straight roads, and two base networks that see them blurred."""
    rng = np.random.default_rng(0)
    data, networks = folder / "roads", [folder / "net1", folder / "net2"]
    for k in range(6):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[10 + 8 * k : 16 + 8 * k] = True
        mask[:, 70 - 7 * k : 76 - 7 * k] = True
        write(data / f"p{k}_mask.png", mask.astype(np.uint8) * 255)
        for number, network in enumerate(networks):
            seen = ndimage.gaussian_filter(mask.astype(float), 2 + number)
            seen += rng.normal(size=mask.shape) * 0.05
            write(network / f"p{k}.png", (np.clip(seen, 0, 1) * 255).astype(np.uint8))
    return data, networks
