"""Which chunks of a plan are left to do, and when a strip of them is complete."""

from __future__ import annotations

from collections import defaultdict

from geothresh.mosaic.protocols import MosaicStats, StripDone
from geothresh.mosaic.tasks import Blended, Finished
from geothresh.windows import ChunkPlan, TileGroup


class StripCounter:
    """Counts what finished chunks tell, and says when a strip is whole."""

    def __init__(self, plan: ChunkPlan, done: StripDone | None, *, start: int) -> None:
        """Take the plan; strips above `start`, from 0, were made before."""
        self._plan = plan
        self._done = done
        self._refined = self._skipped = 0
        self._told_refined = self._told_skipped = 0
        self.first_chunk = start * plan.n_bands
        """Index of the first chunk to be made."""
        self.groups = [g for g in plan.groups() if g.chunks[-1] >= self.first_chunk]
        """The groups that the chunks to be made need, in the plan's order."""

    def starting(self) -> dict[int, list[TileGroup]]:
        """The groups by the first chunk, of those to be made, that needs them."""
        by_chunk: dict[int, list[TileGroup]] = defaultdict(list)
        for group in self.groups:
            by_chunk[max(group.chunks[0], self.first_chunk)].append(group)
        return by_chunk

    def is_new(self, group: TileGroup) -> bool:
        """Whether no strip above needed the group, so that its tiles have not been counted."""
        return group.chunks[0] >= self.first_chunk

    @property
    def tiles_before(self) -> int:
        """Tiles that strips above needed."""
        return self._plan.grid.n_tiles - sum(g.n_tiles for g in self.groups if self.is_new(g))

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
