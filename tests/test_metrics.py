"""Counts and figures of merit against scikit-learn and naive twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from geothresh.metrics import (
    Counts,
    MapScore,
    Summary,
    absolute_error,
    boundary_band,
    boundary_counts,
    boundary_distance,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=17)


@st.composite
def masks(draw: st.DrawFn, n: int) -> list[np.ndarray]:
    """n boolean images of one shape."""
    shape = draw(SHAPES)
    return [draw(hnp.arrays(np.bool_, shape)) for _ in range(n)]


def smooth_mask(rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    """A mask with blobs, so that boundaries have insides."""
    noise = ndimage.gaussian_filter(rng.random((height, width)), rng.uniform(0.5, 4))
    return np.asarray(noise > np.quantile(noise, 1 - share))


STRUCTURES = {
    "chessboard": np.ones((3, 3), dtype=bool),
    "cityblock": np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool),
}
METRICS = st.sampled_from(list(STRUCTURES))


def naive_band(mask: np.ndarray, distance: int, metric: str = "chessboard") -> np.ndarray:
    """Iterated erosion of the mask with one row of background around it."""
    eroded = np.pad(mask, 1)
    for _ in range(distance):
        eroded = ndimage.binary_erosion(eroded, structure=STRUCTURES[metric], border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


@given(masks(3))
def test_counts_equal_a_loop_over_pixels(arrays: list[np.ndarray]) -> None:
    prediction, target, valid = arrays
    expected = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for p, t, v in zip(prediction.flat, target.flat, valid.flat, strict=True):
        if v:
            expected[("t" if p == t else "f") + ("p" if p else "n")] += 1
    counts = Counts.of(prediction=prediction, target=target, valid=valid)
    assert counts.as_dict() == expected
    assert counts.total == np.count_nonzero(valid)


@pytest.fixture(scope="module")
def sklearn() -> Any:
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


@given(arrays=masks(2))
def test_iou_equals_scikit_learn(sklearn: Any, arrays: list[np.ndarray]) -> None:
    prediction, target = arrays
    counts = Counts.of(prediction=prediction, target=target)
    p, t = prediction.ravel(), target.ravel()
    assert counts.iou() == pytest.approx(sklearn.jaccard_score(t, p, zero_division=1.0))
    assert counts.background_iou() == pytest.approx(
        sklearn.jaccard_score(~t, ~p, zero_division=1.0)
    )
    assert counts.precision() == pytest.approx(sklearn.precision_score(t, p, zero_division=1.0))
    assert counts.recall() == pytest.approx(sklearn.recall_score(t, p, zero_division=1.0))
    assert counts.two_class_iou() == pytest.approx(
        (counts.iou() + counts.background_iou()) / 2, abs=1e-12
    )


@given(masks(3), st.integers(0, 17))
def test_counts_of_parts_add_to_the_whole(arrays: list[np.ndarray], cut: int) -> None:
    prediction, target, valid = arrays
    parts = [
        Counts.of(prediction=prediction[rows], target=target[rows], valid=valid[rows])
        for rows in (slice(None, cut), slice(cut, None))
    ]
    whole = Counts.of(prediction=prediction, target=target, valid=valid)
    assert sum(parts) == parts[0] + parts[1] == whole


def test_empty_against_empty_is_a_parameter() -> None:
    nothing = Counts(tn=5)
    assert nothing.iou() == 1.0
    assert nothing.iou(empty=0.0) == 0.0
    assert Counts(fp=1, tn=4).iou() == 0.0
    assert Counts(tp=9).background_iou() == 1.0


def test_counts_do_not_add_to_other_things() -> None:
    with pytest.raises(TypeError):
        Counts(tp=1) + 1


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(512, 512, 15), (400, 400, 11), (1024, 1024, 29), (1, 1, 1), (40, 30, 1), (300, 400, 10)],
)
def test_boundary_distance(height: int, width: int, expected: int) -> None:
    assert boundary_distance(height, width) == expected


def test_boundary_distance_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        boundary_distance(0, 5)


@given(masks(1), st.integers(1, 20), METRICS)
def test_band_equals_iterated_erosion_on_noise(
    arrays: list[np.ndarray], distance: int, metric: Any
) -> None:
    np.testing.assert_array_equal(
        boundary_band(arrays[0], distance, metric), naive_band(arrays[0], distance, metric)
    )


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 12),
    st.floats(0.05, 1.0),
    METRICS,
)
def test_band_equals_iterated_erosion_on_blobs(
    seed: int, height: int, width: int, distance: int, share: float, metric: Any
) -> None:
    mask = smooth_mask(np.random.default_rng(seed), height, width, share)
    np.testing.assert_array_equal(
        boundary_band(mask, distance, metric), naive_band(mask, distance, metric)
    )


def test_band_of_a_full_mask_is_a_frame_since_the_border_counts() -> None:
    band = boundary_band(np.ones((10, 12), dtype=bool), 3)
    assert not band[3:-3, 3:-3].any()
    assert np.count_nonzero(band) == 10 * 12 - 4 * 6


@given(masks(3), st.integers(1, 4), METRICS)
def test_boundary_counts_equal_sets_of_pixels(
    arrays: list[np.ndarray], distance: int, metric: Any
) -> None:
    prediction, target, valid = arrays
    ours = boundary_counts(
        prediction=prediction, target=target, valid=valid, distance=distance, metric=metric
    )
    p = set(zip(*np.nonzero(naive_band(prediction & valid, distance, metric)), strict=True))
    t = set(zip(*np.nonzero(naive_band(target & valid, distance, metric)), strict=True))
    assert ours.iou() == (len(p & t) / len(p | t) if p | t else 1.0)
    assert ours.total == np.count_nonzero(valid)


@given(masks(2))
def test_boundary_iou_is_iou_where_all_pixels_are_near_the_contour(
    arrays: list[np.ndarray],
) -> None:
    prediction, target = arrays
    assert boundary_counts(prediction=prediction, target=target, distance=20) == Counts.of(
        prediction=prediction, target=target
    )


def test_absolute_error_reads_valid_pixels_only() -> None:
    confidence = np.array([[0.25, np.nan], [1.0, 0.5]])
    target = np.array([[False, True], [True, True]])
    valid = np.isfinite(confidence)
    assert absolute_error(confidence=confidence, target=target, valid=valid) == pytest.approx(0.25)
    assert absolute_error(confidence=confidence, target=target, valid=~(valid | ~valid)) == 0.0


def test_summary_equals_a_naive_twin() -> None:
    rng = np.random.default_rng(4)
    scores, ious, boundary_ious, errors, pairs = [], [], [], [], []
    for share in (0.3, 0.1, 0.5):
        confidence = rng.random((20, 30))
        prediction, target = confidence >= 0.5, smooth_mask(rng, 20, 30, share)
        scores.append(MapScore.of(prediction=prediction, target=target, confidence=confidence))
        ious.append((prediction & target).sum() / (prediction | target).sum())
        p, t = naive_band(prediction, 1), naive_band(target, 1)
        boundary_ious.append((p & t).sum() / (p | t).sum())
        errors.append(np.abs(confidence - target).mean())
        pairs.append((prediction, target))
    p, t = (np.stack(a) for a in zip(*pairs, strict=True))
    pooled, background = (p & t).sum() / (p | t).sum(), (~p & ~t).sum() / (~p | ~t).sum()

    summary = Summary.of(scores)

    assert summary.n == 3
    assert summary.miou == pytest.approx(np.mean(ious))
    assert summary.iou_pooled == pytest.approx(pooled)
    assert summary.miou_two_class == pytest.approx((pooled + background) / 2)
    assert summary.boundary_iou == pytest.approx(np.mean(boundary_ious))
    assert summary.mae == pytest.approx(np.mean(errors), abs=1e-6)


def test_summary_has_no_mae_unless_every_map_has_one() -> None:
    mask = np.eye(4, dtype=bool)
    with_mae = MapScore.of(prediction=mask, target=mask, confidence=mask.astype(float))
    without = MapScore.of(prediction=mask, target=mask)
    assert Summary.of([with_mae]).mae == 0.0
    assert Summary.of([with_mae, without]).mae is None


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2), bool), "prediction is float64"),
        (np.zeros((2, 2), bool), np.zeros((2, 3), bool), r"target is \(2, 3\)"),
    ],
)
def test_wrong_arrays_are_named(prediction: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Counts.of(prediction=prediction, target=target)


def test_summary_of_nothing_and_a_bad_distance_are_refused() -> None:
    with pytest.raises(ValueError, match="0 maps"):
        Summary.of([])
    with pytest.raises(ValueError, match="distance 0"):
        boundary_band(np.zeros((3, 3), dtype=bool), 0)
    with pytest.raises(ValueError, match="chessboard, cityblock"):
        boundary_band(np.zeros((3, 3), dtype=bool), 1, "euclid")
