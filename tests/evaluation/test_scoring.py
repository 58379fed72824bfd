"""Scores of maps, added one by one, each against a naive twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geothresh.errors import InputError
from geothresh.evaluation.scoring import Sample, Tally, sweep
from geothresh.evaluation.verdict import Changes
from geothresh.metrics import Counts, boundary_counts
from geothresh.thresholding import THRESHOLDS
from tests.support.blobs import scene
from tests.support.samples import naive_iou, sample


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    distance=st.integers(1, 6),
    metric=st.sampled_from(["chessboard", "cityblock"]),
    holes=st.booleans(),
)
def test_a_sweep_counts_as_19_cuts_do(
    seed: int, height: int, width: int, distance: int, metric: Any, holes: bool
) -> None:
    rng = np.random.default_rng(seed)
    levels, truth = scene(seed, height, width)
    confidence = np.where(rng.random((height, width)) < 0.2, 0.5, levels / 255).astype(np.float32)
    valid = rng.random((height, width)) < 0.9 if holes else None
    ours = sweep(confidence, truth, distance=distance, metric=metric, valid=valid)
    for k, threshold in enumerate(THRESHOLDS):
        arrays: dict[str, Any] = {
            "prediction": confidence >= threshold,
            "target": truth,
            "valid": valid,
        }
        assert ours.counts[k] == Counts.of(**arrays)
        assert ours.boundary[k] == boundary_counts(**arrays, distance=distance, metric=metric)


def test_the_rows_equal_their_naive_twins() -> None:
    samples = [sample(seed) for seed in range(4)]
    tally = Tally(patch=16)
    for s in samples:
        tally.add(replace(s, refined=np.maximum(s.confidence - np.float32(0.2), 0)))
    report = tally.report("net")

    ious = np.array([[naive_iou(s.confidence >= t, s.truth) for t in THRESHOLDS] for s in samples])
    assert report.row("cut").summary.miou == pytest.approx(ious[:, 9].mean())
    assert report.row("single").summary.miou == pytest.approx(ious.mean(axis=0).max())
    assert report.row("single").threshold == pytest.approx(THRESHOLDS[ious.mean(axis=0).argmax()])
    assert report.row("per_map").summary.miou == pytest.approx(ious.max(axis=1).mean())
    after = [naive_iou(s.confidence - np.float32(0.2) >= 0.5, s.truth) for s in samples]
    assert report.row("refined").summary.miou == pytest.approx(np.mean(after))
    pooled = naive_iou(
        np.stack([s.confidence >= 0.5 for s in samples]), np.stack([s.truth for s in samples])
    )
    assert report.row("cut").summary.iou_pooled == pytest.approx(pooled)
    mae = np.mean([np.abs(s.confidence - s.truth).mean() for s in samples])
    assert report.row("cut").summary.mae == pytest.approx(mae, abs=1e-6)
    assert report.row("single").summary.mae is None

    boundary = report.row("single_boundary").summary.boundary_iou
    assert boundary >= report.row("single").summary.boundary_iou
    assert report.row("regions").summary.miou > report.row("per_map").summary.miou
    assert report.changes["iou"] == Changes.of([s.id for s in samples], ious[:, 9], after)
    assert [line["id"] for line in report.maps] == [s.id for s in samples]
    assert report.maps[2]["refined"]["iou"] == pytest.approx(after[2])


def best_cut(confidence: np.ndarray) -> float:
    """The lowest of the thresholds that clears a map, or else the highest."""
    return next((float(t) for t in THRESHOLDS if not (confidence >= t).any()), 0.95)


@pytest.mark.parametrize("highest", [0.3, 0.97, 1.0])
def test_a_map_without_foreground_is_cut_where_least_is_falsely_found(highest: float) -> None:
    """Every cut that leaves anything is worth 0: the first of equals would leave the most."""
    noise = np.random.default_rng(0).random((30, 30)).astype(np.float32) * np.float32(0.2)
    noise[3:9, 3:9] = 0.7 if highest > 0.7 else 0.2
    noise[20, 20] = highest
    nothing = np.zeros((30, 30), np.bool_)
    tally = Tally(patch=30)
    tally.add(Sample(id="empty", confidence=noise, truth=nothing))
    report = tally.report("net")
    falsely = int((noise >= best_cut(noise)).sum())
    for key in ("per_map", "single", "single_boundary", "regions"):
        summary = report.row(key).summary
        assert (summary.miou, summary.boundary_iou) == ((1.0, 1.0) if not falsely else (0.0, 0.0))
        assert summary.miou_two_class == pytest.approx((summary.miou + 1 - falsely / 900) / 2)
    assert report.row("single").threshold == pytest.approx(
        float(THRESHOLDS[np.argmin([(noise >= t).sum() for t in THRESHOLDS])])
    )
    # Beside a map with foreground, its false positives count among all pixels.
    other = sample(3, size=30)
    tally.add(other)
    pooled = tally.report("net").row("per_map").summary
    ious = [naive_iou(other.confidence >= t, other.truth) for t in THRESHOLDS]
    counts = Counts.of(
        prediction=other.confidence >= THRESHOLDS[int(np.argmax(ious))], target=other.truth
    )
    assert pooled.iou_pooled == counts.tp / (counts.tp + counts.fp + counts.fn + falsely)


def test_changes_count_gains_and_losses() -> None:
    changes = Changes.of(list("abcd"), [0.5, 0.5, 0.5, 0.5], [0.7, 0.495, 0.45, 0.5])
    assert (changes.n_better, changes.n_worse, changes.n_worse_by_a_point) == (1, 2, 1)
    assert changes.mean_gain == pytest.approx(0.2)
    assert changes.mean_loss == pytest.approx(0.0275)
    assert (changes.worst_id, changes.worst_loss) == ("c", pytest.approx(0.05))
    assert Changes.of(["a"], [0.5], [0.5]).as_dict()["worst_id"] is None


def test_the_share_of_maps_that_lost_is_told() -> None:
    """Two of four maps lose a quarter of their IoU, and one a hair of it."""
    truth = np.zeros((40, 40), np.bool_)
    truth[10:14, :] = True
    tally = Tally(patch=8)
    for name, lost in (("a", 40), ("b", 40), ("c", 1), ("d", 0)):
        refined = truth.astype(np.float32)
        refined[13, :lost] = 0
        confidence = truth.astype(np.float32)
        tally.add(Sample(id=name, confidence=confidence, truth=truth, refined=refined))
    report = tally.report("net")
    told = report.as_dict()["changes"]["iou"]
    assert (told["n"], told["n_better"], told["n_worse"]) == (4, 0, 3)
    assert (told["share_worse"], told["share_worse_by_a_point"]) == (0.75, 0.5)
    assert told["mean_loss"] == pytest.approx((40 + 40 + 1) / 160 / 3)
    assert (told["worst_id"], told["worst_loss"]) == ("a", pytest.approx(0.25))
    text = " ".join(report.table().split())
    assert "2 of 4 maps (50 %) lose more than a point" in text
    assert "In IoU 0 maps gained, 3 lost, most of all a: 25.0 points." in text


def test_the_mean_change_comes_with_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(40), rng.random(40)
    changes = Changes.of([str(k) for k in range(40)], before.tolist(), after.tolist())
    assert changes.mean_difference == pytest.approx((after - before).mean())
    assert changes.standard_error == pytest.approx(stats.sem(after - before))
    assert Changes.of(["a"], [0.2], [0.5]).standard_error is None


def test_invalid_pixels_change_nothing() -> None:
    valid = np.random.default_rng(7).random((60, 60)) < 0.6
    one = sample(3, valid=valid)
    other = replace(one, confidence=np.where(valid, one.confidence, 0), truth=one.truth ^ (~valid))
    reports = []
    for s in (one, other):
        tally = Tally(patch=16)
        tally.add(replace(s, confidence=np.where(valid, s.confidence, 0), refined=s.confidence))
        reports.append(tally.report("net"))
    assert reports[0] == reports[1]
    assert sum(reports[0].maps[0]["cut"][k] for k in ("tp", "fp", "fn", "tn")) == valid.sum()


def test_nothing_and_half_refined_maps_are_refused() -> None:
    tally = Tally(patch=16)
    with pytest.raises(InputError, match="0 maps"):
        tally.report("net")
    tally.add(sample(1))
    tally.add(sample(2, refined=np.zeros((60, 60), np.float32)))
    with pytest.raises(InputError, match="1 of 2 maps are refined"):
        tally.report("net")
