"""Keep pictures of the best and worst maps, and the reliability of all, for a report page."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from geothresh.evaluation.figures import error_picture
from geothresh.evaluation.reliability import Reliability
from geothresh.evaluation.scoring import CUT, Sample
from geothresh.metrics import Counts
from geothresh.raster.pictures import shrunk
from geothresh.types import BoolArray, UInt8Array

MOST = 6
"""Number of best maps, and of worst maps, that are kept."""
_SIDE = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """Pictures of a map, and its scores before and after refining."""

    id: str
    before: float
    """IoU of the cut at 0.5."""
    after: float | None
    """IoU of the refined mask; None = not refined."""
    first: UInt8Array
    """Errors of the cut, (h, w, 3)."""
    second: UInt8Array | None
    """Errors of the refined mask, of the same size."""

    @property
    def merit(self) -> float:
        """The value that maps are ranked by: the gain in IoU, or the IoU of a map not refined."""
        return self.before if self.after is None else self.after - self.before


@dataclass(slots=True, kw_only=True)
class Gallery:
    """The best, the worst and the reliability of the maps of one base network.

    Few maps are kept, however many are added.
    """

    threshold: float
    """Cut of the refined confidence."""
    keep: float | None
    """Cut for the foreground of the input, see `cut_mask`."""
    input: Reliability = field(default_factory=Reliability)
    refined: Reliability = field(default_factory=Reliability)
    _best: list[tuple[float, int, Exhibit]] = field(default_factory=list)
    _worst: list[tuple[float, int, Exhibit]] = field(default_factory=list)
    _seen: int = 0

    def add(self, sample: Sample) -> None:
        """Count one map, and keep it if it is among the best or the worst so far."""
        valid = sample.counted
        self.input.add(sample.confidence, sample.truth, valid)
        if sample.refined is not None:
            self.refined.add(sample.refined, sample.truth, valid)
        exhibit = self._exhibit(sample, valid)
        self._seen += 1
        # The number, which is unique, decides between equal merits: the first map is kept.
        for kept, merit in ((self._best, exhibit.merit), (self._worst, -exhibit.merit)):
            heapq.heappush(kept, (merit, -self._seen, exhibit))
            if len(kept) > MOST:
                heapq.heappop(kept)

    def best(self, most: int = MOST) -> list[Exhibit]:
        """The maps that gain most, in falling order."""
        return [exhibit for *_, exhibit in sorted(self._best, reverse=True)][:most]

    def worst(self, most: int = MOST) -> list[Exhibit]:
        """The maps that gain least, the worst first, without those among the best."""
        shown = {exhibit.id for exhibit in self.best(most)}
        ordered = [exhibit for *_, exhibit in sorted(self._worst, reverse=True)]
        return [exhibit for exhibit in ordered if exhibit.id not in shown][:most]

    def _exhibit(self, sample: Sample, valid: BoolArray) -> Exhibit:
        cut = sample.confidence >= CUT
        after = second = None
        mask = sample.mask(self.threshold, self.keep)
        if mask is not None:
            after = Counts.of(prediction=mask, target=sample.truth, valid=valid).iou()
            second = _small(error_picture(mask, sample.truth, valid))
        return Exhibit(
            id=sample.id,
            before=Counts.of(prediction=cut, target=sample.truth, valid=valid).iou(),
            after=after,
            first=_small(error_picture(cut, sample.truth, valid)),
            second=second,
        )


def _small(picture: UInt8Array) -> UInt8Array:
    factor = -(-max(picture.shape[:2]) // _SIDE)
    return picture if factor == 1 else shrunk(picture, factor)
