"""Smoothed tiles: what a model whose card asks for it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from geothresh import load_model, refine_array
from geothresh.nn.modelfile import load_weights, read_card, save_model
from geothresh.nn.wrappers import SmoothedRefiner, smoothed, wrapped
from geothresh.options import Tiling
from geothresh.types import Float32Array
from tests.support.fakes import FakeSource, IdentityRefiner, UnevenRefiner


def tiles(count: int, side: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).uniform(0.05, 0.95, (count, side, side)).astype(np.float32)


@given(seed=st.integers(0, 99), side=st.integers(1, 9))
def test_each_logit_is_the_weighted_mean_of_nine(seed: int, side: int) -> None:
    values = tiles(2, side, seed)
    padded = np.pad(logit(values.astype(np.float64)), ((0, 0), (1, 1), (1, 1)), mode="edge")
    expected = np.zeros(values.shape)
    for row, down in enumerate((0.25, 0.5, 0.25)):
        for col, along in enumerate((0.25, 0.5, 0.25)):
            expected += down * along * padded[:, row : row + side, col : col + side]
    np.testing.assert_allclose(smoothed(values), expit(expected), atol=1e-6)


def test_a_checkerboard_is_gone_and_a_flat_map_stays() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2
    result = smoothed(np.where(board, 0.9, 0.1).astype(np.float32))
    np.testing.assert_allclose(result[1:-1, 1:-1], 0.5, atol=1e-6)
    np.testing.assert_allclose(smoothed(np.full((5, 7), 0.3, np.float32)), 0.3, atol=1e-6)


def test_what_is_given_is_not_changed() -> None:
    values = tiles(1, 16)
    kept = values.copy()
    SmoothedRefiner(IdentityRefiner())(values)
    assert np.array_equal(values, kept)


@pytest.mark.parametrize("patch", [16, 24])
def test_the_change_is_added_to_the_smoothed_map(patch: int) -> None:
    inner, values = IdentityRefiner(), tiles(1, 48)
    refined = wrapped(inner, patch=patch, smooth=True)
    assert callable(refined)
    np.testing.assert_allclose(refined(values), smoothed(values), atol=1e-5)


def test_workers_smooth_for_themselves() -> None:
    source = wrapped(FakeSource(kind="uneven"), smooth=True)
    assert not callable(source)
    expected = UnevenRefiner()(smoothed(tiles(2, 32)))
    assert np.array_equal(source.load()(tiles(2, 32)), expected)


def test_the_card_decides(tiny_model: Path, tmp_path: Path) -> None:
    card, smooth = read_card(tiny_model), tmp_path / "smooth.safetensors"
    weights = load_weights(tiny_model, card.config)
    training = {**card.training, "smooth": True}
    save_model(smooth, tensors=weights, config=card.config, training=training)
    values, tiling = tiles(1, 64)[0], Tiling(tile_size=64, overlap=16)
    expected = refine_array(smoothed(values), model=tiny_model, tiling=tiling)
    assert np.array_equal(refine_array(values, model=smooth, tiling=tiling), expected)
    assert load_model(smooth, device="cpu").scope.smooth
