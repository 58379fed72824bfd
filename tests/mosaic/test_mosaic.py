"""The laws of the engine, on fakes: nothing lost, nothing doubled, nothing moved, no seam."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geothresh.errors import InputError, ModelError, UsageError
from geothresh.mosaic import (
    ArrayReader,
    MosaicStats,
    RasterReader,
    Sink,
    Threads,
    Workers,
    mosaic,
    mosaic_array,
)
from geothresh.mosaic.blending import BLENDS, blend_profile
from geothresh.mosaic.readers import read_mirrored
from geothresh.mosaic.threads import CHUNKS_PREFETCHED
from geothresh.options import Blend
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array, Float64Array
from geothresh.windows import PixelWindow, RasterSize
from tests.support.fakes import (
    FailingRefiner,
    FakeSource,
    FrameRefiner,
    IdentityRefiner,
    NanRefiner,
    UnevenRefiner,
)
from tests.support.mosaics import run_mosaic, run_options, sides, tile_options
from tests.support.rasters import coordinate_array

blends = st.sampled_from(BLENDS)


@st.composite
def holed_arrays(draw: st.DrawFn) -> Float32Array:
    """Confidences with rectangles of NaN, down to 1 x 1 and up to all NaN."""
    height, width = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    confidence = rng.random((height, width), dtype=np.float32)
    for _ in range(draw(st.integers(0, 3))):
        row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        confidence[row : row + draw(sides), col : col + draw(sides)] = np.nan
    return confidence


def naive_mosaic(
    confidence: Float32Array, refiner: IdentityRefiner, *, tile: int, overlap: int, blend: Blend
) -> Float64Array:
    """The whole raster at once, in float64: pad, refine tile by tile, add up, divide."""
    height, width = confidence.shape
    stride = tile - overlap
    rows = 1 if height <= tile else -(-(height - tile) // stride) + 1
    cols = 1 if width <= tile else -(-(width - tile) // stride) + 1
    full = ((rows - 1) * stride + tile, (cols - 1) * stride + tile)
    padded = np.pad(
        np.nan_to_num(confidence, nan=0.0),
        ((0, full[0] - height), (0, full[1] - width)),
        mode="symmetric",
    )
    total, weights = np.zeros(full), np.zeros(full)
    for row in range(rows):
        for col in range(cols):
            place = np.s_[row * stride : row * stride + tile, col * stride : col * stride + tile]
            factors = []
            for index, count in ((row, rows), (col, cols)):
                profile = blend_profile(blend, tile, overlap)
                if blend == "crop" and index == 0:
                    profile[: overlap // 2] = 1
                if blend == "crop" and index == count - 1:
                    profile[overlap // 2 :] = 1
                factors.append(profile)
            weight = np.outer(*factors)
            total[place] += weight * refiner.refine(padded[place][np.newaxis])[0]
            weights[place] += weight
    result = (total / weights)[:height, :width]
    result[np.isnan(confidence)] = np.nan
    return result


@given(holed_arrays(), tile_options(), blends, run_options())
def test_identity_gives_the_input_back(
    confidence: Float32Array, tiles: dict[str, int], blend: Blend, options: dict[str, Any]
) -> None:
    result = mosaic_array(confidence, IdentityRefiner(), blend=blend, **tiles, **options)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, confidence, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(confidence))


@given(holed_arrays(), tile_options(), blends, run_options())
def test_the_result_is_the_naive_twins(
    confidence: Float32Array, tiles: dict[str, int], blend: Blend, options: dict[str, Any]
) -> None:
    result = mosaic_array(confidence, UnevenRefiner(), blend=blend, **tiles, **options)
    expected = naive_mosaic(confidence, UnevenRefiner(), blend=blend, **tiles)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


@given(holed_arrays(), tile_options(), blends, run_options(), run_options())
def test_batch_chunks_and_threads_do_not_matter_to_the_last_bit(
    confidence: Float32Array,
    tiles: dict[str, int],
    blend: Blend,
    some: dict[str, Any],
    other: dict[str, Any],
) -> None:
    first = mosaic_array(confidence, UnevenRefiner(), blend=blend, **tiles, **some)
    second = mosaic_array(confidence, UnevenRefiner(), blend=blend, **tiles, **other)
    assert first.tobytes() == second.tobytes()


class ViewsRefiner(UnevenRefiner):
    """One that does not write to its tiles, so that they may overlap in memory."""

    takes_views = True

    def refine(self, tiles: Float32Array) -> Float32Array:
        if len(tiles) > 1 and np.shares_memory(tiles[0], tiles[1]):
            assert not tiles.flags.writeable
        return super().refine(tiles)


@given(holed_arrays(), tile_options(), run_options())
def test_tiles_as_views_and_as_copies_give_the_same_to_the_last_bit(
    confidence: Float32Array, tiles: dict[str, int], options: dict[str, Any]
) -> None:
    copied = mosaic_array(confidence, UnevenRefiner(), **tiles, **options)
    viewed = mosaic_array(confidence, ViewsRefiner(), **tiles, **options)
    assert copied.tobytes() == viewed.tobytes()


@given(sides, sides, tile_options(), blends, run_options())
def test_the_coordinate_raster_comes_back_unmoved(
    height: int, width: int, tiles: dict[str, int], blend: Blend, options: dict[str, Any]
) -> None:
    confidence = coordinate_array(height, width)
    result = mosaic_array(confidence, IdentityRefiner(), blend=blend, **tiles, **options)
    place = np.rint(result.astype(float) * confidence.size).astype(int)
    np.testing.assert_array_equal(place, np.arange(confidence.size).reshape(height, width))


@given(holed_arrays(), tile_options(), blends)
def test_holes_count_as_zero_whatever_lies_under_them(
    confidence: Float32Array, tiles: dict[str, int], blend: Blend
) -> None:
    results = []
    for fill in (np.nan, np.inf, -np.inf):
        filled = np.where(np.isnan(confidence), np.float32(fill), confidence)
        results.append(mosaic_array(filled, UnevenRefiner(), blend=blend, **tiles))
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    zeroed = mosaic_array(np.nan_to_num(confidence), UnevenRefiner(), blend=blend, **tiles)
    known = np.isfinite(confidence)
    np.testing.assert_array_equal(results[0][known], zeroed[known])


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("overlap", [0, 16, 32, 48])
def test_moving_the_tile_origin_by_a_stride_changes_nothing_inside(
    blend: Blend, overlap: int
) -> None:
    tile, stride = 64, 64 - overlap
    confidence = np.random.default_rng(1).random((330, 310), dtype=np.float32)
    whole = mosaic_array(confidence, UnevenRefiner(), tile=tile, overlap=overlap, blend=blend)
    moved = mosaic_array(
        confidence[stride:, stride:], UnevenRefiner(), tile=tile, overlap=overlap, blend=blend
    )
    inside = np.s_[tile : 330 - stride, tile : 310 - stride]
    np.testing.assert_array_equal(whole[stride:, stride:][inside], moved[inside])


@pytest.mark.parametrize("blend", BLENDS)
def test_frames_of_inner_tiles_weigh_next_to_nothing_and_never_all(blend: Blend) -> None:
    confidence = np.zeros((64 + 32 * 4, 64 + 32 * 4), np.float32)
    result = mosaic_array(confidence, FrameRefiner(), tile=64, overlap=32, blend=blend)
    # The raster's own frame has nobody else to ask; inside, a tile's frame is outvoted.
    inner = result[1:-1, 1:-1]
    assert result[0].min() == result[-1].min() == result[:, 0].min() == result[:, -1].min() == 1
    assert inner.max() < 0.1


@given(sides, sides, tile_options(), run_options())
def test_each_tile_is_refined_once_in_batches_no_larger_than_asked(
    height: int, width: int, tiles: dict[str, int], options: dict[str, Any]
) -> None:
    refiner = IdentityRefiner()
    grid = TileGrid(size=RasterSize(height=height, width=width), patch=16, **tiles)
    stats = run_mosaic(
        ArrayReader(coordinate_array(height + 1, width)[1:]),  # no two pixels are equal
        refiner,
        lambda window, confidence, valid: None,
        grid,
        **options,
    )
    assert refiner.tiles == grid.n_tiles
    assert max(refiner.batches) <= options["batch_size"]
    assert stats == MosaicStats(tiles=grid.n_tiles, tiles_refined=grid.n_tiles, tiles_skipped=0)


def test_equal_flat_tiles_share_one_pass() -> None:
    confidence = np.zeros((160, 160), np.float32)
    confidence[64:96, 64:96] = coordinate_array(32, 32)
    confidence[128:] = 1
    refiner = UnevenRefiner()
    result = mosaic_array(confidence, refiner, tile=32, overlap=0, batch_size=4)
    assert refiner.tiles == 3
    expected = naive_mosaic(confidence, UnevenRefiner(), tile=32, overlap=0, blend="hann")
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


@given(holed_arrays(), tile_options(), run_options())
def test_tiles_without_a_valid_pixel_are_skipped_and_counted(
    confidence: Float32Array, tiles: dict[str, int], options: dict[str, Any]
) -> None:
    refiner = IdentityRefiner()
    grid = TileGrid(size=ArrayReader(confidence).size, patch=16, **tiles)
    stats = run_mosaic(
        ArrayReader(confidence), refiner, lambda window, values, valid: None, grid, **options
    )
    live = sum(bool(np.isfinite(confidence[tile.slices()]).any()) for tile in grid.tiles())
    assert refiner.tiles == stats.tiles_refined == live
    assert stats.tiles_skipped == stats.tiles - live


@given(sides, sides, run_options())
def test_the_sink_gets_disjoint_chunks_in_raster_order(
    height: int, width: int, options: dict[str, Any]
) -> None:
    confidence = coordinate_array(height, width)
    confidence[height // 2, width // 3 :] = np.nan
    seen = np.zeros((height, width), int)
    corners: list[tuple[int, int]] = []
    busy = threading.Lock()

    def store(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        assert busy.acquire(blocking=False), "two calls of the sink at once"
        assert refined.dtype == np.float32
        assert refined.shape == valid.shape == (window.height, window.width)
        assert (refined[~valid] == 0).all()
        np.testing.assert_array_equal(valid, np.isfinite(confidence[window.slices()]))
        seen[window.slices()] += 1
        corners.append((window.row, window.col))
        busy.release()

    reader = ArrayReader(confidence)
    grid = TileGrid(size=reader.size, tile=32, overlap=16, patch=16)
    run_mosaic(reader, IdentityRefiner(), store, grid, **options)
    assert (seen == 1).all()
    assert corners == sorted(corners)


class BandReader:
    """Values (..., rows, columns) and their validity, as they are."""

    def __init__(self, values: Float32Array, valid: BoolArray) -> None:
        self._values, self._valid = values, valid
        self.size = RasterSize(height=valid.shape[0], width=valid.shape[1])

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        assert 0 <= window.row < window.row_stop <= self.size.height
        assert 0 <= window.col < window.col_stop <= self.size.width
        rows, cols = window.slices()
        return self._values[..., rows, cols], self._valid[rows, cols]


class WatchedReader:
    """Asserts that it is never asked outside the raster; keeps count of what it was asked."""

    def __init__(self, confidence: Float32Array) -> None:
        self._reader = ArrayReader(confidence)
        self.size = self._reader.size
        self.rows_read = 0

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        assert window.row >= 0 and window.col >= 0 and window.pixels > 0
        assert window.row_stop <= self.size.height and window.col_stop <= self.size.width
        self.rows_read = max(self.rows_read, window.row_stop)
        return self._reader.read(window)


@given(sides, sides, tile_options(), run_options())
def test_the_reader_is_asked_for_pixels_of_the_raster_only(
    height: int, width: int, tiles: dict[str, int], options: dict[str, Any]
) -> None:
    reader: RasterReader = WatchedReader(coordinate_array(height, width))
    grid = TileGrid(size=reader.size, patch=16, **tiles)
    run_mosaic(reader, IdentityRefiner(), lambda *chunk: None, grid, **options)


def test_chunks_are_whole_blocks_of_the_output() -> None:
    size = RasterSize(height=200, width=300)
    windows: list[PixelWindow] = []
    mosaic(
        ArrayReader(np.zeros((size.height, size.width), np.float32)),
        IdentityRefiner(),
        Sink(
            lambda window, refined, valid: windows.append(window),
            chunk_height=50,
            chunk_width=100,
            block=(32, 48),
        ),
        grid=TileGrid(size=size, tile=32, overlap=16, patch=16),
    )
    assert sorted({window.row for window in windows}) == [0, 64, 128, 192]
    assert sorted({window.col for window in windows}) == [0, 144, 288]


def test_reading_waits_for_a_slow_writer() -> None:
    reader = WatchedReader(np.zeros((4096, 64), np.float32))
    ahead: list[int] = []

    def store_slowly(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        time.sleep(0.01)
        ahead.append(reader.rows_read - window.row_stop)

    grid = TileGrid(size=reader.size, tile=64, overlap=16, patch=16)
    sink = Sink(store_slowly, chunk_height=64)
    mosaic(reader, IdentityRefiner(), sink, grid=grid, where=Threads(4))
    assert max(ahead) <= (CHUNKS_PREFETCHED + 1) * 64


@given(
    st.integers(-50, 50), st.integers(1, 80), st.integers(1, 30),
    st.integers(-50, 50), st.integers(1, 80), st.integers(1, 30), st.sampled_from([(), (3,)]),
)  # fmt: skip
def test_beyond_the_raster_it_is_mirrored_as_often_as_it_takes(
    row: int, height: int, rows: int, col: int, width: int, cols: int, bands: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).random((*bands, rows, cols), dtype=np.float32)
    valid = values.reshape(-1, rows, cols)[0] < 0.8
    reader = BandReader(values, valid)
    found = read_mirrored(reader, PixelWindow(row=row, col=col, height=height, width=width))
    for array, mirrored in zip((values, valid), found, strict=True):
        around = ((0, 0),) * (array.ndim - 2) + ((150, 150), (150, 150))
        whole = np.pad(array, around, mode="symmetric")
        expected = whole[..., 150 + row : 150 + row + height, 150 + col : 150 + col + width]
        np.testing.assert_array_equal(mirrored, expected)


def test_a_window_beyond_the_raster_is_mirrored_with_its_validity() -> None:
    confidence = coordinate_array(5, 7)
    confidence[4, 6] = np.nan
    window = PixelWindow(row=3, col=4, height=4, width=6)
    values, valid = read_mirrored(ArrayReader(confidence), window)
    padded = np.pad(confidence, 10, mode="symmetric")[13:17, 14:20]
    np.testing.assert_array_equal(valid, np.isfinite(padded))
    np.testing.assert_array_equal(values, np.nan_to_num(padded))


def test_progress_counts_up_to_all_tiles() -> None:
    told: list[tuple[int, int]] = []
    confidence = np.full((100, 200), np.nan, np.float32)
    confidence[:10, :10] = 0.5
    mosaic_array(
        confidence,
        IdentityRefiner(),
        tile=32,
        overlap=0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert all(total == 28 for _, total in told)
    assert all(before < after for (before, _), (after, _) in pairwise(told))
    assert told[-1] == (28, 28)


def test_an_error_of_the_refiner_comes_out_as_it_is() -> None:
    with pytest.raises(ModelError, match="^failing: 3 calls; use another model$"):
        mosaic_array(coordinate_array(200, 200), FailingRefiner(), tile=32, overlap=16)


def test_an_error_of_the_sink_ends_the_run_and_leaves_no_thread() -> None:
    def full_disk(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        raise OSError(28, "No space left on device")

    reader = ArrayReader(coordinate_array(400, 400))
    refiner = IdentityRefiner()
    grid = TileGrid(size=reader.size, tile=32, overlap=16, patch=16)
    with pytest.raises(OSError, match="No space left"):
        mosaic(reader, refiner, Sink(full_disk, chunk_height=32), grid=grid)
    assert refiner.tiles < grid.n_tiles / 2
    assert not [t for t in threading.enumerate() if t.name.startswith("geothresh-mosaic")]


def test_nan_from_a_model_is_an_error() -> None:
    with pytest.raises(
        ModelError, match="model 'nan': gave values from nan to nan instead of 0 to 1"
    ):
        mosaic_array(np.zeros((40, 40), np.float32), NanRefiner(), tile=32, overlap=16)


def test_a_model_with_another_patch_is_refused() -> None:
    reader = ArrayReader(np.zeros((40, 40), np.float32))
    grid = TileGrid(size=reader.size, tile=48, overlap=16, patch=16)
    with pytest.raises(UsageError, match="the model needs multiples of its patch, 32"):
        mosaic(reader, IdentityRefiner(32), Sink(lambda *chunk: None), grid=grid)


@pytest.mark.parametrize("bad", [1.5, -0.2, 1e300])
def test_values_outside_the_range_are_refused(bad: float) -> None:
    confidence = np.zeros((40, 40))
    confidence[30, 2] = bad
    with pytest.raises(InputError, match=r"scale them to \[0, 1\]"):
        mosaic_array(confidence, IdentityRefiner(), tile=32, overlap=16)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4, 5)), np.zeros((0, 4)), np.zeros((3, 4), np.uint8)]
)
def test_what_is_not_a_confidence_array_is_refused(array: NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match="confidence array"):
        mosaic_array(array, IdentityRefiner())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_types_are_taken(dtype: type[np.floating]) -> None:
    confidence = coordinate_array(50, 40).astype(dtype)
    result = mosaic_array(confidence, IdentityRefiner(), tile=32, overlap=16)
    np.testing.assert_allclose(result, confidence, rtol=0, atol=1e-6)


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"chunk_height": 0}])
def test_numbers_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        mosaic_array(np.zeros((9, 9), np.float32), IdentityRefiner(), tile=32, overlap=0, **option)


@pytest.mark.parametrize(("kind", "number"), [(Threads, -1), (Workers, 0), (Workers, -2)])
def test_numbers_of_threads_and_workers_out_of_range_are_refused(
    kind: type[Threads | Workers], number: int
) -> None:
    with pytest.raises(UsageError, match=f"^{number} (threads|workers): give at least"):
        kind(number)


def test_workers_without_specs_are_refused() -> None:
    with pytest.raises(UsageError, match="workers: give a reader_spec"):
        mosaic_array(
            np.zeros((9, 9), np.float32), IdentityRefiner(), tile=32, overlap=0, where=Workers(2)
        )


def test_a_source_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = FakeSource.load

    def counted(source: FakeSource, *, cores: int | None) -> IdentityRefiner:
        loads.append(source.kind)
        return load(source, cores=cores)

    monkeypatch.setattr(FakeSource, "load", counted)
    source = FakeSource(kind="uneven", patch=8)
    for _ in range(2):
        mosaic_array(np.zeros((90, 90), np.float32), source, tile=32, overlap=16)
    assert loads == ["uneven"]
