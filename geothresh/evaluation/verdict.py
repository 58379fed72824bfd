"""Compute the changes of single maps by refinement, and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from geothresh.errors import number_of

POINT = 0.01
"""One point of a measure, as papers count them."""

_NOTHING = "0.0"
"""A difference that is printed like this counts as none."""


def standard_error(differences: Sequence[float]) -> float | None:
    """Standard error of the mean, over maps taken as independent; None for a single map."""
    if len(differences) < 2:
        return None
    return stdev(differences) / math.sqrt(len(differences))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Differences of single maps between plain cut and refined mask, in one measure."""

    n: int
    """Number of maps."""
    n_better: int
    n_worse: int
    n_worse_by_a_point: int
    """Number of maps that lost more than 0.01."""
    mean_difference: float
    """Mean of after minus before, over all maps."""
    standard_error: float | None
    """Standard error of `mean_difference`, with maps taken as independent; None for a single map.
    It does not include the variation over splits and seeds."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Mean gains in IoU over maps, as shares (a point is 0.01), with standard errors."""

    n: int
    """Number of maps."""
    unit: str
    """Word for one map: "map" or "cell"."""
    gain: float
    """IoU of the refined mask minus that of the cut at 0.5."""
    standard_error: float | None
    """Standard error of `gain`, with maps taken as independent; None for a single map."""
    gain_over_single: float
    """IoU of the refined mask minus that of the best single threshold of the unrefined maps."""
    standard_error_over_single: float | None
    """Standard error of `gain_over_single`."""
    gain_of_regions: float
    """IoU of the best thresholds by region (an oracle) minus that of the cut at 0.5."""
    n_worse_by_a_point: int
    """Maps whose refined mask has an IoU more than 0.01 below that of the cut at 0.5."""

    @classmethod
    def of(
        cls,
        *,
        cut: Sequence[float],
        single: Sequence[float],
        regions: Sequence[float],
        refined: Sequence[float],
        unit: str = "map",
    ) -> Verdict:
        """Compare the IoU of the same maps, 0 to 1.

        They are cut at 0.5, at the best single threshold, at the best thresholds by region, and
        refined.
        """
        over_cut = [b - a for a, b in zip(cut, refined, strict=True)]
        over_single = [b - a for a, b in zip(single, refined, strict=True)]
        return cls(
            n=len(refined),
            unit=unit,
            gain=fmean(over_cut),
            standard_error=standard_error(over_cut),
            gain_over_single=fmean(over_single),
            standard_error_over_single=standard_error(over_single),
            gain_of_regions=fmean(b - a for a, b in zip(cut, regions, strict=True)),
            n_worse_by_a_point=sum(gain < -POINT for gain in over_cut),
        )

    @property
    def share_of_regions(self) -> float | None:
        """The gain as a share of `gain_of_regions`; None if that is 0 to the printed digit."""
        if self.gain_of_regions <= 0 or _points(self.gain_of_regions) == _NOTHING:
            return None
        return self.gain / self.gain_of_regions

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, and the sentence."""
        return {
            "sentence": self.sentence(),
            "gain": self.gain,
            "standard_error": self.standard_error,
            "gain_over_single": self.gain_over_single,
            "standard_error_over_single": self.standard_error_over_single,
            "gain_of_regions": self.gain_of_regions,
            "share_of_regions": self.share_of_regions,
            "n_worse_by_a_point": self.n_worse_by_a_point,
        }

    def sentence(self) -> str:
        """The verdict in words, in points (hundredths)."""
        return f"{self._over_cut()}{self._over_single()}; {self._losers()}."

    def _over_cut(self) -> str:
        gain, error = _points(self.gain), _error(self.gain, self.standard_error)
        regions = ""
        if self.share_of_regions is not None:
            regions = (
                f", where region-specific thresholds would gain {_points(self.gain_of_regions)},"
            )
        if gain == _NOTHING:
            return f"Refining neither gains nor loses IoU{error} over the cut at 0.5{regions}"
        if self.gain < 0:
            return f"Refining loses {gain} points of IoU{error} against the cut at 0.5{regions}"
        if self.share_of_regions is not None:
            share = f"{100 * self.share_of_regions:.0f} %"
            regions = f", {share} of what region-specific thresholds would,"
        return f"Refining gains {gain} points of IoU{error} over the cut at 0.5{regions}"

    def _over_single(self) -> str:
        gain = _points(self.gain_over_single)
        error = _error(self.gain_over_single, self.standard_error_over_single)
        lost = _points(self.gain) != _NOTHING and self.gain < 0
        if gain == _NOTHING:
            if _points(self.gain) == _NOTHING:
                return " nor over the best single threshold"
            return f" but nothing{error} over the best single threshold"
        if self.gain_over_single > 0:
            return f" and {gain}{error} over the best single threshold"
        return f" {'and' if lost else 'but loses'} {gain}{error} against the best single threshold"

    def _losers(self) -> str:
        if not self.n_worse_by_a_point:
            return f"no {self.unit} loses more than a point"
        share = f"{100 * self.n_worse_by_a_point / self.n:.0f} %"
        lose = "loses" if self.n_worse_by_a_point == 1 else "lose"
        losers = f"{self.n_worse_by_a_point} of {number_of(self.n, self.unit)}"
        return f"{losers} ({share}) {lose} more than a point"


def _points(difference: float) -> str:
    return f"{abs(100 * difference):.1f}"


def _error(difference: float, error: float | None) -> str:
    """The standard error in words, and whether the difference may be chance."""
    if error is None:
        return ""
    doubt = _points(difference) != _NOTHING and abs(difference) < 2 * error
    return f" (s.e. {_points(error)}{', so it may be chance' if doubt else ''})"
