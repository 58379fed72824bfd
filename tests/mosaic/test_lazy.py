"""The engine on Dask arrays: the pixels of `mosaic`, whatever the chunks, and only when asked."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest
from dask.distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.mosaic import RasterReader, Threads, mosaic_array
from geothresh.mosaic.lazy import mosaic_lazily
from geothresh.options import Blend
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize
from tests.support.fakes import FakeSource, IdentityRefiner, UnevenRefiner
from tests.support.rasters import coordinate_array


class Plain:
    """Refined confidences with NaN where there is no data."""

    dtype = np.dtype(np.float32)
    reads_input = True

    def __call__(
        self, reader: RasterReader, window: PixelWindow, confidence: Float32Array, valid: BoolArray
    ) -> Float32Array:
        np.testing.assert_array_equal(reader.read(window)[1], valid)
        return np.where(valid, confidence, np.float32(np.nan))


def decode(stored: NDArray[Any], window: PixelWindow) -> tuple[Float32Array, BoolArray]:
    """Confidences as they are."""
    assert stored.shape == (window.height, window.width)
    valid = np.isfinite(stored)
    return np.where(valid, stored, np.float32(0)), valid


def lazily(array: da.Array, refiner: Any, **options: Any) -> da.Array:
    """`mosaic_lazily` of confidences."""
    blend: Blend = options.pop("blend", "hann")
    batch_size = options.pop("batch_size", 1)
    grid = TileGrid(
        size=RasterSize(height=array.shape[0], width=array.shape[1]), patch=16, **options
    )
    return mosaic_lazily(
        array, refiner, grid=grid, decode=decode, finish=Plain(), blend=blend,
        batch_size=batch_size,
    )  # fmt: skip


@st.composite
def chunkings(draw: st.DrawFn) -> tuple[Float32Array, tuple[tuple[int, ...], ...]]:
    """Confidences with a hole, and chunks of any sizes, down to one pixel."""
    chunks = [tuple(draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.random((sum(chunks[0]), sum(chunks[1])), dtype=np.float32)
    row, col = draw(st.integers(0, len(values))), draw(st.integers(0, len(values[0])))
    values[row : row + draw(st.integers(0, 60)), col : col + draw(st.integers(0, 60))] = np.nan
    return values, tuple(chunks)


@settings(max_examples=20)
@given(
    chunkings(),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from(("hann", "crop")),
    st.integers(1, 9),
)
def test_any_chunks_give_what_the_whole_array_gives(
    drawn: tuple[Float32Array, tuple[tuple[int, ...], ...]],
    patches: int,
    shared: int,
    blend: Blend,
    batch_size: int,
) -> None:
    values, chunks = drawn
    tiles = {"tile": 16 * patches, "overlap": 16 * min(shared, patches - 1)}
    refined = lazily(
        da.from_array(values, chunks), UnevenRefiner(), blend=blend, batch_size=batch_size, **tiles
    )
    assert refined.chunks == chunks
    expected = mosaic_array(values, UnevenRefiner(), blend=blend, where=Threads(0), **tiles)
    np.testing.assert_array_equal(refined.compute(scheduler="sync"), expected)


def test_a_slice_refines_only_the_groups_that_touch_it_and_each_tile_once() -> None:
    values = coordinate_array(320, 320)
    refiner = IdentityRefiner()
    refined = lazily(da.from_array(values, (64, 64)), refiner, tile=32, overlap=16)
    part = refined[64:128, 64:128].compute(scheduler="sync")
    np.testing.assert_allclose(part, values[64:128, 64:128], atol=1e-6)
    # Rows of tiles from 48 to 112, every 16; of columns those from 0 to 48 are one group.
    assert refiner.tiles == 5 * (4 + 4)
    refiner.batches.clear()
    refined.compute(scheduler="threads", num_workers=3)
    assert refiner.tiles == 19 * 19


def test_graphs_travel_and_sources_load_where_they_arrive() -> None:
    values = coordinate_array(100, 90)
    expected = mosaic_array(values, UnevenRefiner(), tile=32, overlap=16)
    array = da.from_array(values, 40)
    refined = lazily(array, FakeSource(kind="uneven"), tile=32, overlap=16)
    again = lazily(array, FakeSource(kind="uneven"), tile=32, overlap=16)
    assert refined.name == again.name, "the same refinement has the same keys"
    arrived = pickle.loads(pickle.dumps(refined))
    np.testing.assert_array_equal(arrived.compute(scheduler="sync"), expected)
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as client:
        np.testing.assert_array_equal(client.compute(refined).result(), expected)


def test_chunks_without_pixels_and_of_unknown_size() -> None:
    array = da.from_array(coordinate_array(40, 40), 20)
    empty = da.concatenate([array, array[:0]], axis=0)
    assert lazily(empty, IdentityRefiner(), tile=32, overlap=0).compute().shape == (40, 40)
    unknown = array[array[:, 0] > 0.5]
    grid = TileGrid(size=RasterSize(height=20, width=40), tile=32, overlap=0, patch=16)
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        mosaic_lazily(unknown, IdentityRefiner(), grid=grid, decode=decode, finish=Plain())
