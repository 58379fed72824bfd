"""Candidates: ways to transform and cut confidences, fitted to histograms of labelled maps.

A candidate that is fitted to some maps gives a `Fitted`: a source and the `Transformation` that
`geothresh.refine` would apply. It is scored on the histograms of other maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, log_expit

from geothresh.calibration.counts import (
    CUTS,
    HALF,
    INPUT,
    LEVELS,
    CountedMaps,
    Source,
    iou,
    iou_at_cuts,
    iou_of_mask,
)
from geothresh.evaluation.reliability import Reliability
from geothresh.nn.transformation import Transformation, clipped_logit
from geothresh.types import BoolArray, Float64Array

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Strengths that are tried: shares of the refined logit in the mix."""
# Bounds of slope and bias. Logits are within 7 of 0, so that any sensible fit lies well inside.
_SLOPES, _BIASES = (0.01, 100.0), (-50.0, 50.0)
# Mean IoUs that differ by less count as equal.
_EQUAL = 1e-12


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted candidate: which confidences are transformed, and how."""

    source: Source
    transformation: Transformation

    def mask(self) -> BoolArray:
        """(2, 256): levels that become foreground, for background and foreground of the input."""
        change = self.transformation
        values = change.calibrated(LEVELS)
        above = values >= np.float32(change.threshold)
        kept = above
        if change.keep is not None:
            kept = above | (values >= np.float32(change.keep))
        return np.stack([above, kept])

    def iou(self, maps: CountedMaps) -> Float64Array:
        """(M,) IoU of each map."""
        return iou_of_mask(maps.counts[self.source], self.mask())

    def count(self, maps: CountedMaps, into: Reliability) -> None:
        """Add the transformed confidences to a reliability diagram."""
        values = self.transformation.calibrated(LEVELS)
        off, on = maps.counts[self.source].sum(axis=(0, 1))
        into.add_levels(values, off, on)


class Candidate(Protocol):
    """A way to transform and cut confidences, not fitted yet."""

    @property
    def key(self) -> str:
        """Identifier for JSON, the same in every version."""
        ...

    @property
    def label(self) -> str:
        """Name in sentences; with a model ``MODEL, WAY``."""
        ...

    @property
    def model(self) -> str:
        """Name of its model in the table; empty = no model."""
        ...

    @property
    def rank(self) -> int:
        """Complexity: of candidates that are about equal, the one with the lowest is advised."""
        ...

    def fit(self, maps: CountedMaps) -> Fitted:
        """Fit the candidate to these maps."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AsIs:
    """A source cut at 0.5; nothing is fitted."""

    key: str
    label: str
    source: Source
    model: str = ""
    keep: float | None = None
    rank: int = 0

    def fit(self, maps: CountedMaps) -> Fitted:
        """Return the same transformation for all maps."""
        change = Transformation(strength=self.source.strength, keep=self.keep)
        return Fitted(self.source, change)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestThreshold:
    """The one threshold, and the one source, with the highest mean IoU over places."""

    key: str
    label: str
    sources: Sequence[Source]
    rank: int
    model: str = ""
    scaled: bool = False
    """Whether temperature and bias are fitted too, which does not change the mask."""

    def fit(self, maps: CountedMaps) -> Fitted:
        """Try all cuts of all sources."""
        best, source, cut = -1.0, self.sources[0], HALF
        for tried in self.sources:
            means = maps.weights @ iou_at_cuts(maps.counts[tried])
            highest = _nearest_best(means)
            if means[highest] > best + _EQUAL:
                best, source, cut = float(means[highest]), tried, highest
        change = Transformation(strength=source.strength, threshold=_cut(cut))
        if self.scaled:
            slope, bias = _platt(maps, source)
            scaled = Transformation(strength=source.strength, slope=slope, bias=bias)
            change = replace(scaled, threshold=float(scaled.calibrated(CUTS[cut])))
        return Fitted(source, change)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureAndBias:
    """Platt scaling: the logistic regression of the truth on the logit; cut at 0.5."""

    key: str = "platt"
    label: str = "temperature and bias"
    model: str = ""
    rank: int = 2

    def fit(self, maps: CountedMaps) -> Fitted:
        """Maximise the likelihood."""
        slope, bias = _platt(maps, INPUT)
        return Fitted(INPUT, Transformation(strength=0, slope=slope, bias=bias))


