"""What a long run has done so far, on the disk: after any interruption, the same run goes on.

A run keeps a work directory beside its output: ``run.json`` says what the run is, ``s000123.bin``
holds a finished strip of the output, and ``journal.jsonl`` lists the strips that count. Only the
standard library and numpy; GDAL, which does not tell of every failure to write, has no part in it.
"""

from geothresh.journal.run import Journal, Strip, finished_outputs
from geothresh.journal.strips import StoredChunk

__all__ = ["Journal", "StoredChunk", "Strip", "finished_outputs"]
