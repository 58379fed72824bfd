"""Durability: a run that was stopped, killed or out of disk goes on by the same command.

One lock an output (`locking`), one check that a run is the same and one note that it goes on
(`resuming`). Rasters keep finished strips and a journal of them in a work directory beside the
output (`journal`, `strips`), runs over many files a record of those that are finished (`record`);
trainings keep their last two states (`resuming`). Only the standard
library and numpy; GDAL, which does not tell of every failure to write, has no part in it.
"""

from geothresh.durability.journal import Journal, Strip, finished_outputs, left_by_another
from geothresh.durability.strips import StoredChunk

__all__ = ["Journal", "StoredChunk", "Strip", "finished_outputs", "left_by_another"]
