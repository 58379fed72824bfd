"""Results of an evaluation by base network, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geothresh.errors import number_of
from geothresh.evaluation.plaintext import GAP, aligned, filled, widths
from geothresh.evaluation.scenes import SceneScore, scene_table, worst_sentence
from geothresh.evaluation.verdict import Changes, Verdict
from geothresh.metrics import Summary
from geothresh.options import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Scores of one way to turn maps into masks."""

    key: str
    """Name in JSON."""
    label: str
    """Description in words."""
    oracle: bool
    """True = thresholds were chosen with the truth of the same maps."""
    threshold: float | None
    """The threshold, if there is one for all maps."""
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure of `Summary` that masks are compared by."""

    field: str
    """Name of the figure in `Summary`."""
    suffix: str
    """End of the key of the row with the best single threshold by this measure."""
    name: str
    """Short name; ``{unit}`` stands for the word for one map."""
    title: str
    """Name in the table; ``{reach}`` stands for the reach of Boundary IoU in pixels."""

    def of(self, summary: Summary) -> float:
        """The figure, 0 to 1."""
        return float(getattr(summary, self.field))


MEASURES = (
    Measure(field="miou", suffix="", name="IoU (mean of {unit}s)", title="IoU (mean of {unit}s)"),
    Measure(
        field="iou_pooled", suffix="_pooled", name="IoU of all pixels", title="IoU (all pixels)"
    ),
    Measure(
        field="miou_two_class",
        suffix="_two_class",
        name="mIoU",
        title="mean of both classes (mIoU)",
    ),
    Measure(
        field="boundary_iou",
        suffix="_boundary",
        name="Boundary IoU",
        title="Boundary IoU (d = {reach} px)",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column of the table: one way to turn maps into masks."""

    key: str
    """Key of the row that it shows."""
    heading: tuple[str, str]
    """Two lines; ``{unit}`` stands for the word for one map, ``{threshold}`` for the cut."""
    by_measure: bool = False
    """True = each measure has its own row, with the threshold that is best by it."""

    def row(self, rows: Mapping[str, Row], measure: Measure) -> Row:
        """The row that is shown in the line of a measure."""
        return rows[self.key + (measure.suffix if self.by_measure else "")]

    def text(self, row: Row, unit: str) -> tuple[str, str]:
        """The heading, filled in, with a star for an oracle."""
        above, below = (line.format(unit=unit, threshold=row.threshold) for line in self.heading)
        return above, below + ("*" if row.oracle else "")


