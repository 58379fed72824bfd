"""Maps with their truth, to be scored, and a refiner that changes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geothresh.evaluation.scoring import Sample
from tests.support.blobs import scene
from tests.support.fakes import IdentityRefiner


class SharperRefiner(IdentityRefiner):
    """Takes 0.2 from every confidence, so that its cut at 0.5 is the input's at 0.7."""

    name = "sharper"
    digest = "5ha"

    def refine(self, tiles: np.ndarray) -> np.ndarray:
        return np.maximum(tiles - np.float32(0.2), 0)


def sample(seed: int, size: int = 60, **changes: Any) -> Sample:
    levels, truth = scene(seed, size, size)
    confidence = levels.astype(np.float32) / np.float32(255)
    return replace(Sample(id=f"map{seed}", confidence=confidence, truth=truth), **changes)


def naive_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    union = (prediction | truth).sum()
    return float((prediction & truth).sum() / union) if union else 1.0
