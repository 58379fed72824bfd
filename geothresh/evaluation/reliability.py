"""Reliability diagram and expected calibration error (ECE) of confidences."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array

BINS = 10
"""Number of equal bins of [0, 1] in the reliability diagram."""


@dataclass(slots=True)
class Reliability:
    """Reliability diagram: how often pixels of each confidence are truly foreground."""

    counts: Int64Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Pixels of each bin."""
    foreground: Int64Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Truly foreground pixels of each bin."""
    sums: Float64Array = field(default_factory=lambda: np.zeros(BINS, np.float64))
    """Sum of the confidences of each bin."""

    def add(self, confidence: Float32Array, truth: BoolArray, valid: BoolArray) -> None:
        """Count the valid pixels of a map."""
        values, right = confidence[valid], truth[valid]
        bins = np.minimum((values * np.float32(BINS)).astype(np.intp), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.foreground += np.bincount(bins[right], minlength=BINS)
        self.sums += np.bincount(bins, weights=values, minlength=BINS)

    def add_levels(
        self, confidences: Float32Array, background: Int64Array, foreground: Int64Array
    ) -> None:
        """Count pixels given as histograms.

        Args:
            confidences: (N,) in [0, 1].
            background: (N,) truly background pixels of each confidence.
            foreground: (N,) truly foreground pixels of each confidence.
        """
        bins = np.minimum((confidences * np.float32(BINS)).astype(np.intp), BINS - 1)
        total = background + foreground
        np.add.at(self.counts, bins, total)
        np.add.at(self.foreground, bins, foreground)
        np.add.at(self.sums, bins, total * confidences.astype(np.float64))

    def points(self) -> list[tuple[float, float, int]]:
        """Mean confidence, share of foreground and number of pixels of each bin that has any."""
        return [
            (float(total / count), float(right / count), int(count))
            for total, right, count in zip(self.sums, self.foreground, self.counts, strict=True)
            if count
        ]

    @property
    def error(self) -> float:
        """Expected calibration error (ECE), 0 to 1."""
        return float(np.abs(self.sums - self.foreground).sum() / max(1, self.counts.sum()))
