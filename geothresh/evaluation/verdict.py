"""What refining was worth, in one sentence that says how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from geothresh.evaluation.changes import POINT, standard_error
from geothresh.evaluation.rows import Row

_NOTHING = "0.0"
"""What a difference is printed as that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Means over maps, of IoU, as shares (a point is 0.01)."""

    n: int
    """Maps."""
    unit: str
    """What one map is: "map" or "cell"."""
    gain: float
    """Refined at its threshold, less the cut at 0.5."""
    standard_error: float | None
    """Of the gain, over maps taken as independent; None for a single map."""
    gain_over_single: float
    """Refined at its threshold, less the best single threshold of the unrefined maps."""
    standard_error_over_single: float | None
    """Of that."""
    gain_of_regions: float
    """Best thresholds by region, less the cut at 0.5: the bound."""
    n_worse_by_a_point: int
    """Maps that lost more than 0.01 to their cut at 0.5."""

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
        """The gain as a share of what region-specific thresholds would gain.

        None where that is nothing to the printed digit.
        """
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
        units = self.unit if self.n == 1 else f"{self.unit}s"
        lose = "loses" if self.n_worse_by_a_point == 1 else "lose"
        return f"{self.n_worse_by_a_point} of {self.n} {units} ({share}) {lose} more than a point"


def without_refinement(cut: Row, single: Row, regions: Row) -> str:
    """What there would be to gain, where nothing was refined."""
    one, region = (row.summary.miou - cut.summary.miou for row in (single, regions))
    return (
        f"Not refined; over the cut at 0.5 the best single threshold would gain {100 * one:.1f} "
        f"points of IoU, region-specific thresholds {100 * region:.1f}."
    )


def _points(difference: float) -> str:
    return f"{abs(100 * difference):.1f}"


def _error(difference: float, error: float | None) -> str:
    """The standard error, and what follows from it."""
    if error is None:
        return ""
    doubt = _points(difference) != _NOTHING and abs(difference) < 2 * error
    return f" (s.e. {_points(error)}{', so it may be chance' if doubt else ''})"
