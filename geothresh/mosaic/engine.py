"""Refine a raster tile by tile and blend the tiles, on local threads or worker processes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.mosaic.protocols import (
    ChunkSink,
    Finish,
    LayerSink,
    MosaicStats,
    Progress,
    RasterReader,
    ReaderSpec,
    Refiner,
    RefinerSource,
    Scheduler,
    StripDone,
)
from geothresh.mosaic.reading import ArrayReader, NpyReaderSpec
from geothresh.mosaic.refiners import load_refiner
from geothresh.mosaic.strips import StripCounter
from geothresh.mosaic.tasks import Weights
from geothresh.options import Blend
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import ChunkPlan, PixelWindow, TileGrid

# Eight tiles of the usual size are read in one go; of larger tiles fewer.
_GROUP_PIXELS = 8 * 512 * 512
# Memory does not grow with the raster's width. Narrow chunks keep the thread that writes supplied;
# each costs a few tasks, which take Dask far longer where there are worker processes.
_CHUNK_HEIGHT, _CHUNK_WIDTH, _CHUNK_WIDTH_OF_WORKERS = 512, 2048, 4096


def mosaic(
    reader: RasterReader,
    refiner: Refiner | RefinerSource,
    sink: ChunkSink | LayerSink,
    *,
    grid: TileGrid,
    blend: Blend = "hann",
    batch_size: int = 1,
    chunk_height: int | None = None,
    chunk_width: int | None = None,
    block: tuple[int, int] = (1, 1),
    threads: int | None = None,
    workers: int = 0,
    scheduler: Scheduler | None = None,
    reader_spec: ReaderSpec | None = None,
    finish: Finish | None = None,
    pack: bool = True,
    start_strip: int = 0,
    on_strip: StripDone | None = None,
    progress: Progress | None = None,
) -> MosaicStats:
    """Refine a raster and hand the result to a sink, chunk by chunk, in raster order.

    The result is the same to the last bit whatever the batch, chunks, threads and workers are, as
    long as the refiner gives the same for a tile alone and in a batch.

    Args:
        reader: The confidence raster.
        refiner: The model, or where to load it from; workers need the latter.
        sink: Takes the finished chunks, or with `finish` their layers; called by one thread at a
            time.
        grid: The tiles; their raster size is the reader's.
        blend: How overlapping tiles are weighted.
        batch_size: Most tiles in one call of the model, at least 1.
        chunk_height: Rows of a chunk; by default 512.
        chunk_width: Most columns of a chunk; by default 2048, for worker processes 4096.
        block: Rows and columns of a block of the output; chunks are whole blocks, and so larger
            than asked for if need be.
        threads: Local threads; by default 3 or 4, more for a GPU, of which ``parallel_calls`` of
            the model call it at once. 0 does everything in the calling thread.
        workers: 0 for local threads, else the most worker processes.
        scheduler: A running Dask cluster, whose workers are taken in place of own ones.
        reader_spec: From which workers open the raster; needed where there are workers.
        finish: Makes layers of each chunk, in the worker process where there is one.
        pack: Whether the sink wants the layers packed as well, of local threads too.
        start_strip: First strip to be made, from 0; those above it were made by an earlier run.
        on_strip: Told when the sink has all chunks of a strip.
        progress: Told (tiles done, tiles in total); tiles of earlier strips count as done.

    Returns:
        What was done, without what an earlier run did.

    Raises:
        UsageError: The grid does not keep to the model's patch, a number is out of range, or
            workers are asked for without specs.
    """
    if batch_size < 1 or workers < 0 or (threads is not None and threads < 0):
        raise UsageError(
            f"batch size {batch_size}, workers {workers}, threads {threads}: "
            "give a batch size of at least 1, and workers and threads of at least 0"
        )
    if grid.size != reader.size:
        raise UsageError(f"grid over {grid.size} for a raster of {reader.size}: make them equal")
    if grid.tile % refiner.patch or grid.stride % refiner.patch:
        raise UsageError(
            f"tile size {grid.tile} and overlap {grid.overlap}: the model needs multiples of its "
            f"patch, {refiner.patch}"
        )
    in_processes = workers > 0 or scheduler is not None
    if chunk_height is None:
        chunk_height = _CHUNK_HEIGHT
    if chunk_width is None:
        chunk_width = _CHUNK_WIDTH_OF_WORKERS if in_processes else _CHUNK_WIDTH
    plan = ChunkPlan(
        grid=grid,
        chunk_height=_whole_blocks(chunk_height, block[0]),
        chunk_width=_whole_blocks(chunk_width, block[1]),
        # Whole batches per group, as far as the raster has so many columns.
        group_tiles=-(-min(8, max(1, _GROUP_PIXELS // grid.tile**2)) // batch_size) * batch_size,
    )
    if start_strip >= plan.n_strips:
        return MosaicStats(tiles=grid.n_tiles, tiles_refined=0, tiles_skipped=0)
    if in_processes:
        if reader_spec is None or callable(refiner):
            raise UsageError(
                "workers: give a reader_spec and a refiner source, "
                "from which each worker opens its own"
            )
        # dask.distributed takes half a second to import, which local threads do not need.
        from geothresh.mosaic.clients import cores_of_worker
        from geothresh.mosaic.cluster import WorkerJob, run_on_workers

        strips = StripCounter(plan, on_strip, start=start_strip)
        # More workers than chunks would have nothing to do, and each takes a second to start.
        workers = min(workers, plan.n_chunks - strips.first_chunk)
        where = workers if scheduler is None else scheduler
        job = WorkerJob(
            plan=plan, reader=reader_spec, refiner=refiner, blend=blend, batch_size=batch_size,
            finish=finish, cores=cores_of_worker(workers) if scheduler is None else None,
        )  # fmt: skip
        return run_on_workers(job, sink, where=where, strips=strips, progress=progress)
    # So is Dask itself imported where it is needed: the network's modules know the protocols alone.
    from geothresh.mosaic.threads import ThreadRun, default_threads

    guarded = load_refiner(refiner)
    run = ThreadRun(
        plan=plan,
        reader=reader,
        refiner=guarded,
        weights=Weights.build(blend, grid),
        batch_size=batch_size,
        sink=sink,
        finish=finish,
        pack=pack,
        strips=StripCounter(plan, on_strip, start=start_strip),
        progress=progress,
    )
    return run.run(default_threads(guarded.parallel_calls) if threads is None else threads)


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
    threads: int | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Float32Array:
    """Refine a confidence array with the engine that refines rasters.

    Args:
        confidence: Floating-point (rows, columns) in [0, 1]; what is not finite is nodata.
        refiner: As for `mosaic`, like all other arguments.
        tile: Side of a tile in pixels.
        overlap: Pixels that neighbouring tiles share.
        blend: How overlapping tiles are weighted.
        batch_size: Most tiles in one call of the model.
        chunk_height: Rows of a chunk.
        chunk_width: Most columns of a chunk.
        threads: Local threads; 0 for the calling thread.
        workers: Worker processes; they read the array from a temporary file.
        progress: Told (tiles done, tiles in total).

    Returns:
        float32 of the same shape, in [0, 1], NaN where ``confidence`` is not finite.

    Raises:
        InputError: The array is not a confidence array.
        UsageError: As for `mosaic`.
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
        if workers:
            path = Path(scratch) / "confidence.npy"
            np.save(path, confidence, allow_pickle=False)
            spec = NpyReaderSpec(path=str(path))
        mosaic(
            reader,
            refiner,
            store,
            grid=grid,
            blend=blend,
            batch_size=batch_size,
            chunk_height=chunk_height,
            chunk_width=chunk_width,
            threads=threads,
            workers=workers,
            reader_spec=spec,
            progress=progress,
        )
    return result
