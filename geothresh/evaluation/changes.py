"""How single maps fared under refinement: who gained, who lost, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

POINT = 0.01
"""One point of a measure, as papers count them."""


def standard_error(differences: Sequence[float]) -> float | None:
    """Of their mean, over maps taken as independent; None for a single map."""
    if len(differences) < 2:
        return None
    return stdev(differences) / math.sqrt(len(differences))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How single maps fared under refinement, against their plain cut, in one measure."""

    n: int
    """Maps."""
    n_better: int
    n_worse: int
    n_worse_by_a_point: int
    """Maps that lost more than 0.01."""
    mean_difference: float
    """Mean over all maps, after less before."""
    standard_error: float | None
    """Of that mean, over the maps taken as independent; None for a single map. It knows nothing of
    other splits and seeds."""
    mean_gain: float
    """Mean gain of the maps that gained, 0 where none did."""
    mean_loss: float
    """Mean loss of the maps that lost, 0 where none did; not negative."""
    worst_id: str | None
    """The map that lost most; None where none lost."""
    worst_loss: float

    @classmethod
    def of(cls, ids: Sequence[str], before: Sequence[float], after: Sequence[float]) -> Changes:
        """Compare the figures of the same maps before and after, each 0 to 1."""
        differences = [b - a for a, b in zip(before, after, strict=True)]
        gains = [d for d in differences if d > 0]
        losses = [-d for d in differences if d < 0]
        worst = min(range(len(ids)), key=differences.__getitem__) if losses else None
        return cls(
            n=len(ids),
            n_better=len(gains),
            n_worse=len(losses),
            n_worse_by_a_point=sum(loss > POINT for loss in losses),
            mean_difference=fmean(differences),
            standard_error=standard_error(differences),
            mean_gain=sum(gains) / len(gains) if gains else 0.0,
            mean_loss=sum(losses) / len(losses) if losses else 0.0,
            worst_id=None if worst is None else ids[worst],
            worst_loss=0.0 if worst is None else -differences[worst],
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, with the share of maps that lost."""
        return {
            "n": self.n,
            "n_better": self.n_better,
            "n_worse": self.n_worse,
            "share_worse": self.n_worse / self.n,
            "n_worse_by_a_point": self.n_worse_by_a_point,
            "share_worse_by_a_point": self.n_worse_by_a_point / self.n,
            "mean_difference": self.mean_difference,
            "standard_error": self.standard_error,
            "mean_gain": self.mean_gain,
            "mean_loss": self.mean_loss,
            "worst_id": self.worst_id,
            "worst_loss": self.worst_loss,
        }
