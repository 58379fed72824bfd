"""Weights of the terms of the loss. No torch here: the command line shows these numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the terms, at least 0; the defaults are the paper's."""

    region: float = 0.7
    """The paper's a, 0 to 1: weight of the terms against the region-thresholded target; 1 - a goes
    to the cross entropy against the ground truth."""
    focal: float = 1.0
    """Within a."""
    boundary: float = 1.0
    """Within a."""
    overlap: float = 0.0
    """Soft IoU against the ground truth, per chip; not in the paper."""
    centerline: float = 0.0
    """Soft centreline Dice against the ground truth, per chip; not in the paper."""
