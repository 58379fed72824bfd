"""Choose the candidate to advise, by cross-validation over places and a permutation test.

Each candidate is fitted to the places of all folds but one and scored on the places of that fold.
The gains over the cut at 0.5 are tested by flipping their signs at random, place by place and the
same for all candidates, and comparing with the greatest t statistic of all candidates (Westfall and
Young 1993). So if no candidate is better than the cut at 0.5, one data set in twenty still gets
advice, whatever the number of candidates. Of the candidates that pass, the simplest one is advised
whose distance to the best is within one standard error (Breiman's rule). Finally, the whole
procedure is repeated without each fold and scored on that fold; if places lose by following such
advice, there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from geothresh.calibration.candidates import Candidate, Fitted
from geothresh.calibration.counts import CountedMaps
from geothresh.evaluation.reliability import Reliability
from geothresh.types import Float64Array

LEVEL = 0.05
"""Significance level: how often there is advice although nothing beats the cut at 0.5."""
LEAST_TILES = 8
"""With fewer maps nothing is advised: gains and losses could be chance."""
_TESTED_PLACES = math.ceil(math.log2(1 / LEVEL))
"""With fewer places no gain is significant: the least p-value of n places is 1 in 2^n."""
# With fewer folds, advice is not checked by advice that comes from the other folds.
_LEAST_FOLDS = 3
# Random flips of signs in all, and in a batch.
_FLIPS = 4999
_AT_ONCE = 500
# Up to this many places, all combinations of signs are tried.
_FEW_PLACES = 12


@dataclass(slots=True)
class Outcome:
    """Scores of a candidate on maps that it was not fitted to."""

    iou: Float64Array
    """(M,) IoU of each map."""
    reliability: Reliability = field(default_factory=Reliability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A mean gain in IoU over places, as a share (a point is 0.01)."""

    mean: float
    error: float | None
    """Standard error of the mean, with places taken as independent; None for a single place."""
    share_worse: float
    """Share of maps that lose more than a point."""
    chance: float | None = None
    """Adjusted p-value: how often the best candidate gains as much by chance; None = not tested."""

    @classmethod
    def of(cls, maps: CountedMaps, differences: Float64Array) -> Gain:
        """The gain, from differences (M,) of the IoU of each map."""
        places = maps.by_place(differences)
        error = None
        if len(places) > 1:
            error = float(_standard_error(places))
        return cls(
            mean=float(places.mean()),
            error=error,
            share_worse=float(np.mean(differences < -0.01)),
        )


def cross_validated(
    maps: CountedMaps, candidates: Sequence[Candidate], folds: Sequence[Sequence[int]]
) -> dict[str, Outcome]:
    """Score candidates on maps that they were not fitted to.

    Args:
        maps: all maps.
        candidates: the candidates to fit and score.
        folds: indices of the maps that each fold holds out; disjoint, covering all maps.

    Returns:
        Scores by key of the candidate.
    """
    outcomes = {candidate.key: Outcome(np.zeros(len(maps.ids))) for candidate in candidates}
    every = set(range(len(maps.ids)))
    for held in folds:
        learned = maps.of(sorted(every - set(held)))
        unseen = maps.of(held)
        for candidate in candidates:
            fitted = candidate.fit(learned)
            outcome = outcomes[candidate.key]
            outcome.iou[list(held)] = fitted.iou(unseen)
            fitted.count(unseen, outcome.reliability)
    return outcomes


def gains_by_place(maps: CountedMaps, outcomes: Mapping[str, Outcome]) -> Float64Array:
    """(P, C) gains in IoU of each candidate over the first one, which does nothing, by place."""
    every = list(outcomes.values())
    differences = np.stack([outcome.iou - every[0].iou for outcome in every], axis=1)
    return maps.by_place(differences)


def p_values(gains: Float64Array) -> Float64Array:
    """Adjusted p-values (C,): how often the greatest t of all candidates is as high by chance.

    Args:
        gains: (P, C) gains by place and candidate.
    """
    seen = _t(gains.sum(axis=0)[None], gains)[0]
    # Allows for rounding.
    bound = seen * (1 - 1e-9) - 1e-12
    reached, flips = np.zeros(len(seen)), 0
    for signs in _flipped(len(gains)):
        greatest = _t(signs @ gains, gains).max(axis=1)
        reached += (greatest[:, None] >= bound).sum(axis=0)
        flips += len(signs)
    return np.asarray(reached / flips)


def _standard_error(values: Float64Array) -> Float64Array:
    """Standard error of the mean along the first axis, with its values taken as independent."""
    return np.asarray(values.std(axis=0, ddof=1) / math.sqrt(len(values)))


def _flipped(n: int) -> Iterator[Float64Array]:
    """Random signs (S, n) of places, in batches; the first row is the data itself."""
    if n <= _FEW_PLACES:
        numbers = np.arange(2**n)[:, None] >> np.arange(n)
        yield np.where(numbers & 1, -1.0, 1.0)
        return
    yield np.ones((1, n))
    rng = np.random.default_rng(0)
    for first in range(0, _FLIPS, _AT_ONCE):
        number = min(_AT_ONCE, _FLIPS - first)
        yield np.where(rng.random((number, n)) < 0.5, -1.0, 1.0)


def _t(sums: Float64Array, gains: Float64Array) -> Float64Array:
    """t statistics of sums (S, C) of gains (P, C) with signs."""
    n = len(gains)
    mean = sums / n
    squares = (gains**2).sum(axis=0) / n
    variance = np.maximum(squares - mean**2, 1e-18) / max(1, n - 1)
    return np.asarray(mean / np.sqrt(variance))


