"""Refine a raster tile by tile and blend the tiles, on local threads or worker processes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.mosaic.blending import StripCounter, Weights
from geothresh.mosaic.protocols import (
    MosaicStats,
    RasterReader,
    ReaderSpec,
    Refiner,
    RefinerSource,
    Sink,
    Threads,
    Where,
    Workers,
)
from geothresh.mosaic.readers import ArrayReader, NpyReaderSpec
from geothresh.mosaic.refining import load_refiner
from geothresh.options import Blend, Progress
from geothresh.tiling import ChunkPlan, TileGrid
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow

_LOCAL = Threads()
# Pixels of a group: eight tiles of the usual size, or fewer larger ones.
_GROUP_PIXELS = 8 * 512 * 512
# Limits of a chunk, so that memory does not grow with the raster's width. Narrow chunks keep the
# writing thread supplied, but each needs a few tasks, which take Dask far longer with worker
# processes.
_CHUNK_HEIGHT, _CHUNK_WIDTH, _CHUNK_WIDTH_OF_WORKERS = 512, 2048, 4096


def mosaic(
    reader: RasterReader,
    refiner: Refiner | RefinerSource,
    sink: Sink,
    *,
    grid: TileGrid,
    area: PixelWindow | None = None,
    blend: Blend = "hann",
    batch_size: int = 1,
    where: Where = _LOCAL,
    reader_spec: ReaderSpec | None = None,
    progress: Progress | None = None,
) -> MosaicStats:
    """Refine a raster and pass the result to a sink, chunk by chunk, in raster order.

    The result is the same to the last bit for all batch sizes, chunks, threads and workers, if the
    refiner gives the same for a tile alone and in a batch.

    Args:
        reader: The confidence raster.
        refiner: The model, or a source that loads it; worker processes need a source.
        sink: Where finished chunks go.
        grid: The tiles; their raster size is the reader's.
        area: The part of the raster that is refined and passed to the sink; None = all of it.
        blend: How overlapping tiles are weighted.
        batch_size: Most tiles in one call of the model, at least 1.
        where: On local threads, on worker processes, or on a running cluster.
        reader_spec: With this, worker processes open the raster; required with workers.
        progress: Called with (tiles done, tiles in total); tiles of earlier strips count as done.

    Returns:
        The statistics of this run, without those of an earlier run that it resumes.

    Raises:
        UsageError: The grid does not fit the model's patch, a number is out of range, or
            `reader_spec` or a source is missing for workers.
    """
    _require_fit(reader, refiner, grid, batch_size)
    plan = _plan(grid, area, sink, batch_size, in_processes=not isinstance(where, Threads))
    if sink.start_strip >= plan.n_strips:
        return MosaicStats(tiles=plan.n_tiles, tiles_refined=0, tiles_skipped=0)
    strips = StripCounter(plan, sink.on_strip, start=sink.start_strip)
    # Importing Dask takes a third of a second, and distributed half a second more. Each is imported
    # where it is needed, so that modules that only use the protocols do not wait for them.
    if isinstance(where, Threads):
        from geothresh.mosaic.threads import ThreadRun, default_threads

        guarded = load_refiner(refiner)
        run = ThreadRun(
            plan=plan,
            reader=reader,
            refiner=guarded,
            weights=Weights.build(blend, grid),
            batch_size=batch_size,
            sink=sink,
            strips=strips,
            progress=progress,
        )
        threads = default_threads(guarded.parallel_calls) if where.number is None else where.number
        return run.run(threads)
    from geothresh.mosaic.clients import cores_of_worker
    from geothresh.mosaic.cluster import WorkerJob, run_on_workers

    if reader_spec is None or callable(refiner):
        raise UsageError(
            "workers: give a reader_spec and a refiner source, from which each worker opens its own"
        )
    if isinstance(where, Workers):
        # More workers than chunks would have nothing to do, and each takes a second to start.
        where = Workers(min(where.number, plan.n_chunks - strips.first_chunk))
    job = WorkerJob(
        plan=plan,
        reader=reader_spec,
        refiner=refiner,
        blend=blend,
        batch_size=batch_size,
        finish=sink.finish,
        cores=cores_of_worker(where.number) if isinstance(where, Workers) else None,
    )
    return run_on_workers(job, sink.store, where=where, strips=strips, progress=progress)


def _require_fit(
    reader: RasterReader, refiner: Refiner | RefinerSource, grid: TileGrid, batch_size: int
) -> None:
    """Check that raster, model, tiles and batch size fit together."""
    if batch_size < 1:
        raise UsageError(f"`batch_size` {batch_size}: give at least 1")
    if grid.size != reader.size:
        raise UsageError(f"grid over {grid.size} for a raster of {reader.size}: make them equal")
    if grid.tile % refiner.patch or grid.stride % refiner.patch:
        raise UsageError(
            f"tile size {grid.tile} and overlap {grid.overlap}: the model needs multiples of its "
            f"patch, {refiner.patch}"
        )


def _plan(
    grid: TileGrid, area: PixelWindow | None, sink: Sink, batch_size: int, *, in_processes: bool
) -> ChunkPlan:
    """Plan the chunks, and the groups of tiles that are read in one go."""
    height, width = sink.chunk_height, sink.chunk_width
    if height is None:
        height = _CHUNK_HEIGHT
    if width is None:
        width = _CHUNK_WIDTH_OF_WORKERS if in_processes else _CHUNK_WIDTH
    return ChunkPlan(
        grid=grid,
        area=area,
        chunk_height=_whole_blocks(height, sink.block[0]),
        chunk_width=_whole_blocks(width, sink.block[1]),
        group_tiles=group_tiles(grid.tile, batch_size),
    )


def group_tiles(tile: int, batch_size: int) -> int:
    """Most tiles in one group: a multiple of the batch size."""
    return -(-min(8, max(1, _GROUP_PIXELS // tile**2)) // batch_size) * batch_size


def _whole_blocks(pixels: int, block: int) -> int:
    """The multiple of `block` that is at least `pixels`."""
    return -(-pixels // block) * block


def mosaic_array(
    confidence: NDArray[np.floating],
    refiner: Refiner | RefinerSource,
    *,
    tile: int = 512,
    overlap: int = 128,
    blend: Blend = "hann",
    batch_size: int = 1,
    chunk_height: int | None = None,
    chunk_width: int | None = None,
    where: Where = _LOCAL,
    progress: Progress | None = None,
) -> Float32Array:
    """Refine a confidence array with the engine that refines rasters.

    Args:
        confidence: Floating-point (rows, columns) in [0, 1]; values that are not finite are nodata.
        refiner: The model, or a source that loads it; worker processes need a source.
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share.
        blend: How overlapping tiles are weighted.
        batch_size: Most tiles in one call of the model.
        chunk_height: Rows of a chunk.
        chunk_width: Most columns of a chunk.
        where: Where tiles are refined; worker processes of this machine read the array from a
            temporary file.
        progress: Called with (tiles done, tiles in total).

    Returns:
        float32 of the same shape, in [0, 1], NaN where ``confidence`` is not finite.

    Raises:
        InputError: The array is not a confidence array.
        UsageError: See `mosaic`.
    """
    reader = ArrayReader(confidence)
    result = np.empty(confidence.shape, np.float32)

    def store(window: PixelWindow, refined: Float32Array, valid: BoolArray) -> None:
        target = result[window.slices()]
        target[...] = refined
        if not valid.all():
            target[~valid] = np.nan

    grid = TileGrid(size=reader.size, tile=tile, overlap=overlap, patch=refiner.patch)
    with tempfile.TemporaryDirectory(prefix="geothresh-") as scratch:
        spec = None
        if not isinstance(where, Threads):
            path = Path(scratch) / "confidence.npy"
            np.save(path, confidence, allow_pickle=False)
            spec = NpyReaderSpec(path=str(path))
        mosaic(
            reader,
            refiner,
            Sink(store, chunk_height=chunk_height, chunk_width=chunk_width),
            grid=grid,
            blend=blend,
            batch_size=batch_size,
            where=where,
            reader_spec=spec,
            progress=progress,
        )
    return result
