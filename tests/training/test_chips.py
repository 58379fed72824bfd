"""Chips: their patch grid and targets, and how they are drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from geothresh.errors import UsageError
from geothresh.nn.wrappers import smoothed
from geothresh.raster.pairs import find_pairs
from geothresh.thresholding import region_target
from geothresh.training import Recipe
from geothresh.training.chips import ChipDataset
from geothresh.training.folder_data import pair_sources

QUICK = Recipe(chip_size=64, chips_per_epoch=8)


def test_chips_keep_the_patch_grid_and_their_targets(data) -> None:
    recipe = dataclasses.replace(QUICK, chip_size=64, chips_per_epoch=None, mix=0.5, zoom=1.5)
    chips = ChipDataset(pair_sources(find_pairs(data[0], data[1])), recipe, patch=32)
    assert len(chips) == 12
    for chip in (chips[k] for k in range(len(chips))):
        assert all(a.shape == (1, 64, 64) and a.dtype == np.float32 for a in chip)
        assert chip.confidence.min() >= 0 and chip.confidence.max() <= 1
        expected = region_target(chip.confidence[0], chip.truth[0] == 1, patch=32)
        np.testing.assert_array_equal(chip.region_target[0] == 1, expected)
        assert set(np.unique(chip.truth)) <= {0.0, 1.0}
    with pytest.raises(UsageError, match="no multiple of the patch"):
        ChipDataset(pair_sources(find_pairs(data[0], data[1])), recipe, patch=48)


def test_a_chip_has_its_size_however_far_it_is_zoomed(data) -> None:
    sources = pair_sources(find_pairs(data[0], data[1]))
    recipe = dataclasses.replace(QUICK, chip_size=64, chips_per_epoch=None, zoom=1e4)
    chips = ChipDataset(sources, recipe, patch=32)
    for epoch in range(4):
        chips.set_epoch(epoch)
        assert {chips[k].confidence.shape for k in range(len(chips))} == {(1, 64, 64)}


def test_chips_of_a_model_that_reads_smoothed_maps_are_smoothed_first(data) -> None:
    plain = dataclasses.replace(QUICK, chip_size=64, mix=0.0, jitter=0.0, zoom=1.0)
    sources = pair_sources(find_pairs(data[0], data[1]))
    as_is, smooth = (
        ChipDataset(sources, dataclasses.replace(plain, smooth=one), patch=32)[2]
        for one in (False, True)
    )
    expected = smoothed(as_is.confidence[0])
    np.testing.assert_allclose(smooth.confidence[0], expected, atol=1e-6)
    assert (as_is.confidence != smooth.confidence).any()
    target = region_target(smooth.confidence[0], smooth.truth[0] == 1, patch=32)
    np.testing.assert_array_equal(smooth.region_target[0] == 1, target)


def test_chips_depend_on_seed_epoch_and_position_alone(data) -> None:
    sources = pair_sources(find_pairs(data[0], data[1]))
    one, other = (ChipDataset(sources, QUICK, patch=32) for _ in range(2))
    one.set_epoch(1)
    other.set_epoch(1)
    _ = other[5]
    np.testing.assert_array_equal(one[3].confidence, other[3].confidence)
    other.set_epoch(2)
    assert any((one[k].confidence != other[k].confidence).any() for k in range(8))


def test_an_epoch_without_balance_takes_every_map_once(data, monkeypatch) -> None:
    recipe = dataclasses.replace(QUICK, chips_per_epoch=24)
    chips = ChipDataset(pair_sources(find_pairs(data[0], data[1])), recipe, patch=32)
    drawn = [chips._draw(k, np.random.default_rng(k)) for k in range(24)]
    assert sorted(drawn[:12]) == sorted(drawn[12:]) == list(range(12))


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balance_lets_small_data_sets_catch_up(data, balance) -> None:
    pairs = [
        dataclasses.replace(pair, dataset="small" if number < 3 else "large")
        for number, pair in enumerate(find_pairs(data[0], data[1]))
    ]
    sources = pair_sources(pairs)
    recipe = dataclasses.replace(QUICK, balance=balance)
    chips = ChipDataset(sources, recipe, patch=32)
    drawn = np.array([chips._draw(0, np.random.default_rng(k)) for k in range(2000)])
    weights = np.array([3, len(sources) - 3]) ** (1 - balance)
    assert (drawn < 3).mean() == pytest.approx(weights[0] / weights.sum(), abs=0.04)
    assert set(drawn) == set(range(len(sources)))


def test_maps_smaller_than_a_chip_are_mirrored_outwards(data) -> None:
    recipe = dataclasses.replace(QUICK, chip_size=128)
    chip = ChipDataset(pair_sources(find_pairs(data[0], data[1])), recipe, patch=64)[0]
    assert chip.truth.shape == (1, 128, 128)
    assert chip.truth.any()
