"""Refining a raster of another resolution than the model's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geothresh.errors import ModelError, UsageError
from geothresh.mosaic import Threads, mosaic_array
from geothresh.nn.scope import MAX_RESAMPLING, GroundSampleDistance, resampled_patch
from geothresh.nn.wrappers import ResampledRefiner, resize
from geothresh.types import Float32Array
from tests.support.fakes import IdentityRefiner, UnevenRefiner

SIDES = st.integers(1, 40)


def tiles(side: int, seed: int = 0, count: int = 1) -> Float32Array:
    return np.random.default_rng(seed).random((count, side, side), np.float32)


FEW = settings(max_examples=15)


def areas(tile: Float32Array, side: int) -> Float32Array:
    """The mean over each pixel's area, counted in the smallest common pixels."""
    fine = math.lcm(len(tile), side)
    wide = np.kron(tile.astype(np.float64), np.ones((fine // len(tile),) * 2))
    step = fine // side
    return wide.reshape(side, step, side, step).mean((1, 3)).astype(np.float32)


@given(side=SIDES, to=SIDES, seed=st.integers(0, 9))
def test_reducing_takes_means_over_areas(side: int, to: int, seed: int) -> None:
    side, to = max(side, to), min(side, to)
    given_tiles = tiles(side, seed, count=2)
    if side == to:
        return
    expected = np.stack([areas(tile, to) for tile in given_tiles])
    np.testing.assert_allclose(resize(given_tiles, to), expected, atol=1e-6)


@given(side=SIDES, to=SIDES, seed=st.integers(0, 9))
def test_enlarging_is_bilinear_between_centres(side: int, to: int, seed: int) -> None:
    side, to = min(side, to), max(side, to)
    tile = tiles(side, seed)[0]
    at = np.clip((np.arange(to) + 0.5) * side / to - 0.5, 0, side - 1)
    known = np.arange(side)
    rows = np.stack([np.interp(at, known, column) for column in tile.T], axis=1)
    expected = np.stack([np.interp(at, known, row) for row in rows])
    np.testing.assert_allclose(resize(tile[None], to)[0], expected, atol=1e-6)


@given(side=SIDES, to=SIDES, value=st.floats(0, 1, width=32))
def test_a_constant_stays_constant(side: int, to: int, value: float) -> None:
    resized = resize(np.full((1, side, side), value, np.float32), to)
    np.testing.assert_allclose(resized, value, atol=3e-7)


def test_the_same_size_is_the_same_tile() -> None:
    assert np.array_equal(resize(tiles(16), 16), tiles(16))


@FEW
@given(patch=st.sampled_from([4, 11, 16, 21, 33, 64]), seed=st.integers(0, 9))
def test_what_changes_nothing_changes_nothing_at_any_resolution(patch: int, seed: int) -> None:
    """Not even at the border of a hole, which is filled with zeros."""
    values = tiles(4 * patch, seed)
    values[0, patch : 2 * patch, :patch] = 0
    refined = ResampledRefiner(IdentityRefiner(16), patch=patch)(values)
    # Where the input lies within a thousandth of 0 or 1 the network itself sees no difference.
    np.testing.assert_allclose(refined, values, atol=1.1e-3)


class Raising(IdentityRefiner):
    """Adds 1 to the logit."""

    def refine(self, tiles: Float32Array) -> Float32Array:
        odds = np.exp(1) * tiles / (1 - tiles)
        return (odds / (1 + odds)).astype(np.float32)


@given(patch=st.sampled_from([5, 16, 40]), seed=st.integers(0, 9))
def test_the_change_is_that_of_the_logit(patch: int, seed: int) -> None:
    values = 0.1 + 0.8 * tiles(2 * patch, seed)
    refined = ResampledRefiner(Raising(16), patch=patch)(values)
    np.testing.assert_allclose(refined, Raising(patch).refine(values), atol=1e-5)


@FEW
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 90),
    patch=st.sampled_from([5, 12, 27]),
    chunk=st.sampled_from([7, 20, 64]),
    threads=st.sampled_from([1, 3]),
    batch=st.sampled_from([1, 3]),
)
def test_chunks_batches_and_threads_leave_no_trace(
    height: int, width: int, patch: int, chunk: int, threads: int, batch: int
) -> None:
    values = np.random.default_rng(height + width).random((height, width), np.float32)
    values[height // 2 :, : width // 3] = np.nan
    refiner = ResampledRefiner(UnevenRefiner(16), patch=patch)
    expected = mosaic_array(values, refiner, tile=4 * patch, overlap=patch, where=Threads(1))
    refined = mosaic_array(
        values, refiner, tile=4 * patch, overlap=patch, where=Threads(threads), batch_size=batch,
        chunk_height=chunk, chunk_width=chunk,
    )  # fmt: skip
    assert refined.shape == values.shape
    assert np.array_equal(refined, expected, equal_nan=True)
    assert np.array_equal(np.isnan(refined), np.isnan(values))


def test_tiles_that_are_no_multiple_of_the_patch_are_refused() -> None:
    with pytest.raises(ModelError, match="patch 20"):
        ResampledRefiner(IdentityRefiner(16), patch=20)(tiles(50))


@given(
    patch=st.sampled_from([16, 32, 64, 128, 256]),
    ratio=st.floats(1 / MAX_RESAMPLING, MAX_RESAMPLING),
)
def test_the_factor_is_the_nearest_that_keeps_patches_whole(patch: int, ratio: float) -> None:
    chosen = resampled_patch(patch, ratio)

    def off(pixels: int) -> float:
        return abs(math.log(patch / pixels / ratio))

    others = [pixels for pixels in (chosen - 1, chosen + 1) if pixels >= 1]
    assert chosen >= 1 and all(off(chosen) <= off(other) + 1e-9 for other in others)


@pytest.mark.parametrize(
    ("ratio", "pixels"), [(1.0, 64), (2.0, 32), (0.5, 128), (0.999, 64), (8.0, 8), (1 / 8, 512)]
)
def test_plain_factors_are_met(ratio: float, pixels: int) -> None:
    assert resampled_patch(64, ratio) == pixels


@pytest.mark.parametrize("ratio", [8.1, 1 / 8.1])
def test_too_far_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match=r"8.1 times (larger|smaller).*at most 8 times"):
        resampled_patch(64, ratio)


def test_a_range_is_compared_with_its_nearer_end() -> None:
    known = GroundSampleDistance(least=0.3, greatest=1.0)
    assert [known.ratio(m) for m in (0.3, 0.5, 1.0)] == [1, 1, 1]
    assert known.ratio(0.15) == pytest.approx(0.5) and known.ratio(4) == pytest.approx(4)
    assert not known.differs(0.201) and not known.differs(1.499)
    assert known.differs(0.199) and known.differs(1.501)
    assert known.text == "0.3 to 1 m"
    assert GroundSampleDistance(least=0.5, greatest=0.5).text == "0.5 m"


@pytest.mark.parametrize("ends", [(0, 1), (1, 0.5), (1, math.inf), (math.nan, 1)])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="above 0"):
        GroundSampleDistance(least=ends[0], greatest=ends[1])


@pytest.mark.parametrize("entry", [0.5, [0.5], ["a", "b"], [2, 1], "0.5", [None, 1], [10**400] * 2])
def test_a_card_with_another_entry_is_an_unusable_model(entry: object) -> None:
    with pytest.raises(ModelError, match="not a least and a greatest size"):
        GroundSampleDistance.of_card({"ground_sample_distance": entry})
