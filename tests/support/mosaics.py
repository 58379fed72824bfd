"""Runs of the engine as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from geothresh.mosaic import (
    ChunkSink,
    MosaicStats,
    RasterReader,
    Sink,
    Threads,
    mosaic,
)
from geothresh.tiling import TileGrid
from tests.support.fakes import (
    IdentityRefiner,
)

sides = st.integers(1, 200)


@st.composite
def tile_options(draw: st.DrawFn) -> dict[str, int]:
    """Tile and overlap in multiples of 16, the overlap up to all but one patch."""
    patches = draw(st.integers(1, 4))
    return {"tile": patches * 16, "overlap": draw(st.integers(0, patches - 1)) * 16}


@st.composite
def run_options(draw: st.DrawFn) -> dict[str, Any]:
    """What must not matter: batch, chunks and threads."""
    return {
        "batch_size": draw(st.integers(1, 12)),
        "chunk_height": draw(st.integers(30, 200)),
        "chunk_width": draw(st.integers(30, 200)),
        "where": Threads(draw(st.integers(0, 4))),
    }


def run_mosaic(
    reader: RasterReader,
    refiner: IdentityRefiner,
    store: ChunkSink,
    grid: TileGrid,
    *,
    batch_size: int,
    where: Threads,
    **sink: Any,
) -> MosaicStats:
    """`mosaic` with `run_options`, of which the chunks are the sink's."""
    return mosaic(
        reader, refiner, Sink(store, **sink), grid=grid, batch_size=batch_size, where=where
    )
