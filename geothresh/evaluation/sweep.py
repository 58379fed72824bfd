"""Scores of one map at all 19 thresholds at once.

Cutting a map at threshold k and eroding the cut gives the same pixels as eroding the map (a
minimum filter over grey values) and cutting that. So one minimum filter serves the boundary
measure at all 19 thresholds, and histograms of the map and of its erosion hold all the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.metrics import Counts, boundary_band, erode
from geothresh.options import Metric
from geothresh.thresholding import N_BINS, threshold_bins
from geothresh.types import BoolArray, Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Counts of one map at each of `geothresh.thresholding.THRESHOLDS`."""

    counts: tuple[Counts, ...]
    """19 counts of the whole mask."""
    boundary: tuple[Counts, ...]
    """19 counts of the boundary bands."""


def sweep(
    confidence: NDArray[Any],
    truth: BoolArray,
    *,
    distance: int,
    metric: Metric = "chessboard",
    valid: BoolArray | None = None,
) -> Sweep:
    """Score a map cut at each of the 19 thresholds.

    Args:
        confidence: (H, W) in [0, 1], finite.
        truth: (H, W), True = foreground.
        distance: reach of the boundary bands in pixels, at least 1.
        metric: how that reach is counted, see `geothresh.metrics.Metric`.
        valid: (H, W), True = counted; all pixels if left out.

    Returns:
        The same counts as `Counts.of` and `boundary_counts` give for every cut.
    """
    reached = threshold_bins(confidence)
    if valid is not None:  # an invalid pixel is background at every threshold, as it is in truth
        reached = reached * valid
        truth = truth & valid
    eroded = erode(reached, distance, metric)
    band = boundary_band(truth, distance, metric)
    total = reached.size if valid is None else int(np.count_nonzero(valid))
    # A pixel lies in the band of cut k where the map reaches threshold k and its erosion does not.
    in_band = _reaching(reached, band) - _reaching(eroded, band)
    return Sweep(
        counts=_counts(_reaching(reached, truth), int(np.count_nonzero(truth)), total),
        boundary=_counts(in_band, int(np.count_nonzero(band)), total),
    )


def _reaching(reached: NDArray[np.integer], truth: BoolArray) -> Int64Array:
    """(2, 19): pixels off and on the truth that reach each threshold."""
    tally = np.bincount((truth * N_BINS + reached).ravel(), minlength=2 * N_BINS)
    tally = tally.reshape(2, N_BINS)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return np.asarray(tally[:, 1:])


def _counts(positive: Int64Array, foreground: int, total: int) -> tuple[Counts, ...]:
    return tuple(
        Counts(tp=tp, fp=fp, fn=foreground - tp, tn=total - fp - foreground)
        for fp, tp in zip(*positive.tolist(), strict=True)
    )
