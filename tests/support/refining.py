"""`refine` without a network or a word: small tiles, refiners that change little."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

import geothresh
from geothresh.errors import GeothreshWarning
from geothresh.types import Float32Array
from tests.support.fakes import IdentityRefiner
from tests.support.flat import grouped

SMALL = {"tile_size": 64, "overlap": 16}


class InvertingRefiner(IdentityRefiner):
    name = "inverting"

    def refine(self, tiles: Float32Array) -> Float32Array:
        return 1 - tiles


def refine(scene: Any, *arguments: Any, **options: Any) -> geothresh.RefineResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeothreshWarning)
        return geothresh.refine(
            scene, *arguments, **grouped(**{"model": IdentityRefiner(16), **SMALL, **options})
        )


def pixels(path: Path | None) -> Any:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def smooth(height: int, width: int) -> Float32Array:
    rows, columns = np.mgrid[:height, :width]
    return (0.5 + 0.5 * np.sin(rows / 7.3) * np.cos(columns / 5.1)).astype(np.float32)
