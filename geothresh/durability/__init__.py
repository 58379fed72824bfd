"""Durability: a run that was stopped, killed or out of disk space is resumed by the same command.

`locking` holds one lock for each output. `resuming` checks that a run has the same parameters as
the interrupted one. Runs that write a raster keep finished strips and a journal in a work directory
beside the output (`journal`, `strips`); runs over many files keep a record of the finished ones
(`record`); trainings keep their last two states (`resuming`). Only the standard library and numpy
are used: GDAL does not report every failed write.
"""

from geothresh.durability.journal import Journal, Strip, finished_outputs, left_by_another
from geothresh.durability.strips import StoredChunk

__all__ = ["Journal", "StoredChunk", "Strip", "finished_outputs", "left_by_another"]
