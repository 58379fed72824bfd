"""Region-specific thresholds read literally, one patch after the other."""

from __future__ import annotations

import numpy as np

from geothresh.thresholding import (
    THRESHOLDS,
)


def naive_best(confidence: np.ndarray, truth: np.ndarray) -> np.float32:
    """Section 3.2 read literally, for one patch."""
    best, best_value = THRESHOLDS[0], -np.inf
    for threshold in THRESHOLDS:
        prediction = confidence >= threshold
        if truth.any():
            value = (prediction & truth).sum() / (prediction | truth).sum()
        else:
            value = -float(prediction.sum())
        if value > best_value:
            best, best_value = threshold, value
    return best


def naive_target(confidence: np.ndarray, truth: np.ndarray, patch: int) -> np.ndarray:
    """The map cut patch by patch, one patch after the other."""
    target = np.zeros(confidence.shape, dtype=bool)
    for row in range(0, confidence.shape[0], patch):
        for col in range(0, confidence.shape[1], patch):
            cell = np.s_[row : row + patch, col : col + patch]
            target[cell] = confidence[cell] >= naive_best(confidence[cell], truth[cell])
    return target
