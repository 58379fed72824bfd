"""Progress of a run: which chunks are left, and which strips are complete."""

from __future__ import annotations

from geothresh.mosaic.protocols import MosaicStats, StripDone
from geothresh.mosaic.tasks import Blended, Finished
from geothresh.windows import ChunkPlan, TileGroup


class StripCounter:
    """Counts the tiles of finished chunks, and reports each strip when it is complete."""

    def __init__(self, plan: ChunkPlan, done: StripDone | None, *, start: int) -> None:
        """Take the plan; strips above `start`, from 0, were made before."""
        self._plan = plan
        self._done = done
        self._refined = self._skipped = 0
        self._told_refined = self._told_skipped = 0
        self._start = start
        self.first_chunk = start * plan.chunks_per_strip
        """Index of the first chunk to be made."""

    def starting(self, chunk: int) -> list[TileGroup]:
        """The groups that a chunk is the first to need, of those to be made."""
        return self._plan.groups_from(chunk, first=self.first_chunk)

    def is_new(self, group: TileGroup) -> bool:
        """Whether no strip above needed the group, so that its tiles have not been counted."""
        return group.chunks[0] >= self.first_chunk

    @property
    def tiles_before(self) -> int:
        """Tiles that strips above needed."""
        grid = self._plan.grid
        rows = -(-self._start * self._plan.chunk_height // grid.stride)
        return min(rows, grid.n_rows) * grid.n_cols

    @property
    def tiles(self) -> int:
        """Tiles of the chunks counted so far."""
        return self._refined + self._skipped

    def count(self, chunk: Blended | Finished) -> None:
        """Count a chunk that the sink has taken; the next one in raster order."""
        self._refined += chunk.tiles_refined
        self._skipped += chunk.tiles_skipped
        if chunk.window.col_stop < self._plan.grid.size.width:
            return
        refined, skipped = self._refined - self._told_refined, self._skipped - self._told_skipped
        self._told_refined, self._told_skipped = self._refined, self._skipped
        if self._done is not None:
            self._done(refined, skipped)

    def stats(self) -> MosaicStats:
        """What was done."""
        return MosaicStats(
            tiles=self._plan.grid.n_tiles,
            tiles_refined=self._refined,
            tiles_skipped=self._skipped,
        )
