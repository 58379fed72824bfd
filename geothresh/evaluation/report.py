"""The evaluation's result: rows of figures per base network, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from geothresh.metrics import Metric, Summary

POINT = 0.01
"""One point of a measure, as papers count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to turn the maps into masks, and what it scores."""

    key: str
    """Name of the row in JSON."""
    label: str
    """Name of the row in the table."""
    oracle: bool
    """True = chosen with knowledge of the truth of these very maps."""
    threshold: float | None
    """The cut, where it is one for all maps."""
    summary: Summary


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
            standard_error=stdev(differences) / len(ids) ** 0.5 if len(ids) > 1 else None,
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
class SourceReport:
    """All rows for the maps of one base network."""

    name: str
    """Name of the folder of confidence maps, or of the raster."""
    unit: str
    """What one map is: "map", or "cell" where one raster was cut into cells."""
    distances: tuple[int, int]
    """Least and greatest reach of Boundary IoU over the maps, in pixels."""
    metric: Metric
    """How that reach is counted."""
    rows: tuple[Row, ...]
    changes: dict[str, Changes]
    """By measure, "iou" and "boundary_iou"; empty where nothing was refined."""
    maps: tuple[dict[str, Any], ...]
    """Per map: id, and IoU and Boundary IoU of the plain cut and of the refined mask."""
    resampling: float = 1.0
    """Pixels of the model along one of a map, where the resolution was matched."""

    def row(self, key: str) -> Row:
        """The row of this key. Raises KeyError if there is none."""
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    def as_dict(self) -> dict[str, Any]:
        """All that is known, ready for JSON; shares are 0 to 1."""
        return {
            "name": self.name,
            "unit": self.unit,
            "n": self.rows[0].summary.n,
            "boundary_distance_px": list(self.distances),
            "boundary_metric": self.metric,
            "resampling": self.resampling,
            "rows": {
                row.key: {
                    "label": row.label,
                    "oracle": row.oracle,
                    "threshold": row.threshold,
                    **row.summary.as_dict(),
                }
                for row in self.rows
            },
            "changes": {name: changes.as_dict() for name, changes in self.changes.items()},
            "maps": list(self.maps),
        }

    def table(self) -> str:
        """The rows as text: figures in points (hundredths), MAE as a share."""
        low, high = self.distances
        reach = f"{low} px" if low == high else f"{low} to {high} px"
        n = self.rows[0].summary.n
        read = "" if self.resampling == 1 else f", read at {self.resampling:.3g} of the size"
        width = max(len(row.label) for row in self.rows) + 2
        lines = [
            f"{self.name}: {_plural(n, self.unit)}, boundary within {reach} ({self.metric}){read}",
            f"{'':{width}}{'miou':>9}{'boundary':>10}{'pooled':>9}{'two-class':>11}{'MAE':>9}",
        ]
        for row in self.rows:
            s = row.summary
            mae = "-" if s.mae is None else f"{s.mae:.4f}"
            lines.append(
                f"{row.label + (' *' if row.oracle else ''):{width}}{100 * s.miou:9.2f}"
                f"{100 * s.boundary_iou:10.2f}{100 * s.iou_pooled:9.2f}"
                f"{100 * s.miou_two_class:11.2f}{mae:>9}"
            )
        for measure, title in (("iou", "IoU"), ("boundary_iou", "Boundary IoU")):
            if measure in self.changes:
                lines.append(_changes_line(title, self.changes[measure], self.unit))
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The evaluation of one or several base networks with one model."""

    sources: tuple[SourceReport, ...]
    model: str | None
    """Name of the model; None where nothing was refined."""
    digest: str | None
    """sha256 of the model file, hex."""
    patch: int
    """Side of the regions of the bound, in pixels."""
    threshold: float
    """Cut of the refined confidence."""
    seconds: float
    """Wall time."""
    tta: str = "none"
    """Test-time augmentation of the refinement."""

    def as_dict(self) -> dict[str, Any]:
        """All that is known, ready for JSON."""
        return {
            "model": self.model,
            "model_sha256": self.digest,
            "tta": self.tta,
            "patch": self.patch,
            "threshold": self.threshold,
            "seconds": round(self.seconds, 3),
            "sources": [source.as_dict() for source in self.sources],
        }

    def table(self) -> str:
        """The tables of all sources, with the one note that they need."""
        note = "* chosen with the truth of these very maps at hand: a mark to measure against"
        return "\n\n".join([source.table() for source in self.sources] + [note])


def _plural(n: int, unit: str) -> str:
    return f"{n} {unit}" if n == 1 else f"{n} {unit}s"


def _changes_line(title: str, changes: Changes, unit: str) -> str:
    mean = f"{title} {100 * changes.mean_difference:+.2f}"
    if changes.standard_error is not None:
        mean += f" (standard error {100 * changes.standard_error:.2f})"
    if not changes.n_worse:
        return f"{mean}: no {unit} worse than its cut at 0.5, {changes.n_better} better"
    return (
        f"{mean}: {changes.n_worse} of {_plural(changes.n, unit)} "
        f"({100 * changes.n_worse / changes.n:.0f} %) worse than cut at 0.5, "
        f"by {100 * changes.mean_loss:.2f} on average, {changes.n_worse_by_a_point} "
        f"({100 * changes.n_worse_by_a_point / changes.n:.0f} %) by more than 1 "
        f"(most: {changes.worst_id}, {100 * changes.worst_loss:.2f}); "
        f"{changes.n_better} better, by {100 * changes.mean_gain:.2f}"
    )