_GROUPS = (
    (
        "unrefined",
        (
            _Column(key="cut", heading=("cut at", "{threshold:g}")),
            _Column(key="single", heading=("best", "single"), by_measure=True),
            _Column(key="per_map", heading=("best", "per {unit}")),
            _Column(key="regions", heading=("region", "bound")),
        ),
    ),
    (
        "refined",
        (
            _Column(key="refined", heading=("cut at", "{threshold:g}")),
            _Column(key="refined_single", heading=("best", "single"), by_measure=True),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableText:
    """Texts of a table, without layout."""

    groups: tuple[tuple[str, int], ...]
    """Names of the groups, and how many columns each has."""
    headings: tuple[tuple[str, str], ...]
    """Two lines for each column."""
    lines: Mapping[str, Sequence[str]]
    """Cells by measure, one for each column."""
    twins: Mapping[str, str]
    """Measures that are left out because their cells equal those of another, and that one."""

    def plain(self) -> str:
        """Lay the table out in columns; measures that are left out are named below it."""
        headings = [["", *line] for line in zip(*self.headings, strict=True)]
        rows = [*headings, *([label, *line] for label, line in self.lines.items())]
        wide = widths(rows)
        groups, left = [f"{'points':<{wide[0]}}"], 1
        for name, count in self.groups:
            inside = wide[left : left + count]
            left += count
            groups.append(f" {name} ".center(sum(inside) + len(GAP) * (count - 1), "-"))
        twins = [f"{twin}: as {line}" for twin, line in self.twins.items()]
        return "\n".join([GAP.join(groups), *aligned(rows, wide), *twins])


def _lines(
    rows: Mapping[str, Row], columns: Sequence[_Column], unit: str, reach: str
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Cells by title, and for titles left out the title with the same cells."""
    lines: dict[str, list[str]] = {}
    twins = {}
    for measure in MEASURES:
        title = measure.title.format(unit=unit, reach=reach)
        cells = [f"{100 * measure.of(c.row(rows, measure).summary):.2f}" for c in columns]
        twin = next((other for other, theirs in lines.items() if theirs == cells), None)
        if twin is None:
            lines[title] = cells
        else:
            twins[title] = twin
    return lines, twins


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """All rows for the maps of one base network."""

    name: str
    """Name of the folder of confidence maps, or of the raster."""
    unit: str
    """Word for one map: "map", or "cell" if a raster was cut into cells."""
    distances: tuple[int, int]
    """Least and greatest reach of Boundary IoU over the maps, in pixels."""
    metric: Metric
    """How that reach is counted, see `geothresh.metrics.Metric`."""
    rows: tuple[Row, ...]
    changes: dict[str, Changes]
    """Changes by measure, "iou" and "boundary_iou"; empty if nothing was refined."""
    maps: tuple[dict[str, Any], ...]
    """For each map its id, and IoU and Boundary IoU of the plain cut and of the refined mask."""
    verdict: Verdict | None = None
    """Gains of refining; None if nothing was refined."""
    resampling: float | None = 1.0
    """Pixels of the model per pixel of a map; None if it differs between scenes."""
    scenes: tuple[SceneScore, ...] = ()
    """Scores of each of several scenes; empty for maps and for one raster."""

    def row(self, key: str) -> Row:
        """The row of this key. Raises KeyError if there is none."""
        return self._by_key()[key]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types; shares are 0 to 1."""
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
        } | ({"scenes": [scene.as_dict() for scene in self.scenes]} if self.scenes else {})

    def table_text(self) -> TableText:
        """The texts of the table, in points (hundredths), MAE as a share."""
        rows = self._by_key()
        low, high = self.distances
        reach = f"{low}" if low == high else f"{low} to {high}"
        groups = [(name, columns) for name, columns in _GROUPS if columns[0].key in rows]
        columns = [column for _, group in groups for column in group]
        lines, twins = _lines(rows, columns, self.unit, reach)
        mae = [rows[column.key].summary.mae for column in columns]
        if any(value is not None for value in mae):
            lines["mean absolute error (MAE)"] = ["-" if m is None else f"{m:.4f}" for m in mae]
        return TableText(
            groups=tuple((name, len(group)) for name, group in groups),
            headings=tuple(column.text(rows[column.key], self.unit) for column in columns),
            lines=lines,
            twins=twins,
        )

    def table(self) -> str:
        """The table as text, with the verdict below."""
        by_scene = [*scene_table(self.scenes), ""] if self.scenes else []
        sentences = map(filled, self.sentences())
        return "\n".join([self.title(), self.table_text().plain(), "", *by_scene, *sentences])

    def _by_key(self) -> dict[str, Row]:
        return {row.key: row for row in self.rows}

    def _single(self, key: str) -> str:
        """The best single threshold by the first measure, and by others if it differs."""
        found = [(measure, self.row(key + measure.suffix).threshold) for measure in MEASURES]
        first = found[0][1]
        apart = [f"{m.name.format(unit=self.unit)} {cut:.2f}" for m, cut in found if cut != first]
        return f"{first:.2f}" + (f" ({', '.join(apart)})" if apart else "")

    def title(self) -> str:
        """Name and number of maps, with metric and resampling if they are not the defaults."""
        title = f"{self.name}: {number_of(self.rows[0].summary.n, self.unit)}"
        if self.metric != "chessboard":
            title += f", boundary by {self.metric} distance"
        if self.scenes:
            title = f"{title} of {number_of(len(self.scenes), 'scene')}"
        if self.resampling is None:
            return f"{title}, read at several sizes"
        return title if self.resampling == 1 else f"{title}, read at {self.resampling:.3g} of size"

    def sentences(self) -> list[str]:
        """The verdict and the best thresholds in words."""
        rows = self._by_key()
        cuts = f"Best single threshold: {self._single('single')}"
        worst = [worst_sentence(self.scenes)] if self.scenes else []
        if self.verdict is None:
            verdict = _without_refinement(rows["cut"], rows["single"], rows["regions"])
            return [verdict, f"{cuts}.", *worst]
        refined = self._single("refined_single")
        return [
            self.verdict.sentence(),
            _changes_line(self.changes["iou"], self.changes["boundary_iou"], self.unit),
            f"{cuts}; of the refined {self.unit}s {refined}.",
            *worst,
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
    keep_threshold: float | None = None
    """Refined confidence from which on foreground of the input stays foreground; None = the cut."""
    calibration: str | None = None
    """The calibration that was applied, in words; None = no calibration."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {
            "model": self.model,
            "model_sha256": self.digest,
            "tta": self.tta,
            "patch": self.patch,
            "threshold": self.threshold,
            "keep_threshold": self.keep_threshold,
            "calibration": self.calibration,
            "seconds": round(self.seconds, 3),
            "sources": [source.as_dict() for source in self.sources],
        }

    def table(self) -> str:
        """The tables of all sources, with notes."""
        return "\n\n".join([*(source.table() for source in self.sources), filled(self.notes())])

    def notes(self) -> str:
        """Notes on the headings of the tables, and on how maps were refined and cut."""
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
        if self.calibration is not None:
            notes += f" Refined and cut by the calibration: {self.calibration}."
        if self.keep_threshold is not None:
            notes += (
                f" Foreground of the input is kept from a refined confidence of "
                f"{self.keep_threshold:g} on, other pixels are foreground from "
                f"{self.threshold:g} on."
            )
        return notes


def _without_refinement(cut: Row, single: Row, regions: Row) -> str:
    """Possible gains in words, for maps that were not refined."""
    whole, region = (row.summary.miou - cut.summary.miou for row in (single, regions))
    return (
        f"Not refined; over the cut at 0.5 the best single threshold would gain {100 * whole:.1f} "
        f"points of IoU, region-specific thresholds {100 * region:.1f}."
    )


def _changes_line(iou: Changes, boundary: Changes, unit: str) -> str:
    """The change of Boundary IoU, and the number of maps whose IoU rose and fell, in words."""
    error = boundary.standard_error
    text = f"Boundary IoU: {100 * boundary.mean_difference:+.1f}"
    text += "" if error is None else f" (s.e. {100 * error:.1f})"
    text += f". In IoU {number_of(iou.n_better, unit)} gained, {iou.n_worse} lost"
    if iou.worst_id is not None:
        text += f", most of all {iou.worst_id}: {100 * iou.worst_loss:.1f} points"
    return f"{text}."
