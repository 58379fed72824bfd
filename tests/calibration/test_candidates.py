"""Candidates fit what their oracles fit, and do to histograms what they do to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from geothresh.calibration.candidates import (
    Candidate,
    Isotonic,
    TemperatureAndBias,
    image_free,
    of_model,
)
from geothresh.calibration.counts import LEVELS, CountedMaps, MapCounter
from geothresh.evaluation.reliability import Reliability
from geothresh.evaluation.scoring import Sample
from geothresh.metrics import Counts
from geothresh.nn.transformation import clipped_logit
from geothresh.thresholding import cut_mask

EVERY = [*image_free(), *of_model("model", 0.3)]


def samples() -> list[Sample]:
    """Maps that are too sure of themselves and too high; the refined ones are better."""
    found = []
    for k in range(6):
        rng = np.random.default_rng(k)
        signal = rng.normal(0, 1, (32, 32))
        truth = signal > 0.8
        noisy, better = (signal - 0.3 + rng.normal(0, s, (32, 32)) for s in (0.9, 0.3))
        confidence = np.rint(255 / (1 + np.exp(-4 * noisy))) / 255
        refined = (1 / (1 + np.exp(-3 * (better - 0.5)))).astype(np.float32)
        found.append(
            Sample(
                id=f"m{k}", confidence=confidence.astype(np.float32), truth=truth, refined=refined
            )
        )
    return found


@pytest.fixture(scope="module")
def maps() -> CountedMaps:
    counter = MapCounter(16)
    for sample in samples():
        counter.add(sample)
        counter.add_refined(sample, "model", (0.25, 0.5, 0.75, 1.0))
    return counter.counted({f"m{k}": f"p{k // 2}" for k in range(6)}, {})


@pytest.mark.parametrize("candidate", EVERY, ids=lambda one: one.key)
def test_what_the_histograms_say_of_a_mask_holds_for_its_pixels(
    candidate: Candidate, maps: CountedMaps
) -> None:
    """Of maps of 8 bits, and of mixes cut between levels, to the last digit."""
    fitted = candidate.fit(maps)
    change = fitted.transformation
    by_pixel = []
    for sample in samples():
        assert sample.refined is not None
        values = change(sample.confidence, sample.refined)
        mask = cut_mask(
            values, sample.confidence >= 0.5, threshold=change.threshold, keep=change.keep
        )
        by_pixel.append(Counts.of(prediction=mask, target=sample.truth).iou())
    assert fitted.iou(maps) == pytest.approx(by_pixel, abs=1e-12)


def test_each_way_is_at_its_best_on_what_it_is_fitted_to(maps: CountedMaps) -> None:
    means = {one.key: float(maps.weights @ one.fit(maps).iou(maps)) for one in EVERY}
    assert means["threshold"] >= means["nothing"]
    assert means["platt+threshold"] == pytest.approx(means["threshold"])
    assert means["model+threshold"] >= max(means[k] for k in means if k.startswith("model@"))
    assert means["model+threshold"] >= means["threshold"]
    assert means["model+platt"] == pytest.approx(means["model+threshold"])
    assert means["model+keep"] >= means["model"] - 1e-12


def test_temperature_and_bias_are_the_logistic_regression(maps: CountedMaps) -> None:
    logits = np.concatenate([clipped_logit(s.confidence).ravel() for s in samples()])
    truth = np.concatenate([s.truth.ravel() for s in samples()])
    oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[:, None], truth)
    change = TemperatureAndBias().fit(maps).transformation
    assert change.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
    assert change.bias == pytest.approx(oracle.intercept_[0], rel=1e-3, abs=1e-3)


def test_the_isotonic_curve_is_the_isotonic_regression(maps: CountedMaps) -> None:
    values = np.concatenate([s.confidence.ravel() for s in samples()])
    truth = np.concatenate([s.truth.ravel() for s in samples()])
    oracle = IsotonicRegression(out_of_bounds="clip").fit(values, truth)
    change = Isotonic().fit(maps).transformation
    assert len(change.curve) < 256
    assert change.calibrated(LEVELS) == pytest.approx(oracle.predict(LEVELS), abs=1e-6)


def test_calibration_brings_confidences_to_how_often_they_are_right(maps: CountedMaps) -> None:
    errors = {}
    for one in EVERY:
        found = Reliability()
        one.fit(maps).count(maps, found)
        errors[one.key] = found.error
    assert errors["platt"] < errors["nothing"] / 3
    assert errors["isotonic"] < 0.001
    assert errors["model+platt"] < errors["model+threshold"]


def test_reliability_of_levels_is_that_of_the_pixels(maps: CountedMaps) -> None:
    by_pixel, by_level = Reliability(), Reliability()
    for sample in samples():
        by_pixel.add(sample.confidence, sample.truth, np.ones(sample.truth.shape, bool))
    EVERY[0].fit(maps).count(maps, by_level)
    assert by_level.counts.tolist() == by_pixel.counts.tolist()
    assert by_level.error == pytest.approx(by_pixel.error, abs=1e-7)


def test_what_has_no_foreground_is_fitted_without_a_fault() -> None:
    counter = MapCounter(16)
    for k in range(2):
        values = np.full((8, 8), 0.2 + 0.5 * k, np.float32)
        counter.add(
            Sample(id=f"{k}", confidence=values, truth=np.zeros((8, 8), bool), refined=values)
        )
        counter.add_refined(
            Sample(id=f"{k}", confidence=values, truth=np.zeros((8, 8), bool), refined=values),
            "model", (0.25, 0.5, 0.75, 1.0),
        )  # fmt: skip
    empty = counter.counted({"0": "a", "1": "b"}, {})
    for one in EVERY:
        assert np.isfinite(one.fit(empty).iou(empty)).all()
