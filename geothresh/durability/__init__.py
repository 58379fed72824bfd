"""Durability: the same command resumes a run that was stopped, killed or ran out of disk space.

`locking` holds one lock for each output. `resuming` checks that a run has the same parameters as
the interrupted one. Runs that write a raster keep finished strips and a journal in a work directory
beside the output (`journal`, `strips`). Runs over many files keep a record of finished units
(`record`). Trainings keep their last two states (`resuming`). Only the standard library and numpy
are used, because GDAL does not report every failed write.
"""

from geothresh.durability.journal import Journal, Strip, finished_outputs, left_by_another
from geothresh.durability.strips import StoredChunk

__all__ = ["Journal", "StoredChunk", "Strip", "finished_outputs", "left_by_another"]
