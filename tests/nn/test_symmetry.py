"""Test-time augmentation over the eight symmetries of the square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from geothresh import load_model, refine_array
from geothresh.errors import ModelError, UsageError
from geothresh.mosaic import mosaic_array
from geothresh.nn.wrappers import SATURATED, SymmetricRefiner, wrapped
from geothresh.options import Refining
from geothresh.types import Float32Array
from tests.support.fakes import FakeSource, IdentityRefiner, NanRefiner, UnevenRefiner
from tests.support.flat import grouped

Turn = Callable[[Float32Array], Float32Array]


def symmetry(number: int) -> Turn:
    """One of the eight, on arrays (..., rows, columns)."""
    turns, mirrored = number % 4, number >= 4

    def turn(array: Float32Array) -> Float32Array:
        seen = np.swapaxes(array, -1, -2) if mirrored else array
        return np.ascontiguousarray(np.rot90(seen, turns, axes=(-2, -1)))

    return turn


def tiles(count: int, side: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).random((count, side, side), np.float32)


@given(number=st.integers(0, 7), seed=st.integers(0, 99), count=st.integers(1, 3))
def test_a_turned_tile_is_refined_to_the_turned_result(number: int, seed: int, count: int) -> None:
    turn, refiner = symmetry(number), SymmetricRefiner(UnevenRefiner(patch=16))
    given_tiles = tiles(count, 32, seed)
    assert np.array_equal(refiner(turn(given_tiles)), turn(refiner(given_tiles)))


def test_without_it_a_turned_tile_is_not() -> None:
    refiner, turn = UnevenRefiner(patch=16), symmetry(1)
    assert not np.allclose(refiner(turn(tiles(1, 32))), turn(refiner(tiles(1, 32))))


@pytest.mark.parametrize("number", [1, 6])
def test_a_network_is_symmetric_to_the_last_bit(tiny_model: Path, number: int) -> None:
    turn, values = symmetry(number), tiles(1, 64)[0]
    options = {"tile_size": 64, "overlap": 16, "device": "cpu", "precision": "fp32"}
    straight = refine_array(values, model=tiny_model, **grouped(tta="d4", **options))
    turned = refine_array(turn(values), model=tiny_model, **grouped(tta="d4", **options))
    assert np.array_equal(turned, turn(straight))
    plain = refine_array(values, model=tiny_model, **grouped(**options))
    assert not np.array_equal(
        refine_array(turn(values), model=tiny_model, **grouped(**options)), turn(plain)
    )


def test_it_is_the_mean_of_the_eight_logits() -> None:
    refiner, given_tiles = UnevenRefiner(patch=16), tiles(2, 32)
    logits = []
    for number in range(8):
        turn = symmetry(number)
        turned = turn(given_tiles)
        # Undo by trying all eight: the inverse is the one that gives the tiles back.
        back = next(b for b in map(symmetry, range(8)) if np.array_equal(b(turned), given_tiles))
        seen = np.clip(back(refiner(turned)), SATURATED, 1 - SATURATED)
        logits.append(logit(seen.astype(np.float64)))
    expected = expit(np.mean(logits, axis=0))
    np.testing.assert_allclose(SymmetricRefiner(refiner)(given_tiles), expected, atol=1e-5)


def test_what_changes_nothing_changes_nothing_from_eight_sides() -> None:
    given_tiles = tiles(1, 32)
    given_tiles[0, :4, :4], given_tiles[0, 4:8, :4] = 0, 1
    inner = IdentityRefiner()
    np.testing.assert_allclose(SymmetricRefiner(inner)(given_tiles), given_tiles, atol=2e-6)
    assert inner.batches == [1] * 8


def test_a_network_that_gives_nan_is_still_found_out() -> None:
    with pytest.raises(ModelError, match="values from nan"):
        mosaic_array(tiles(1, 64)[0], SymmetricRefiner(NanRefiner()), tile=64, overlap=16)


def test_workers_wrap_for_themselves() -> None:
    source = wrapped(FakeSource(kind="uneven"), tta="d4")
    assert not callable(source) and source.patch == 16
    given_tiles = tiles(2, 32)
    expected = SymmetricRefiner(UnevenRefiner())(given_tiles)
    assert np.array_equal(source.load()(given_tiles), expected)


def test_nothing_to_wrap_is_nothing_wrapped() -> None:
    refiner, source = IdentityRefiner(), FakeSource(kind="uneven")
    assert wrapped(refiner) is refiner and wrapped(source, tta="none", patch=16) is source


def test_an_unknown_augmentation_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="`tta` 'd8': give none or d4"):
        refine_array(tiles(1, 64)[0], model=tiny_model, refining=Refining(tta="d8"))


def test_tiles_that_are_not_square_cannot_be_turned(tiny_model: Path) -> None:
    refiner = SymmetricRefiner(load_model(tiny_model, device="cpu"))
    with pytest.raises(ModelError, match="not square"):
        refiner(np.zeros((1, 16, 32), np.float32))
