"""The advice: nothing is learned from what is scored, and luck alone gives none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from geothresh.calibration import choosing
from geothresh.calibration.candidates import AsIs, Fitted
from geothresh.calibration.choosing import (
    Choice,
    Gain,
    Outcome,
    advised,
    cross_validated,
    iou_of_advice,
    least_places,
    p_values,
)
from geothresh.calibration.counts import INPUT, CountedMaps, Source, level_counts
from geothresh.calibration.report import CalibrationReport
from geothresh.nn.transformation import Transformation


def plain_maps(n: int, *, model_gains: float = 0.0, seed: int = 0) -> CountedMaps:
    """Maps of noise; those of a model find more of the truth."""
    rng = np.random.default_rng(seed)
    counts: dict[Source, list[object]] = {INPUT: [], Source("good", 1.0): []}
    for _ in range(n):
        truth = rng.random((20, 20)) < 0.4
        confidence = np.where(rng.random((20, 20)) < 0.7, truth, ~truth).astype(np.float32)
        right = rng.random((20, 20)) < model_gains
        refined = np.where(right, truth, confidence).astype(np.float32)
        before = confidence >= 0.5
        counts[INPUT].append(level_counts(confidence, truth, before))
        counts[Source("good", 1.0)].append(level_counts(refined, truth, before))
    ids = [f"m{k}" for k in range(n)]
    return CountedMaps(
        ids=ids, places=ids, counts={k: np.stack(v) for k, v in counts.items()},
        regions=np.ones(n),
    )  # fmt: skip


NOTHING = AsIs(key="nothing", label="cut at 0.5", source=INPUT)
GOOD = AsIs(key="good", label="good", source=Source("good", 1.0), rank=5)


def folds_of(n: int, k: int = 5) -> list[list[int]]:
    return [list(range(first, n, k)) for first in range(min(k, n))]


@pytest.mark.parametrize("places", [8, 12, 13, 40])
def test_luck_alone_gives_an_advice_in_one_case_of_twenty(places: int) -> None:
    """However many candidates there are, and though they go together."""
    rng = np.random.default_rng(places)
    trials, lucky = 150, 0
    for _ in range(trials):
        common = rng.normal(0, 1, (places, 1))
        gains = np.concatenate(
            [np.zeros((places, 1)), common + rng.normal(0, 1.0, (places, 14))], axis=1
        )
        lucky += bool((p_values(gains)[1:] <= 0.05).any())
    assert lucky <= 0.05 * trials + 3 * np.sqrt(0.05 * 0.95 * trials)


def test_the_chance_of_a_single_candidate_is_that_of_flipped_signs() -> None:
    gains = np.array([[0.01], [0.02], [0.03], [0.04]])
    assert p_values(gains).tolist() == [1 / 16]
    assert p_values(np.zeros((4, 1))).tolist() == [1.0]


def test_what_is_compared_changes_no_advice() -> None:
    maps = plain_maps(12, model_gains=0.3)
    alone = Choice.of(maps, [NOTHING], folds_of(12))
    beside = Choice.of(maps, [NOTHING], folds_of(12), [GOOD])
    assert beside.does_nothing and beside.gains["good"].mean > 0.05
    assert beside.gains["good"].chance is None and beside.gains["nothing"] == alone.gains["nothing"]
    assert (beside.best, beside.expected) == (alone.best, alone.expected)


def test_a_real_gain_is_advised_and_nothing_without_one() -> None:
    helped = Choice.of(plain_maps(12, model_gains=0.3), [NOTHING, GOOD], folds_of(12))
    assert helped.best is GOOD and helped.gains["good"].chance == 1 / 2**12
    assert helped.expected is not None and helped.expected.mean > 0.05
    same = Choice.of(plain_maps(12), [NOTHING, GOOD], folds_of(12))
    assert same.does_nothing and same.fitted == NOTHING.fit(plain_maps(12))
    assert same.gains["good"].mean == 0


def test_with_fewer_than_eight_maps_nothing_is_advised() -> None:
    few = Choice.of(plain_maps(7, model_gains=0.5), [NOTHING, GOOD], folds_of(7))
    assert few.does_nothing and few.gains["good"].mean > 0.1
    assert not Choice.of(plain_maps(8, model_gains=0.5), [NOTHING, GOOD], folds_of(8)).does_nothing


def test_many_maps_of_one_place_are_one_place() -> None:
    """Eight tiles of three places: too few signs to flip."""
    maps = plain_maps(8, model_gains=0.5)
    joined = CountedMaps(
        ids=maps.ids, places=list("aaabbbcc"), counts=maps.counts, regions=maps.regions
    )
    choice = Choice.of(joined, [NOTHING, GOOD], [[0, 1, 2], [3, 4, 5], [6, 7]])
    assert choice.does_nothing and choice.gains["good"].chance == 1 / 8
    assert choice.few_places


def report_of(choice: Choice, *, places: int, folds: int) -> CalibrationReport:
    return CalibrationReport(
        choice=choice, tiles=20, places=places, folds=folds, unit="tile",
        seconds=dict.fromkeys(choice.gains, 0.1), output=None, diagram=None,
    )  # fmt: skip


def placed(places: int) -> CountedMaps:
    """Twenty maps of some places, on which a model gains much."""
    maps = plain_maps(20, model_gains=0.5)
    of = [f"p{k % places}" for k in range(20)]
    return CountedMaps(ids=maps.ids, places=of, counts=maps.counts, regions=maps.regions)


@pytest.mark.parametrize("folds", [2, 3, 4, 5, 10])
def test_fewer_places_than_needed_are_told_as_that(folds: int) -> None:
    for places in range(2, 9):
        dealt = [
            [i for i in range(20) if i % places % folds == fold]
            for fold in range(min(folds, places))
        ]
        choice = Choice.of(placed(places), [NOTHING, GOOD], dealt)
        enough = places >= least_places(folds)
        assert choice.few_places == choice.does_nothing == (not enough)
        report = report_of(choice, places=places, folds=len(dealt))
        if not enough:
            assert report.advice.startswith(f"Leave it at 0.5: {places} places; at least ")
            assert report.expectation is None
        if not enough and folds < places:
            assert f"at least {least_places(folds)} are needed" in report.advice


def test_advice_that_is_not_worth_following_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = plain_maps(20, model_gains=0.3)
    monkeypatch.setattr(choosing, "iou_of_advice", lambda *_: np.zeros(20))
    choice = Choice.of(maps, [NOTHING, GOOD], folds_of(20))
    assert choice.does_nothing and choice.promising is GOOD and not choice.few_places
    advice = report_of(choice, places=20, folds=5).advice
    assert advice.startswith("Leave it at 0.5: good gains more than chance would (+")
    assert "following the advice gains nothing on the held-out folds" in advice


def outcomes_of(*columns: Sequence[float]) -> dict[str, Outcome]:
    return {f"c{k}": Outcome(np.array(column)) for k, column in enumerate(columns)}


def test_of_equals_within_their_noise_the_simplest_is_advised() -> None:
    maps = plain_maps(10)
    ways = [AsIs(key=f"c{k}", label="", source=INPUT, rank=k) for k in range(3)]
    rng = np.random.default_rng(0)
    base = np.full(10, 0.5)
    simple = base + 0.05 + rng.normal(0, 0.01, 10)
    close = simple + 0.001 + rng.normal(0, 0.01, 10)
    far = simple + 0.03 + rng.normal(0, 0.005, 10)
    assert advised(maps, ways, outcomes_of(base, simple, close)) is ways[1]
    assert advised(maps, ways, outcomes_of(base, simple, far)) is ways[2]


@dataclass(frozen=True)
class Spy:
    """Remembers what it was fitted to."""

    seen: list[set[str]] = field(default_factory=list)
    key: str = "spy"
    label: str = "spy"
    model: str = ""
    rank: int = 1

    def fit(self, maps: CountedMaps) -> Fitted:
        self.seen.append(set(maps.ids))
        return Fitted(INPUT, Transformation(strength=0))


def test_nothing_is_fitted_to_what_it_is_scored_on() -> None:
    maps, spy = plain_maps(10), Spy()
    folds = folds_of(10)
    cross_validated(maps, [NOTHING, spy], folds)
    every = set(maps.ids)
    assert spy.seen == [every - {maps.ids[k] for k in held} for held in folds]
    spy.seen.clear()
    assert iou_of_advice(maps, [NOTHING, spy], folds) is not None
    # Without each fold: four times without a second one. The advice is nothing, so spy ends there.
    assert [len(seen) for seen in spy.seen] == [6] * 20
    assert iou_of_advice(maps, [NOTHING, spy], folds[:2]) is None


def test_a_gain_is_a_mean_over_places_and_losses_are_counted_by_map() -> None:
    maps = CountedMaps(
        ids=list("abc"), places=["x", "x", "y"], counts={}, regions=np.zeros(3)
    )  # fmt: skip
    gain = Gain.of(maps, np.array([-0.02, 0.04, 0.03]))
    assert gain.mean == pytest.approx(0.02)
    assert gain.error == pytest.approx(np.std([0.01, 0.03], ddof=1) / np.sqrt(2))
    assert gain.share_worse == pytest.approx(1 / 3)