def advised(
    maps: CountedMaps, candidates: Sequence[Candidate], outcomes: Mapping[str, Outcome]
) -> Candidate:
    """The candidate to advise; the first one, which does nothing, if none is better.

    Args:
        maps: all maps.
        candidates: the first one does nothing.
        outcomes: scores of each candidate on maps that it was not fitted to.
    """
    gains = gains_by_place(maps, outcomes)
    passed = p_values(gains) <= LEVEL
    passed[0] = False
    if not passed.any():
        return candidates[0]
    means = np.where(passed, gains.mean(axis=0), -np.inf)
    best = int(np.argmax(means))
    behind = gains[:, best, None] - gains
    error = _standard_error(behind)
    equal = np.flatnonzero(passed & (behind.mean(axis=0) <= error)).tolist()
    return candidates[min(equal, key=lambda k: (candidates[k].rank, -means[k]))]


def least_places(folds: int) -> int:
    """Least number of places, dealt to folds, with which there can be advice.

    Advice is checked by advice from the places of all folds but one, so these must be enough for a
    significant gain.
    """
    if folds < _LEAST_FOLDS:
        return _TESTED_PLACES
    least = _TESTED_PLACES + 1
    while least - least // folds < _TESTED_PLACES:
        least += 1
    return least


def iou_of_advice(
    maps: CountedMaps, candidates: Sequence[Candidate], folds: Sequence[Sequence[int]]
) -> Float64Array | None:
    """IoU (M,) of following advice that comes from the other folds; None for fewer than 3 folds.

    The best of many candidates looks better than it is on the places that it was chosen by. Here
    the scored places are not used to choose.
    """
    if len(folds) < _LEAST_FOLDS:
        return None
    scores = np.zeros(len(maps.ids))
    for number, held in enumerate(folds):
        others = [fold for k, fold in enumerate(folds) if k != number]
        numbers = sorted(i for fold in others for i in fold)
        at = {i: k for k, i in enumerate(numbers)}
        learned = maps.of(numbers)
        inner = [[at[i] for i in fold] for fold in others]
        choice = advised(learned, candidates, cross_validated(learned, candidates, inner))
        scores[list(held)] = choice.fit(learned).iou(maps.of(held))
    return scores


def _tested_places(maps: CountedMaps, folds: Sequence[Sequence[int]]) -> int:
    """The most places that advice comes from which is checked on others; see `iou_of_advice`."""
    if len(folds) < _LEAST_FOLDS:
        return len(set(maps.places))
    every = set(range(len(maps.ids)))
    return max(len({maps.places[i] for i in every.difference(held)}) for held in folds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Result of the cross-validation, and the candidate that is advised."""

    candidates: Sequence[Candidate]
    """The first one does nothing."""
    compared: Sequence[Candidate]
    """Candidates that are scored too, but never advised."""
    outcomes: Mapping[str, Outcome]
    """Scores by key, on maps that the candidates were not fitted to."""
    gains: Mapping[str, Gain]
    """Gains by key, over the cut at 0.5."""
    base: float
    """IoU of the cut at 0.5, mean over places."""
    bound: Gain
    """Gain of the best threshold of each region (an oracle)."""
    expected: Gain | None
    """Gain of following advice on places that it does not come from; None = unknown."""
    few_places: bool
    """Whether there are too few places for any advice."""
    promising: Candidate
    """The candidate that gains significantly; it is not advised if `expected` is no gain."""
    best: Candidate
    """The candidate that is advised."""
    fitted: Fitted
    """The advised candidate, fitted to all maps."""

    @classmethod
    def of(
        cls,
        maps: CountedMaps,
        candidates: Sequence[Candidate],
        folds: Sequence[Sequence[int]],
        compared: Sequence[Candidate] = (),
    ) -> Choice:
        """Cross-validate the candidates and choose one; see `cross_validated` for the arguments.

        Candidates in `compared` are scored in the same way, but have no part in test and advice.
        """
        outcomes = cross_validated(maps, candidates, folds)
        nothing = outcomes[candidates[0].key].iou
        chance = p_values(gains_by_place(maps, outcomes))
        gains = {}
        for candidate, p_value in zip(candidates, chance.tolist(), strict=True):
            gain = Gain.of(maps, outcomes[candidate.key].iou - nothing)
            gains[candidate.key] = replace(gain, chance=p_value)
        beside = cross_validated(maps, compared, folds)
        gains |= {key: Gain.of(maps, rival.iou - nothing) for key, rival in beside.items()}
        best = promising = advised(maps, candidates, outcomes)
        scores = iou_of_advice(maps, candidates, folds)
        expected = None if scores is None else Gain.of(maps, scores - nothing)
        if len(maps.ids) < LEAST_TILES or (expected is not None and expected.mean <= 0):
            best = candidates[0]
        return cls(
            candidates=candidates,
            compared=compared,
            outcomes=outcomes | beside,
            gains=gains,
            base=float(maps.weights @ nothing),
            bound=Gain.of(maps, maps.regions - nothing),
            expected=expected,
            few_places=_tested_places(maps, folds) < _TESTED_PLACES,
            promising=promising,
            best=best,
            fitted=best.fit(maps),
        )

    @property
    def does_nothing(self) -> bool:
        """Whether the cut at 0.5 is advised."""
        return self.best is self.candidates[0]
