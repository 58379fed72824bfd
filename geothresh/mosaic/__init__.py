"""The engine: read, refine and blend tiles as a Dask graph. The one home of Dask."""

from geothresh.mosaic.engine import mosaic, mosaic_array
from geothresh.mosaic.protocols import (
    ChunkSink,
    Finish,
    Layers,
    LayerSink,
    MosaicStats,
    RasterReader,
    ReaderSpec,
    Refiner,
    RefinerSource,
    Scheduler,
    Sink,
    StripDone,
    Threads,
    Where,
    Workers,
    where_asked,
)
from geothresh.mosaic.readers import ArrayReader, PiecesReader
from geothresh.mosaic.refining import GuardedRefiner, load_refiner, parallel_calls
from geothresh.mosaic.remembering import TileMemory

__all__ = [
    "ArrayReader",
    "ChunkSink",
    "Finish",
    "LayerSink",
    "Layers",
    "RasterReader",
    "GuardedRefiner",
    "MosaicStats",
    "PiecesReader",
    "ReaderSpec",
    "Refiner",
    "RefinerSource",
    "Scheduler",
    "Sink",
    "StripDone",
    "Threads",
    "TileMemory",
    "Where",
    "Workers",
    "load_refiner",
    "mosaic",
    "mosaic_array",
    "parallel_calls",
    "where_asked",
]
