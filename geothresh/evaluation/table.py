"""The rows of a report as a table for people: a line per measure, a column per way to cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geothresh.evaluation.rows import MEASURES, Measure, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One way to turn maps into masks, as the table shows it."""

    key: str
    """Of the row that it shows."""
    heading: tuple[str, str]
    """Two lines; ``{unit}`` stands for what one map is, ``{threshold}`` for the row's cut."""
    by_measure: bool = False
    """True = another row for each measure, the best one by it."""

    def row(self, rows: Mapping[str, Row], measure: Measure) -> Row:
        """What is shown in the line of a measure."""
        return rows[self.key + (measure.suffix if self.by_measure else "")]


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

_GAP = "  "


def table(rows: Mapping[str, Row], *, unit: str, reach: str) -> str:
    """Lay the rows out by measure, in points, and MAE as a share.

    A measure whose line would repeat another's to the digit is named below the table instead.

    Args:
        rows: by key; "refined" and the rows of its best thresholds may be missing.
        unit: what one map is.
        reach: of Boundary IoU in pixels, in words.
    """
    groups = [(name, columns) for name, columns in _GROUPS if columns[0].key in rows]
    columns = [column for _, group in groups for column in group]
    lines, twins = _lines(rows, columns, unit, reach)
    mae = [_mae(rows[column.key]) for column in columns]
    if any(mae):
        lines["mean absolute error (MAE)"] = [cell or "-" for cell in mae]
    headings = [_heading(column, rows[column.key], unit) for column in columns]
    widths = [
        max(map(len, (*heading, *cells)))
        for heading, cells in zip(headings, zip(*lines.values(), strict=True), strict=True)
    ]
    label_width = max(map(len, lines))
    printed = [_rule(groups, widths, label_width)]
    for label, cells in [
        *(("", [heading[k] for heading in headings]) for k in (0, 1)),
        *lines.items(),
    ]:
        padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        printed.append(_GAP.join([f"{label:<{label_width}}", *padded]))
    printed += [f"{twin}: as {line}" for twin, line in twins.items()]
    return "\n".join(printed)


def single_thresholds(rows: Mapping[str, Row], key: str, unit: str) -> str:
    """The best single threshold by the first measure, and by others where it is another."""
    first, *others = ((measure, rows[key + measure.suffix].threshold) for measure in MEASURES)
    apart = [
        f"{measure.name.format(unit=unit)} {cut:.2f}" for measure, cut in others if cut != first[1]
    ]
    return f"{first[1]:.2f}" + (f" ({', '.join(apart)})" if apart else "")


def _lines(
    rows: Mapping[str, Row], columns: Sequence[_Column], unit: str, reach: str
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Cells by title, and of the titles left out, the one that has their cells."""
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


def _mae(row: Row) -> str:
    return "" if row.summary.mae is None else f"{row.summary.mae:.4f}"


def _heading(column: _Column, row: Row, unit: str) -> tuple[str, str]:
    above, below = (line.format(unit=unit, threshold=row.threshold) for line in column.heading)
    return above, below + ("*" if row.oracle else "")


def _rule(
    groups: Sequence[tuple[str, Sequence[_Column]]], widths: Sequence[int], label_width: int
) -> str:
    """The names of the groups, each over its columns."""
    parts = ["points" + " " * (label_width - len("points"))]
    left = 0
    for name, columns in groups:
        inside = widths[left : left + len(columns)]
        left += len(columns)
        parts.append(f" {name} ".center(sum(inside) + len(_GAP) * (len(inside) - 1), "-"))
    return _GAP.join(parts)