@dataclass(frozen=True, slots=True, kw_only=True)
class Isotonic:
    """Isotonic regression of the share of foreground on the confidence; cut at 0.5."""

    key: str = "isotonic"
    label: str = "isotonic curve"
    model: str = ""
    rank: int = 4

    def fit(self, maps: CountedMaps) -> Fitted:
        """Pool adjacent violators over the levels that occur."""
        off, on = maps.counts[INPUT].sum(axis=(0, 1))
        total = off + on
        occurs = total > 0
        shares = isotonic_regression(on[occurs] / total[occurs], weights=total[occurs]).x
        curve = _corners(LEVELS[occurs].astype(np.float64), np.clip(shares, 0, 1))
        return Fitted(INPUT, Transformation(strength=0, curve=curve))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Hysteresis: a lower threshold for pixels that are foreground in the input."""

    key: str
    label: str
    source: Source
    rank: int
    model: str = ""

    def fit(self, maps: CountedMaps) -> Fitted:
        """Try all cuts up to 0.5 for the foreground of the input."""
        counts = maps.counts[self.source]
        reached = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
        # The background of the input is cut at 0.5, its foreground at every cut.
        found = reached[:, 0, :, HALF, None] + reached[:, 1]
        scores = iou(found[:, 1], found[:, 0], counts[:, :, 1].sum(axis=(1, 2))[:, None])
        means = (maps.weights @ scores)[: HALF + 1]
        cut = _nearest_best(means)
        change = Transformation(strength=self.source.strength, keep=_cut(cut))
        return Fitted(self.source, change)


def image_free() -> list[Candidate]:
    """Candidates without a model; the first one does nothing."""
    return [
        AsIs(key="nothing", label="cut at 0.5", source=INPUT),
        BestThreshold(key="threshold", label="best threshold", sources=[INPUT], rank=1),
        TemperatureAndBias(),
        BestThreshold(
            key="platt+threshold", label="temperature, bias, threshold", sources=[INPUT], rank=3,
            scaled=True,
        ),
        Isotonic(),
    ]  # fmt: skip


def of_model(name: str, keep: float | None, called: str | None = None) -> list[Candidate]:
    """Candidates with a model.

    Args:
        name: name of the model.
        keep: threshold for the foreground of the input, from the model's card, see `ModelScope`.
        called: name of the model in the table; None = `name`.
    """
    called = called or name
    *weaker, full = (Source(name, strength) for strength in STRENGTHS)
    return [
        AsIs(
            key=name, label=f"{called}, as refine does", model=called, source=full, keep=keep,
            rank=5,
        ),
        *(
            AsIs(
                key=f"{name}@{mix.strength:g}", label=f"{called}, strength {mix.strength:g}",
                model=called, source=mix, rank=6,
            )
            for mix in weaker
        ),
        Kept(
            key=f"{name}+keep", label=f"{called}, hysteresis", model=called, source=full, rank=7
        ),
        BestThreshold(
            key=f"{name}+threshold", label=f"{called}, strength and threshold", model=called,
            sources=[*weaker, full], rank=8,
        ),
        BestThreshold(
            key=f"{name}+platt", label=f"{called}, strength, threshold, scaling", model=called,
            sources=[*weaker, full], rank=9, scaled=True,
        ),
    ]  # fmt: skip


def _cut(number: int) -> float:
    """The threshold of a cut as a Python float, for JSON."""
    return float(CUTS[number])


def _nearest_best(means: Float64Array) -> int:
    """The cut with the highest value; among equal ones the nearest to 0.5."""
    top = means[1:].max()
    equal = np.flatnonzero(means[1:] >= top - _EQUAL) + 1
    return int(equal[np.argmin(np.abs(equal - HALF))])


def _platt(maps: CountedMaps, source: Source) -> tuple[float, float]:
    """Slope and bias of the logistic regression of the truth on the logits of a source."""
    off, on = maps.counts[source].sum(axis=(0, 1))
    logits = clipped_logit(LEVELS).astype(np.float64)
    total = max(1, int(off.sum() + on.sum()))

    def loss(at: Float64Array) -> tuple[float, Float64Array]:
        scores = at[0] * logits + at[1]
        value = -(on @ log_expit(scores) + off @ log_expit(-scores)) / total
        slope = (off + on) * expit(scores) - on
        return float(value), np.array([slope @ logits, slope.sum()]) / total

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=[_SLOPES, _BIASES])
    return float(found.x[0]), float(found.x[1])


def _corners(before: Float64Array, after: Float64Array) -> tuple[tuple[float, float], ...]:
    """Points of a curve, without those inside a level stretch."""
    if len(before) == 1:
        return ((float(before[0]), float(after[0])),)
    inner = (after[1:-1] == after[:-2]) & (after[1:-1] == after[2:])
    bends = np.concatenate([[True], ~inner, [True]])
    return tuple(zip(before[bends].tolist(), after[bends].tolist(), strict=True))
