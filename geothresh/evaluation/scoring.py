"""Scores of maps against their truth at all 19 thresholds, summed as counts over all maps.

Cutting a map and eroding the mask gives the same pixels as eroding the map (a minimum filter) and
cutting that. So one minimum filter serves the boundary measure at all 19 thresholds, and histograms
of the map and of its erosion hold all counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.evaluation.report import MEASURES, Row, SourceReport
from geothresh.evaluation.verdict import Changes, Verdict
from geothresh.metrics import Counts, MapScore, Summary, boundary_band, boundary_distance, erode
from geothresh.options import Metric
from geothresh.thresholding import (
    N_BINS,
    THRESHOLDS,
    cut_mask,
    kept_confidence,
    region_target,
    threshold_bins,
)
from geothresh.types import BoolArray, Float32Array, Int64Array


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
        metric: how `distance` is counted, see `geothresh.metrics.Metric`.
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


CUT = 0.5
"""The usual threshold of base networks, with which refinement is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One map with its truth."""

    id: str
    """Name of the map, unique within its source."""
    confidence: Float32Array
    """(H, W) in [0, 1], 0 at invalid pixels."""
    truth: BoolArray
    """(H, W), True = foreground."""
    valid: BoolArray | None = None
    """(H, W), True = confidence and truth are both known; None = everywhere."""
    refined: Float32Array | None = None
    """(H, W) refined confidence in [0, 1], 0 at invalid pixels; None = not refined."""

    @property
    def counted(self) -> BoolArray:
        """(H, W), True = counted: `valid`, or everywhere."""
        return np.ones(self.truth.shape, np.bool_) if self.valid is None else self.valid

    def mask(self, threshold: float, keep: float | None) -> BoolArray | None:
        """The refined mask, see `cut_mask`; None = not refined."""
        if self.refined is None:
            return None
        before = self.confidence >= np.float32(threshold)
        return cut_mask(self.refined, before, threshold=threshold, keep=keep)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Scores of the maps of one base network, added one by one; the maps are not kept."""

    patch: int
    """Side of the regions of the bound (region-specific thresholds), in pixels."""
    threshold: float = 0.5
    """Cut of the refined confidence."""
    keep: float | None = None
    """Cut for the foreground of the input, see `cut_mask`."""
    distance: int | None = None
    """Reach of Boundary IoU in pixels; None takes `boundary_distance` of each map."""
    metric: Metric = "chessboard"
    """How `distance` is counted, see `geothresh.metrics.Metric`."""
    ids: list[str] = field(default_factory=list)
    distances: list[int] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    cut: list[MapScore] = field(default_factory=list)
    regions: list[MapScore] = field(default_factory=list)
    refined: list[MapScore] = field(default_factory=list)
    refined_sweeps: list[Sweep] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Score one map. Raises ValueError where its arrays do not fit together."""
        truth, valid = sample.truth, sample.valid
        distance = self.distance or boundary_distance(truth.shape[0], truth.shape[1])

        def score(prediction: BoolArray, confidence: Float32Array | None = None) -> MapScore:
            return MapScore.of(
                prediction=prediction,
                target=truth,
                valid=valid,
                confidence=confidence,
                distance=distance,
                metric=self.metric,
            )

        def at_thresholds(confidence: Float32Array) -> Sweep:
            return sweep(confidence, truth, distance=distance, metric=self.metric, valid=valid)

        self.ids.append(sample.id)
        self.distances.append(distance)
        self.sweeps.append(at_thresholds(sample.confidence))
        self.cut.append(score(sample.confidence >= CUT, sample.confidence))
        self.regions.append(
            score(region_target(sample.confidence, truth, patch=self.patch, valid=valid))
        )
        mask = sample.mask(self.threshold, self.keep)
        if sample.refined is not None and mask is not None:
            self.refined.append(score(mask, sample.refined))
            kept = kept_confidence(sample.refined, sample.confidence, self.keep)
            self.refined_sweeps.append(at_thresholds(kept))

    def report(self, name: str, unit: str = "map") -> SourceReport:
        """Summarise the maps that were added.

        Args:
            name: name of the base network.
            unit: word for one map in the report.

        Raises:
            InputError: nothing was added, or some maps were refined and others not.
        """
        if not self.ids:
            raise InputError(f"{name}: 0 {unit}s with valid pixels; nothing to evaluate")
        if self.refined and len(self.refined) != len(self.ids):
            raise InputError(
                f"{name}: {len(self.refined)} of {len(self.ids)} {unit}s are refined; "
                "refine all of them or none"
            )
        singles = list(_singles(self.sweeps))
        rows = [
            Row(
                key="cut",
                label=f"cut at {CUT}",
                oracle=False,
                threshold=CUT,
                summary=Summary.of(self.cut),
            ),
            *(row for _, row in singles),
            Row(
                key="per_map",
                label=f"best threshold of each {unit}",
                oracle=True,
                threshold=None,
                summary=Summary.of([_at(s, _best_of_map(s)) for s in self.sweeps]),
            ),
            Row(
                key="regions",
                label=f"best thresholds by region, P = {self.patch}",
                oracle=True,
                threshold=None,
                summary=Summary.of(self.regions),
            ),
        ]
        if self.refined:
            rows.append(
                Row(
                    key="refined",
                    label=f"refined, cut at {self.threshold:g}",
                    oracle=False,
                    threshold=self.threshold,
                    summary=Summary.of(self.refined),
                )
            )
            rows += [row for _, row in _singles(self.refined_sweeps, refined=True)]
        return SourceReport(
            name=name,
            unit=unit,
            distances=(min(self.distances), max(self.distances)),
            metric=self.metric,
            rows=tuple(rows),
            changes=self._changes(),
            maps=tuple(self._maps()),
            verdict=self._verdict(singles[0][0], unit),
        )

    def _changes(self) -> dict[str, Changes]:
        if not self.refined:
            return {}
        boundary = ([s.boundary.iou() for s in scores] for scores in (self.cut, self.refined))
        return {
            "iou": Changes.of(self.ids, _ious(self.cut), _ious(self.refined)),
            "boundary_iou": Changes.of(self.ids, *boundary),
        }

    def _verdict(self, single: int, unit: str) -> Verdict | None:
        """Refined against unrefined maps; ``single`` is the index of their best one threshold."""
        if not self.refined:
            return None
        return Verdict.of(
            cut=_ious(self.cut),
            single=[s.counts[single].iou() for s in self.sweeps],
            regions=_ious(self.regions),
            refined=_ious(self.refined),
            unit=unit,
        )

    def _maps(self) -> Iterator[dict[str, object]]:
        for i, name in enumerate(self.ids):
            line: dict[str, object] = {"id": name}
            for key, scores in (("cut", self.cut), ("refined", self.refined)):
                if scores:
                    line[key] = {
                        "iou": scores[i].counts.iou(),
                        "boundary_iou": scores[i].boundary.iou(),
                        **scores[i].counts.as_dict(),
                    }
            yield line


def _ious(scores: Sequence[MapScore]) -> list[float]:
    return [score.counts.iou() for score in scores]


def _singles(sweeps: Sequence[Sweep], *, refined: bool = False) -> Iterator[tuple[int, Row]]:
    """Index and row of the best single threshold of all maps, for each measure."""
    cuts = range(len(THRESHOLDS))
    summaries = [Summary.of([_at(s, k) for s in sweeps]) for k in cuts]
    counts = [sum((s.counts[k] for s in sweeps), Counts()) for k in cuts]
    for measure in MEASURES:
        k = _best([measure.of(summary) for summary in summaries], counts)
        cut = round(float(THRESHOLDS[k]), 2)
        label = ("refined, " if refined else "") + "best single threshold"
        if measure.suffix:
            label += f" for {measure.name}"
        yield (
            k,
            Row(
                key=("refined_single" if refined else "single") + measure.suffix,
                label=f"{label}, {cut:.2f}",
                oracle=True,
                threshold=cut,
                summary=summaries[k],
            ),
        )


def _best_of_map(scores: Sweep) -> int:
    """Index of the threshold with the highest IoU."""
    return _best([counts.iou() for counts in scores.counts], scores.counts)


def _best(values: Sequence[float], counts: Sequence[Counts]) -> int:
    """Index of the threshold with the highest value; the first of equals.

    Without foreground in the truth every cut but an empty one has an IoU of 0: the lowest threshold
    with the fewest false positives is taken, as by `geothresh.thresholding.best_thresholds`.
    """
    if not counts[0].tp + counts[0].fn:
        return int(np.argmin([cut.fp for cut in counts]))
    return int(np.argmax(values))


def _at(scores: Sweep, k: int) -> MapScore:
    return MapScore(counts=scores.counts[k], boundary=scores.boundary[k])
