"""Chunks finished in worker processes: the same layers and counts as on local threads."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dask.sizeof import sizeof

from geothresh.mosaic import Layers, Sink, mosaic, where_asked
from geothresh.mosaic import cluster as cluster  # tells Dask the sizes
from geothresh.mosaic.blending import Blended, FinishedChunk, Part
from geothresh.mosaic.readers import ArrayReader, NpyReaderSpec
from geothresh.packed import PackedLayer
from geothresh.run.changes import MaskLayers, ThresholdedInput
from geothresh.tiling import TileGrid
from geothresh.windows import PixelWindow
from tests.support.fakes import FakeSource


def blended(height: int, width: int) -> Blended:
    rng = np.random.default_rng(0)
    return Blended(
        window=PixelWindow(row=3, col=5, height=height, width=width),
        confidence=rng.random((height, width), np.float32),
        valid=rng.random((height, width)) > 0.1,
        tiles_refined=4,
        tiles_skipped=1,
    )


def test_layers_come_through_packing_as_they_were() -> None:
    chunk = blended(40, 70)
    layers = Layers(
        values=(
            (chunk.confidence * 254).astype(np.uint8)[:, ::-1],
            chunk.valid.view(np.uint8),
            np.full((40, 70), 255, np.uint8),
        ),
        counts={"valid": 7, "changed": 0},
    )
    finished = FinishedChunk.of(chunk, layers, pack=True)
    assert (finished.window, finished.tiles_refined, finished.tiles_skipped) == (chunk.window, 4, 1)
    assert finished.layers().values is layers.values
    assert [layer.is_flat for layer in finished.packed] == [False, False, True]
    sent = pickle.loads(pickle.dumps(finished.for_travel()))  # noqa: S301 - as Dask sends it
    assert sent.values == ()
    assert sent.packed == finished.packed
    again = sent.layers()
    assert again.counts == layers.counts
    for before, after in zip(layers.values, again.values, strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_is_not_asked_for_is_not_packed() -> None:
    layers = Layers(values=(np.zeros((4, 7), np.uint8),), counts={})
    assert FinishedChunk.of(blended(4, 7), layers, pack=False).packed == ()


@pytest.mark.parametrize("values", [(0,), (255,), (7, 7), (7, 8), (0, 1), (1,) * 9 + (0,)])
def test_the_smallest_layers_are_packed(values: tuple[int, ...]) -> None:
    layer = np.array([values], np.uint8)
    np.testing.assert_array_equal(PackedLayer.of(layer).unpack(), layer)


def test_masks_without_gaps_are_packed_as_bits() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (41, 67), np.uint8)
    gaps = mask.copy()
    gaps[0, 0] = 255
    packed = [PackedLayer.of(layer) for layer in (mask, gaps)]
    assert [layer.item_bits for layer in packed] == [1, 8]
    for layer, values in zip(packed, (mask, gaps), strict=True):
        np.testing.assert_array_equal(layer.unpack(), values)
        assert layer.unpack().dtype == np.uint8


def test_dask_knows_how_large_results_are() -> None:
    """It plans moving them by that, and looks into no dataclass by itself."""
    chunk = blended(40, 70)
    assert sizeof(chunk) == 40 * 70 * 5
    layers = Layers(values=(chunk.valid.view(np.uint8),), counts={})
    finished = FinishedChunk.of(chunk, layers, pack=True).for_travel()
    assert sizeof(finished) == len(finished.packed[0].data)
    part = Part(
        window=chunk.window, total=np.zeros((40, 70), np.int32), owned=None, valid=None
    )  # fmt: skip
    assert sizeof(part) == 40 * 70 * 4


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_counts_are_those_of_the_valid_pixels(missing: float) -> None:
    rng = np.random.default_rng(5)
    before, refined = rng.random((2, 30, 40), np.float32)
    valid = rng.random((30, 40)) >= missing
    confidence = np.where(valid, refined, np.float32(0))
    finish = MaskLayers(threshold=0.4, keep=0.2, confidence=None)
    whole = PixelWindow(row=0, col=0, height=30, width=40)
    made = finish(ArrayReader(before), whole, confidence, valid)
    first, last = before >= 0.4, (refined >= 0.4) | ((before >= 0.4) & (refined >= 0.2))
    assert made.counts == {
        "valid": valid.sum(),
        "foreground_before": (first & valid).sum(),
        "foreground_after": (last & valid).sum(),
        "changed": ((first != last) & valid).sum(),
    }
    np.testing.assert_array_equal(made.values[0], np.where(valid, last, 255))


def test_workers_finish_chunks_as_threads_do(tmp_path: Path) -> None:
    confidence = np.random.default_rng(2).random((150, 170), dtype=np.float32)
    confidence[40:90, 30:120] = np.nan
    reader = ArrayReader(confidence)
    path = tmp_path / "confidence.npy"
    np.save(path, confidence)
    finish = MaskLayers(threshold=0.4, confidence=True, changes=True)
    made: dict[int, list[tuple[PixelWindow, Layers, Sequence[PackedLayer]]]] = {0: [], 2: []}
    for workers, chunks in made.items():
        mosaic(
            reader if workers else ThresholdedInput(reader, 0.4),
            FakeSource(kind="uneven"),
            Sink(
                lambda *chunk, chunks=chunks: chunks.append(chunk),
                chunk_height=96,
                chunk_width=64,
                finish=finish,
            ),
            grid=TileGrid(size=reader.size, tile=64, overlap=32, patch=16),
            where=where_asked(workers),
            reader_spec=NpyReaderSpec(path=str(path)) if workers else None,
        )
    assert [window for window, _, _ in made[0]] == [window for window, _, _ in made[2]]
    changed = 0
    for (_, local, packed), (_, remote, sent) in zip(made[0], made[2], strict=True):
        assert packed == sent
        assert dict(local.counts) == dict(remote.counts)
        changed += local.counts["changed"]
        for one, other in zip(local.values, remote.values, strict=True):
            np.testing.assert_array_equal(one, other)
    assert changed
