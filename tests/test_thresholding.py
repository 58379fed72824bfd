"""Region-specific thresholds by histogram against the naive loop over 19 thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geothresh.thresholding import (
    N_BINS,
    THRESHOLDS,
    best_thresholds,
    coarsen,
    cut_mask,
    foreground_width,
    patch_histograms,
    region_target,
    region_targets,
    threshold_bins,
)
from geothresh.types import Float32Array
from tests.support.thresholds import naive_best, naive_target

PATCHES = (16, 32, 64, 128, 256)


def random_patches(rng: np.random.Generator, n: int, patch: int, kind: str) -> np.ndarray:
    """n confidence patches (n, patch, patch) float32 of one kind."""
    shape = (n, patch, patch)
    if kind == "uniform":
        values = rng.random(shape)
    elif kind == "ties":  # on the thresholds themselves, where >= decides
        values = rng.choice(THRESHOLDS, shape)
    elif kind == "bytes":  # as 8-bit files hold it
        return (rng.integers(0, 256, shape) / np.float32(255)).astype(np.float32)
    elif kind == "constant":
        values = np.broadcast_to(
            rng.choice([0.0, 0.03, *THRESHOLDS.tolist(), 1.0], (n, 1, 1)), shape
        )
    elif kind == "extreme":
        values = rng.choice([0.0, 1.0, 0.5, np.nextafter(np.float32(0.5), np.float32(0))], shape)
    else:
        raise ValueError(kind)
    return np.asarray(values, dtype=np.float32)


def random_truth(rng: np.random.Generator, confidence: np.ndarray) -> np.ndarray:
    """Truth (n, patch, patch) that follows the confidence loosely; a quarter is empty or full."""
    share = rng.random((len(confidence), 1, 1))
    truth = confidence + rng.normal(0, 0.3, confidence.shape) > share
    truth[0::8] = False
    truth[1::8] = True
    return truth


def test_thresholds_are_the_papers() -> None:
    assert THRESHOLDS.shape == (19,)
    np.testing.assert_allclose(THRESHOLDS, np.linspace(0.05, 0.95, 19), atol=1e-7)


@pytest.mark.parametrize("kind", ["uniform", "ties", "bytes", "constant", "extreme"])
def test_best_thresholds_equal_the_naive_loop_on_random_patches(kind: str) -> None:
    rng = np.random.default_rng(2)
    n, patch = 600, 8
    confidence = random_patches(rng, n, patch, kind)
    truth = random_truth(rng, confidence)
    # The patches stand side by side in one map.
    histograms = patch_histograms(
        confidence.transpose(1, 0, 2).reshape(patch, n * patch),
        truth.transpose(1, 0, 2).reshape(patch, n * patch),
        patch=patch,
    )
    expected = [naive_best(c, t) for c, t in zip(confidence, truth, strict=True)]
    np.testing.assert_array_equal(best_thresholds(histograms)[0], expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    patch=st.sampled_from([4, 16, 32, 64]),
    kind=st.sampled_from(["uniform", "ties", "bytes", "constant", "extreme"]),
)
def test_target_equals_the_naive_target_at_any_size(
    seed: int, height: int, width: int, patch: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    side = max(height, width)
    confidence = random_patches(rng, 1, side, kind)
    truth = random_truth(rng, np.repeat(confidence, 3, axis=0))[rng.integers(3)][:height, :width]
    confidence = confidence[0, :height, :width]
    np.testing.assert_array_equal(
        region_target(confidence, truth, patch=patch), naive_target(confidence, truth, patch)
    )


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 300), width=st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_every_patch_size_comes_from_the_histogram_of_16(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random((height, width), dtype=np.float32)
    truth = rng.random((height, width)) < 0.3
    fine = patch_histograms(confidence, truth, patch=16)
    for patch in PATCHES:
        np.testing.assert_array_equal(
            coarsen(fine, patch // 16), patch_histograms(confidence, truth, patch=patch)
        )


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    finest=st.integers(1, 40),
    factors=st.lists(st.integers(1, 4), max_size=5),
    kind=st.sampled_from(["uniform", "ties", "bytes", "constant", "extreme"]),
    some_valid=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_targets_of_several_sizes_are_those_of_each(
    seed: int, height: int, width: int, finest: int, factors: list[int], kind: str, some_valid: bool
) -> None:
    rng = np.random.default_rng(seed)
    confidence = random_patches(rng, 1, max(height, width), kind)[0, :height, :width]
    truth = rng.random((height, width)) < confidence
    valid = rng.random((height, width)) < 0.8 if some_valid else None
    patches = [finest]
    for factor in factors:
        patches.append(patches[-1] * factor)
    made = region_targets(confidence, truth, patches=patches, valid=valid)
    for patch, target in zip(patches, made, strict=True):
        best = best_thresholds(patch_histograms(confidence, truth, patch=patch, valid=valid))
        spread = best.repeat(patch, axis=0).repeat(patch, axis=1)
        cut = confidence >= spread[: confidence.shape[0], : confidence.shape[1]]
        np.testing.assert_array_equal(target, cut)


def test_sizes_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="24 are no multiple of those of 16"):
        region_targets(np.zeros((9, 9), np.float32), np.zeros((9, 9), bool), patches=[16, 24])


@given(
    seed=st.integers(0, 2**32 - 1),
    patch=st.sampled_from([8, 16, 32]),
    kind=st.sampled_from(["uniform", "ties", "bytes"]),
)
def test_inside_each_patch_no_single_threshold_beats_the_chosen_one(
    seed: int, patch: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    confidence = random_patches(rng, 1, 70, kind)[0]
    truth = (confidence + rng.normal(0, 0.3, confidence.shape)) > rng.random()
    truth[:35] &= rng.random() < 0.5
    target = region_target(confidence, truth, patch=patch)

    def iou(prediction: np.ndarray, t: np.ndarray) -> float:
        union = (prediction | t).sum()
        return float((prediction & t).sum() / union) if union else 1.0

    for row in range(0, 70, patch):
        for col in range(0, 70, patch):
            cell = np.s_[row : row + patch, col : col + patch]
            chosen = iou(target[cell], truth[cell])
            for threshold in THRESHOLDS:
                assert chosen >= iou(confidence[cell] >= threshold, truth[cell])


@given(
    st.lists(
        st.one_of(
            st.floats(0, 1, width=32),
            st.sampled_from(THRESHOLDS.tolist()),
            st.sampled_from(np.nextafter(THRESHOLDS, np.float32(0)).tolist()),
            st.sampled_from(np.nextafter(THRESHOLDS, np.float32(1)).tolist()),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_a_bin_is_the_number_of_thresholds_reached(values: list[float]) -> None:
    confidence = np.array(values, dtype=np.float32)
    expected = (confidence[:, None] >= THRESHOLDS).sum(axis=1)
    np.testing.assert_array_equal(threshold_bins(confidence), expected)


def test_an_empty_patch_takes_the_lowest_threshold_that_leaves_the_fewest_false_positives() -> None:
    empty = np.zeros((8, 8), dtype=bool)
    confidence = np.full((8, 8), 0.32, dtype=np.float32)
    one = best_thresholds(patch_histograms(confidence, empty, patch=8))
    assert one == THRESHOLDS[6]  # 0.35
    confidence[3, 3] = 1.0  # above every threshold: one false positive always stays
    assert best_thresholds(patch_histograms(confidence, empty, patch=8)) == THRESHOLDS[6]
    assert best_thresholds(patch_histograms(np.ones((8, 8)), empty, patch=8)) == THRESHOLDS[0]


def test_invalid_pixels_have_no_say() -> None:
    rng = np.random.default_rng(5)
    confidence, truth = rng.random((32, 48), dtype=np.float32), rng.random((32, 48)) < 0.4
    valid = rng.random((32, 48)) < 0.7
    histograms = patch_histograms(confidence, truth, patch=16, valid=valid)
    assert histograms.sum() == valid.sum()
    assert histograms.shape == (2, N_BINS, 2, 3)
    other = np.where(valid, confidence, rng.random((32, 48), dtype=np.float32))
    np.testing.assert_array_equal(
        histograms, patch_histograms(other, truth ^ ~valid, patch=16, valid=valid)
    )


def test_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), \(2, 3\)"):
        patch_histograms(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool), patch=2)


@given(
    confidence=arrays(np.float32, (6, 7), elements=st.floats(0, 1, width=32)),
    threshold=st.floats(0, 1),
    keep=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_hysteresis_only_ever_keeps_what_the_input_had(
    confidence: Float32Array, threshold: float, keep: float, seed: int
) -> None:
    before = np.random.default_rng(seed).random(confidence.shape) < 0.5
    plain = cut_mask(confidence, before, threshold=threshold)
    kept = cut_mask(confidence, before, threshold=threshold, keep=keep)
    np.testing.assert_array_equal(plain, confidence >= np.float32(threshold))
    assert not (plain & ~kept).any()
    more = kept & ~plain
    assert (before | ~more).all() and (confidence[more] >= np.float32(keep)).all()
    assert (kept | ~before | (confidence < np.float32(min(keep, threshold)))).all()


@pytest.mark.parametrize("width", [1, 2, 7, 12, 31])
def test_the_width_of_a_band_is_its_width(width: int) -> None:
    band = np.zeros((400, 400), bool)
    band[100 : 100 + width] = True
    band[:, 0] = band[:, -1] = False
    # Distances are those of pixel centres: right but for what a half pixel rounds.
    assert foreground_width(band) == pytest.approx(width, abs=max(1.0, 0.05 * width))
    assert foreground_width(band.T) == foreground_width(band)


def test_what_is_all_background_or_all_foreground_has_no_width() -> None:
    assert foreground_width(np.zeros((9, 9), bool)) is None
    assert foreground_width(np.ones((9, 9), bool)) is None
