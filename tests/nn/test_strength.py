"""The strength of a model's card: what it gives is mixed with what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from geothresh import load_model, refine_array
from geothresh.nn.modelfile import load_weights, read_card, save_model
from geothresh.nn.transformation import Transformation
from geothresh.nn.wrappers import smoothed, wrapped
from geothresh.options import Tiling
from geothresh.types import Float32Array
from tests.support.fakes import FakeSource, UnevenRefiner


def tiles(count: int, side: int) -> Float32Array:
    values = np.random.default_rng(0).uniform(0.05, 0.95, (count, side, side))
    return values.astype(np.float32)


def logits(confidence: Float32Array) -> np.ndarray:
    """Of confidences clipped as everywhere."""
    return logit(np.clip(confidence.astype(np.float64), 1 / 1020, 1 - 1 / 1020))


@given(strength=st.floats(0.01, 1))
def test_each_logit_lies_so_far_between_input_and_refined(strength: float) -> None:
    values, inner = tiles(2, 32), UnevenRefiner()
    refiner = wrapped(inner, strength=strength)
    assert callable(refiner)
    expected = strength * logits(inner(values)) + (1 - strength) * logits(values)
    np.testing.assert_allclose(refiner(values), expit(expected), atol=2e-3)


def test_full_strength_wraps_nothing() -> None:
    inner = UnevenRefiner()
    assert wrapped(inner, strength=1.0) is inner


def test_what_is_mixed_in_is_the_smoothed_map_and_not_its_checkerboard() -> None:
    values, inner = tiles(1, 32), UnevenRefiner()
    refiner = wrapped(inner, strength=0.5, smooth=True)
    assert callable(refiner)
    seen = smoothed(values)
    expected = expit((logits(inner(seen)) + logits(seen)) / 2)
    np.testing.assert_allclose(refiner(values), expected, atol=1e-5)


def test_a_calibration_starts_from_the_model_as_anybody_has_it() -> None:
    values, inner = tiles(1, 32), UnevenRefiner()
    refiner = wrapped(inner, strength=0.5, transformation=Transformation(strength=0.5))
    assert callable(refiner)
    expected = 0.25 * logits(inner(values)) + 0.75 * logits(values)
    np.testing.assert_allclose(refiner(values), expit(expected), atol=1e-5)


def test_workers_mix_for_themselves() -> None:
    source = wrapped(FakeSource(kind="uneven"), strength=0.3)
    assert not callable(source)
    here = wrapped(UnevenRefiner(), strength=0.3)
    assert callable(here)
    assert np.array_equal(source.load()(tiles(2, 32)), here(tiles(2, 32)))


def test_the_card_decides(tiny_model: Path, tmp_path: Path) -> None:
    card, weak = read_card(tiny_model), tmp_path / "weak.safetensors"
    weights = load_weights(tiny_model, card.config)
    training = {**card.training, "strength": 0.4}
    save_model(weak, tensors=weights, config=card.config, training=training)
    values, tiling = tiles(1, 64)[0], Tiling(tile_size=64, overlap=32)
    full = refine_array(values, model=tiny_model, tiling=tiling)
    found = refine_array(values, model=weak, tiling=tiling)
    assert load_model(weak, device="cpu").scope.strength == pytest.approx(0.4)
    change = (
        np.abs(logits(found) - logits(values)).mean() / np.abs(logits(full) - logits(values)).mean()
    )
    # Tiles are blended as confidences, so that the share of logits is nearly, not quite, kept.
    assert change == pytest.approx(0.4, abs=0.02)
