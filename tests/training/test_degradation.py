"""Maps made worse and maps made from masks: of the right kind, repeatable, and never the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.api.train import train
from geothresh.errors import UsageError
from geothresh.nn.modelfile import read_card
from geothresh.training import Recipe, degradation
from geothresh.training.data import mixed
from geothresh.training.degradation import degrade, synthesise
from geothresh.training.options import FolderData, NetworkChoice
from tests.support.roads import make_roads

pytestmark = pytest.mark.usefixtures("tiny_preset")

KINDS = [
    degradation._with_gaps,
    degradation._with_false,
    degradation._displaced,
    degradation._swollen,
    degradation._with_speckle,
    degradation._blurred,
    degradation._uneven,
]


def streets(height: int = 160, width: int = 160) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 3 + 9] = True
    mask[:, width // 2 : width // 2 + 9] = True
    return mask


def logits_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, np.float32(4), np.float32(-4))


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
)
def test_maps_of_any_size_stay_maps(height: int, width: int, seed: int, share: float) -> None:
    truth = np.random.default_rng(seed).random((height, width)) < share
    for make in (
        lambda rng: synthesise(truth, rng),
        lambda rng: degrade(logits_of(truth), truth, rng),
    ):
        made = make(np.random.default_rng(seed))
        assert (made.shape, made.dtype) == (truth.shape, np.float32)
        assert np.isfinite(made).all() and np.abs(made).max() <= 6
        np.testing.assert_array_equal(made, make(np.random.default_rng(seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_damage_changes_the_map_and_not_its_input(kind) -> None:
    truth = streets()
    logits = logits_of(truth)
    before = logits.copy()
    made = [kind(logits, truth, np.random.default_rng(seed)) for seed in (0, 1)]
    np.testing.assert_array_equal(logits, before)
    assert made[0].dtype == np.float32
    assert np.abs(made[0] - logits).max() > 0.05
    assert (made[0] != made[1]).any()


def test_synthetic_maps_know_the_roads_more_or_less() -> None:
    truth = streets()
    scores = []
    for seed in range(60):
        made = synthesise(truth, np.random.default_rng(seed)) >= 0
        scores.append((made & truth).sum() / (made | truth).sum())
    low, middle, high = np.percentile(scores, [10, 50, 90])
    # From weak base networks to good ones: neither noise nor the truth itself.
    assert low < 0.5 and 0.3 < middle < 0.9 and 0.6 < high < 0.99


def test_gaps_lie_on_roads_and_false_ones_off_them() -> None:
    truth = streets()
    logits = logits_of(truth)
    lost = gained = 0
    for seed in range(20):
        gaps = degradation._with_gaps(logits, truth, np.random.default_rng(seed))
        assert (gaps <= logits).all()
        lost += ((gaps < 0) & truth).sum()
        false = degradation._with_false(logits, truth, np.random.default_rng(seed))
        assert (false >= logits).all()
        gained += ((false > 0) & ~truth).sum()
    assert lost > 500 and gained > 500


def test_without_foreground_there_is_nothing_to_interrupt() -> None:
    truth = np.zeros((64, 64), bool)
    made = degradation._with_gaps(logits_of(truth), truth, np.random.default_rng(0))
    np.testing.assert_array_equal(made, logits_of(truth))


@pytest.mark.parametrize("pixels", [3.0, 20.0, 80.0])
def test_fields_have_unit_variance_and_change_slowly(pixels: float) -> None:
    shape = (150, 200)
    fields = np.stack(
        [degradation._field(shape, np.random.default_rng(k), pixels=pixels) for k in range(40)]
    )
    assert abs(fields.mean()) < 0.25 and 0.7 < fields.std() < 1.3
    slope = np.abs(np.diff(fields, axis=2)).mean()
    assert 0.3 / pixels < slope < 1.5 / pixels


def test_a_warp_of_nothing_is_nothing() -> None:
    ramp = np.arange(40, dtype=np.float32)[:, None] * np.ones(50, np.float32)
    still = degradation._warped(ramp, np.random.default_rng(0), most=0.0)
    np.testing.assert_allclose(still[:-1], ramp[:-1], atol=1e-4)
    moved = degradation._warped(ramp, np.random.default_rng(0), most=2.0)
    assert 0.3 < np.abs(moved - ramp).max() < 8


@pytest.mark.parametrize("change", [{"degrade": 1.5}, {"synthesise": -0.1}])
def test_shares_outside_0_and_1_are_refused(change) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(Recipe(), **change)


def test_pre_training_on_made_maps_is_a_start_for_real_ones(tmp_path: Path) -> None:
    data, networks = make_roads(tmp_path)
    maps = FolderData(folders=[data], confidence=networks)
    recipe = Recipe(epochs=1, chips_per_epoch=8, chip_size=64, synthesise=1.0, precision="fp32")
    first = train(maps, tmp_path / "made.safetensors", recipe=recipe)
    train(
        maps,
        tmp_path / "m.safetensors",
        recipe=dataclasses.replace(recipe, synthesise=0.0, degrade=0.5),
        network=NetworkChoice(init=first.model),
    )
    # The epoch itself, whether or not it beat the start.
    told = read_card(tmp_path / "m.last.safetensors").training
    assert told["init"]["name"] == "made"
    assert told["recipe"]["degrade"] == 0.5


@pytest.mark.filterwarnings("error")
def test_a_mixture_of_two_maps_lies_between_them_by_their_logits() -> None:
    one = np.array([[0.0, 0.2, 0.5, 0.9, 1.0]], np.float32)
    other = np.array([[1.0, 0.8, 0.5, 0.5, 0.0]], np.float32)
    for share, expected in ((1.0, one), (0.0, other), (0.5, [[0.5, 0.5, 0.5, 0.75, 0.5]])):
        found = mixed(one, other, np.float32(share))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-3)
