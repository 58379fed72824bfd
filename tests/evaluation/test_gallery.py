"""What is kept of many maps, and the page that shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geothresh.api.evaluate import evaluate
from geothresh.errors import OutputError
from geothresh.evaluation.gallery import MOST, Gallery
from geothresh.evaluation.options import Maps, Scoring
from geothresh.evaluation.reliability import BINS, Reliability
from geothresh.metrics import Counts
from geothresh.options import Tiling
from tests.support.blobs import write_pairs
from tests.support.html import require_sound
from tests.support.samples import SharperRefiner, sample


def test_the_best_and_worst_are_those_of_a_sorted_list() -> None:
    gallery = Gallery(threshold=0.5, keep=None)
    gains = {}
    for seed in range(20):
        one = sample(seed)
        refined = np.clip(one.confidence - 0.02 * (seed - 8), 0, 1).astype(np.float32)
        one = replace(one, refined=refined)
        gallery.add(one)
        ious = [Counts.of(prediction=c >= 0.5, target=one.truth).iou()
                for c in (one.confidence, refined)]  # fmt: skip
        gains[one.id] = ious[1] - ious[0]
    ordered = sorted(gains, key=lambda name: -gains[name])
    assert [one.id for one in gallery.best()] == ordered[:MOST]
    assert [one.id for one in gallery.worst()] == ordered[: -MOST - 1 : -1]
    assert gallery.best(2)[0].merit == pytest.approx(gains[ordered[0]])
    assert gallery.best()[0].first.shape == (60, 60, 3)


def test_reliability_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random((50, 40), dtype=np.float32)
    confidence[0, 0] = 1
    truth = rng.random((50, 40)) < confidence
    valid = rng.random((50, 40)) < 0.8
    found = Reliability()
    found.add(confidence[:20], truth[:20], valid[:20])
    found.add(confidence[20:], truth[20:], valid[20:])
    expected, error = [], 0.0
    for k in range(BINS):
        inside = valid & (np.minimum((confidence * np.float32(BINS)).astype(int), BINS - 1) == k)
        mean, share = float(confidence[inside].mean()), float(truth[inside].mean())
        expected.append((mean, share, int(inside.sum())))
        error += abs(mean - share) * inside.sum() / valid.sum()
    np.testing.assert_allclose(found.points(), expected, rtol=1e-5)
    assert found.error == pytest.approx(error, rel=1e-5)
    assert Reliability().points() == [] and Reliability().error == 0


@pytest.mark.parametrize("refine", [True, False])
def test_evaluate_writes_a_page(tmp_path: Path, refine: bool) -> None:
    data, confidence = write_pairs(tmp_path, range(4), name="a&b<i>")
    report = tmp_path / "report.html"
    result = evaluate(
        data, model=SharperRefiner() if refine else None, maps=Maps(confidence=[confidence]),
        scoring=Scoring(report=report), tiling=Tiling(tile_size=64, overlap=16),
    )  # fmt: skip
    page = require_sound(report.read_text("utf-8"))
    assert "a&b<i>3" in page.text
    assert f"{100 * result.sources[0].row('cut').summary.miou:.2f}" in page.text
    assert len(page.all("input")) == (4 if refine else 0), "each of the four maps once"
    assert ("What each map gains" in page.text) == refine
    with pytest.raises(OutputError, match="report.html.*exists"):
        evaluate(data, model=None, scoring=Scoring(report=report))
