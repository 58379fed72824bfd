"""Maps as histograms: their IoU at every cut is that of the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from geothresh.calibration.counts import (
    CUTS,
    HALF,
    INPUT,
    LEVELS,
    CountedMaps,
    MapCounter,
    Source,
    iou_at_cuts,
    iou_of_mask,
    level_counts,
    require_few,
)
from geothresh.errors import InputError
from geothresh.evaluation.scoring import Sample
from geothresh.metrics import Counts
from geothresh.thresholding import cut_mask


def some_map(seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    confidence = (rng.integers(0, 256, (40, 50)) / 255).astype(np.float32)
    truth = rng.random((40, 50)) < confidence
    refined = np.clip(confidence + rng.normal(0, 0.2, (40, 50)), 0, 1).astype(np.float32)
    return Sample(
        id=f"m{seed}", confidence=confidence, truth=truth, valid=rng.random((40, 50)) < 0.9,
        refined=refined,
    )  # fmt: skip


def counts_of(sample: Sample) -> CountedMaps:
    counter = MapCounter(16)
    counter.add(sample)
    counter.add_refined(sample, "model", (0.5, 1.0))
    return counter.counted({sample.id: "here"}, {})


def test_a_cut_between_levels_takes_what_the_pixels_take() -> None:
    sample = some_map()
    counted = counts_of(sample)
    assert sample.refined is not None
    for source, values in ((INPUT, sample.confidence), (Source("model", 1.0), sample.refined)):
        found = iou_at_cuts(counted.counts[source])[0]
        for k in (1, 60, HALF, 200, 255):
            expected = Counts.of(
                prediction=values >= CUTS[k], target=sample.truth, valid=sample.valid
            )
            assert found[k] == expected.iou()


def test_the_middle_cut_is_at_a_half_to_the_last_bit() -> None:
    assert CUTS[HALF] == 0.5
    half = np.float32(0.5)
    values = np.array(
        [[half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1))]]
    )
    counts = level_counts(values, np.ones((1, 3), bool), values >= 0.5)
    assert counts[1, 1].sum() == 2 and counts[1, 1, HALF] == 2
    assert counts[0, 1, HALF - 1] == 1


def test_hysteresis_is_that_of_cut_mask() -> None:
    sample = some_map(1)
    assert sample.refined is not None
    before = sample.confidence >= 0.5
    mask = np.stack([CUTS[HALF] <= LEVELS, CUTS[60] <= LEVELS])
    found = iou_of_mask(counts_of(sample).counts[Source("model", 1.0)], mask)
    kept = cut_mask(sample.refined, before, threshold=0.5, keep=float(CUTS[60]))
    expected = Counts.of(prediction=kept, target=sample.truth, valid=sample.valid)
    assert found[0] == expected.iou()


def test_places_weigh_the_same_however_many_maps_they_have() -> None:
    maps = CountedMaps(
        ids=["a", "b", "c"], places=["x", "x", "y"], counts={}, regions=np.zeros(3)
    )  # fmt: skip
    values = np.array([0.0, 1.0, 1.0])
    assert maps.weights.tolist() == [0.25, 0.25, 0.5]
    assert maps.by_place(values).tolist() == [0.5, 1.0]
    assert maps.weights @ values == maps.by_place(values).mean()


def test_nothing_against_nothing_is_one() -> None:
    empty = Sample(
        id="e", confidence=np.zeros((8, 8), np.float32), truth=np.zeros((8, 8), bool),
        refined=np.zeros((8, 8), np.float32),
    )  # fmt: skip
    assert iou_at_cuts(counts_of(empty).counts[INPUT])[0, 1:].tolist() == [1.0] * 255


def test_too_many_maps_are_refused() -> None:
    with pytest.raises(InputError, match="4001 maps, and at most 4000"):
        require_few(4001)
