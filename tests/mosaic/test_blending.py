"""Weights of overlapping tiles: one in sum at every pixel, positive where they must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.mosaic.blending import BLENDS, AxisWeights, blend_profile
from geothresh.options import Blend

blends = st.sampled_from(BLENDS)
counts = st.integers(1, 12)


@st.composite
def tiles_and_overlaps(draw: st.DrawFn) -> tuple[int, int]:
    tile = draw(st.integers(1, 64))
    return tile, draw(st.integers(0, tile - 1))


def naive(kind: Blend, tile: int, overlap: int, count: int) -> NDArray[np.float64]:
    """Weights of all tiles over the whole axis, (count, extent): a row per tile, no sharing."""
    stride = tile - overlap
    weights = np.zeros((count, (count - 1) * stride + tile))
    for k in range(count):
        if kind == "crop":
            start = 0 if k == 0 else k * stride + overlap // 2
            stop = k * stride + (tile if k == count - 1 else overlap // 2 + stride)
            weights[k, start:stop] = 1
        else:
            profile = blend_profile(kind, tile, overlap)
            weights[k, k * stride : k * stride + tile] = profile
    return weights / weights.sum(axis=0)


@given(blends, tiles_and_overlaps(), counts)
def test_weights_are_those_of_the_naive_twin(
    kind: Blend, shape: tuple[int, int], count: int
) -> None:
    tile, overlap = shape
    expected = naive(kind, tile, overlap, count)
    axis = AxisWeights.build(kind, tile=tile, overlap=overlap, count=count)
    for k in range(count):
        start = k * (tile - overlap)
        np.testing.assert_allclose(axis.of(k), expected[k, start : start + tile], atol=1e-6)


@given(blends, tiles_and_overlaps(), counts)
def test_weights_add_up_to_one(kind: Blend, shape: tuple[int, int], count: int) -> None:
    tile, overlap = shape
    stride = tile - overlap
    axis = AxisWeights.build(kind, tile=tile, overlap=overlap, count=count)
    total = np.zeros((count - 1) * stride + tile)
    for k in range(count):
        total[k * stride : k * stride + tile] += axis.of(k)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)


@given(st.sampled_from(["hann", "gaussian", "linear"]), st.sampled_from([1, 2, 3, 64, 512, 2048]))
def test_profiles_are_positive_and_symmetric(kind: Blend, tile: int) -> None:
    profile = blend_profile(kind, tile, 0)
    assert profile.shape == (tile,)
    assert profile.min() > 0
    assert profile.max() <= 1
    np.testing.assert_allclose(profile, profile[::-1], rtol=1e-5)
    assert (np.diff(profile[: (tile + 1) // 2]) > 0).all()


@pytest.mark.parametrize("kind", BLENDS)
def test_the_frame_of_the_raster_has_full_weight(kind: Blend) -> None:
    axis = AxisWeights.build(kind, tile=512, overlap=128, count=5)
    assert axis.of(0)[:384].min() == 1
    assert axis.of(4)[128:].min() == 1


@given(tiles_and_overlaps(), counts)
def test_crop_takes_each_pixel_from_one_tile(shape: tuple[int, int], count: int) -> None:
    tile, overlap = shape
    stride = tile - overlap
    axis = AxisWeights.build("crop", tile=tile, overlap=overlap, count=count)
    takers = np.zeros((count - 1) * stride + tile)
    for k in range(count):
        assert set(np.unique(axis.of(k))) <= {0.0, 1.0}
        takers[k * stride : k * stride + tile] += axis.of(k)
    assert (takers == 1).all()


def test_linear_ramps_linearly_across_the_overlap() -> None:
    axis = AxisWeights.build("linear", tile=8, overlap=4, count=2)
    np.testing.assert_allclose(axis.of(0)[4:], [7 / 8, 5 / 8, 3 / 8, 1 / 8], rtol=1e-6)


def test_distant_tiles_share_their_weights() -> None:
    axis = AxisWeights.build("hann", tile=512, overlap=128, count=1000)
    assert axis.table.shape == (3, 512)
    assert [axis.case(k) for k in (0, 1, 500, 998, 999)] == [0, 1, 1, 1, 2]


def test_weights_cannot_be_written() -> None:
    axis = AxisWeights.build("hann", tile=8, overlap=4, count=3)
    with pytest.raises(ValueError, match="read-only"):
        axis.of(1)[0] = 2


def test_an_unknown_blend_is_refused() -> None:
    with pytest.raises(UsageError, match="hann, gaussian, linear, crop"):
        blend_profile("spline", 512, 128)
