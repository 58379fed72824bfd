"""The evaluation's result: rows of figures per base network, as a table and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from geothresh.evaluation.changes import Changes
from geothresh.evaluation.rows import Row
from geothresh.evaluation.table import single_thresholds, table
from geothresh.evaluation.verdict import Verdict, without_refinement
from geothresh.options import Metric

WIDTH = 80
"""Columns that text is broken to."""


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
    verdict: Verdict | None = None
    """What refining was worth; None where nothing was refined."""
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
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
            "maps": list(self.maps),
        }

    def table(self) -> str:
        """The figures in points (hundredths), MAE as a share; below them the verdict in words."""
        rows = {row.key: row for row in self.rows}
        low, high = self.distances
        reach = f"{low}" if low == high else f"{low} to {high}"
        return "\n".join(
            [
                self._title(),
                table(rows, unit=self.unit, reach=reach),
                "",
                *map(_filled, self._sentences(rows)),
            ]
        )

    def _title(self) -> str:
        title = f"{self.name}: {_plural(self.rows[0].summary.n, self.unit)}"
        if self.metric != "chessboard":
            title += f", boundary by {self.metric} distance"
        return title if self.resampling == 1 else f"{title}, read at {self.resampling:.3g} of size"

    def _sentences(self, rows: dict[str, Row]) -> list[str]:
        cuts = f"Best single threshold: {single_thresholds(rows, 'single', self.unit)}"
        if self.verdict is None:
            verdict = without_refinement(rows["cut"], rows["single"], rows["regions"])
            return [verdict, f"{cuts}."]
        refined = single_thresholds(rows, "refined_single", self.unit)
        return [
            self.verdict.sentence(),
            _changes_line(self.changes["iou"], self.changes["boundary_iou"], self.unit),
            f"{cuts}; of the refined {self.unit}s {refined}.",
        ]


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
        """The tables of all sources, with the notes that they need."""
        notes = (
            f"Best single: one threshold for all, the best by the measure of its line. "
            f"Best per {self.sources[0].unit}: the threshold of each with the best IoU. Region "
            f"bound (oracle): the same for each region of {self.patch} x {self.patch} pixels. "
            "* = chosen with the truth of these very maps at hand: a mark to measure against."
        )
        if self.model is not None:
            notes += (
                " s.e. = standard error over them, taken as independent; less than twice that "
                "may be chance."
            )
        return "\n\n".join([*(source.table() for source in self.sources), _filled(notes)])


def _plural(n: int, unit: str) -> str:
    return f"{n} {unit}" if n == 1 else f"{n} {unit}s"


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _changes_line(iou: Changes, boundary: Changes, unit: str) -> str:
    """Boundary IoU in short, how many single maps gain and lose, and who loses most."""
    error = boundary.standard_error
    text = f"Boundary IoU: {100 * boundary.mean_difference:+.1f}"
    text += "" if error is None else f" (s.e. {100 * error:.1f})"
    text += f". In IoU {_plural(iou.n_better, unit)} gained, {iou.n_worse} lost"
    if iou.worst_id is not None:
        text += f", most of all {iou.worst_id}: {100 * iou.worst_loss:.1f} points"
    return f"{text}."
