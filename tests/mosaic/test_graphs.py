"""The Dask graphs of a run on threads: some thousand tasks each, whatever the raster's size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geothresh.mosaic import ArrayReader, GuardedRefiner, Sink
from geothresh.mosaic.blending import StripCounter, Weights
from geothresh.mosaic.threads import ThreadRun
from geothresh.tiling import ChunkPlan, TileGrid
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize
from tests.support.fakes import IdentityRefiner
from tests.support.mosaics import run_mosaic, run_options, sides, tile_options
from tests.support.rasters import coordinate_array


@given(sides, sides, tile_options(), run_options(), st.integers(1, 5), st.integers(0, 3))
def test_graphs_of_a_few_chunks_hand_on_what_later_ones_need(
    height: int, width: int, tiles: dict[str, int], options: dict[str, Any], few: int, start: int
) -> None:
    values = coordinate_array(height, width)
    grid = TileGrid(size=RasterSize(height=height, width=width), patch=16, **tiles)
    results = []
    for chunks_a_graph in (few, 10_000):
        result = np.zeros((height, width), np.float32)
        told: list[tuple[int, int]] = []

        def store(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
            result[window.slices()] = refined  # noqa: B023

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geothresh.mosaic.threads.CHUNKS_A_GRAPH", chunks_a_graph)
            stats = run_mosaic(
                ArrayReader(values), IdentityRefiner(), store, grid, start_strip=start,
                on_strip=lambda *counts: told.append(counts), **options,  # noqa: B023
            )  # fmt: skip
        results.append((result, stats, told))
    (few_result, *few_counts), (one_result, *one_counts) = results
    np.testing.assert_array_equal(few_result, one_result)
    assert few_counts == one_counts


def test_a_graph_does_not_grow_with_the_raster() -> None:
    counts = []
    for side in (100_000, 300_000):
        size = RasterSize(height=side, width=side)
        plan = ChunkPlan(grid=TileGrid(size=size))
        run = ThreadRun(
            plan=plan,
            reader=SimpleNamespace(size=size),
            refiner=GuardedRefiner(IdentityRefiner()),
            weights=Weights.build("hann", plan.grid),
            batch_size=8,
            sink=Sink(lambda *chunk: None),
            strips=StripCounter(plan, None, start=0),
            progress=None,
        )
        assert plan.n_chunks > 2000
        counts.append(len(run.graph(range(1000), {})))
    assert max(counts) < 5000
