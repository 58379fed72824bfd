"""The report page of `evaluate`: scores, gain of each map, best and worst maps, reliability."""

from __future__ import annotations

from collections.abc import Mapping

from geothresh.colours import ADDED, FOREGROUND, NO_DATA, REMOVED
from geothresh.evaluation.gallery import MOST, Exhibit, Gallery
from geothresh.evaluation.report import Report, SourceReport
from geothresh.pages import (
    Bar,
    Curve,
    Html,
    Section,
    bars,
    diagonal,
    facts,
    figure,
    fill,
    gallery,
    joined,
    legend,
    note,
    page,
    slider,
    table,
)
from geothresh.raster.pictures import page_picture

# The most maps drawn on a page, with two pictures each, for all base networks together.
_MOST_MAPS = 24
_MOST_BYTES = 60_000


def evaluate_page(report: Report, galleries: Mapping[str, Gallery]) -> str:
    """Draw the report page of an evaluation: HTML in one file, under 5 MB.

    Args:
        report: the figures.
        galleries: the galleries of maps, by the name of their base network.
    """
    by = "not refined" if report.model is None else f"refined with {report.model}"
    n = sum(source.rows[0].summary.n for source in report.sources)
    lead = f"{n:,} {report.sources[0].unit}s, {by}."
    if len(report.sources) == 1:
        lead = " ".join(report.sources[0].sentences()[:1])
    most = max(1, min(MOST, _MOST_MAPS // (2 * len(report.sources))))
    sections = [
        Section(
            key=f"source-{k}",
            title=source.title(),
            body=_source(source, galleries[source.name], most),
        )
        for k, source in enumerate(report.sources, start=1)
    ]
    about = {
        "model": report.model or "none",
        "model sha256": report.digest or "none",
        "calibration": report.calibration or "none",
        "threshold": report.threshold,
        "keep threshold": "none" if report.keep_threshold is None else report.keep_threshold,
        "test-time augmentation": report.tta,
        "regions of the bound": f"{report.patch} x {report.patch} pixels",
        "seconds": f"{report.seconds:.1f}",
    }
    made = joined([note(report.notes()), facts(about)])
    sections.append(Section(key="made", title="How it was made", body=made))
    return page("Evaluation: confidences cut and refined", lead, sections)


def _source(source: SourceReport, kept: Gallery, most: int) -> Html:
    parts = [*map(note, source.sentences()), _table(source)]
    if source.verdict is not None:
        label = f"IoU gained by each {source.unit} of {source.name}, in points"
        gains = [
            Bar(name=str(row["id"]), value=100 * (row["refined"]["iou"] - row["cut"]["iou"]))
            for row in source.maps
        ]
        parts.append(_heading(f"What each {source.unit} gains"))
        parts.append(bars(gains, label=label, axis="points"))
    colours = legend(
        {
            "rightly found": FOREGROUND,
            "missed": ADDED,
            "falsely found": REMOVED,
            "no data": NO_DATA,
        }
    )
    most = min(most, -(-source.rows[0].summary.n // 2))
    for name, shown in (("best", kept.best(most)), ("worst", kept.worst(most))):
        if shown:
            drawn = gallery([_drawn(exhibit, source.unit) for exhibit in shown])
            parts += [_heading(f"The {name} {source.unit}s"), colours, drawn]
    parts += [_heading("Reliability"), _reliability(source, kept)]
    return joined(parts)


def _heading(text: str) -> Html:
    return fill("<h3>$text</h3>", text=text)


def _table(source: SourceReport) -> Html:
    found = source.table_text()
    groups = [name for name, count in found.groups for _ in range(count)]
    headings = ["points"] + [
        f"{group}, {above} {below}"
        for group, (above, below) in zip(groups, found.headings, strict=True)
    ]
    rows = [(title, *line) for title, line in found.lines.items()]
    rows += [(f"{twin}: as {line}",) for twin, line in found.twins.items()]
    return table(headings, rows, caption=f"Scores of {source.name}")


def _drawn(exhibit: Exhibit, unit: str) -> Html:
    first = page_picture(
        exhibit.first, f"Errors of the cut of {exhibit.id}", most_bytes=_MOST_BYTES
    )
    if exhibit.second is None or exhibit.after is None:
        return figure(
            first, fill("<b>$id</b><br>IoU $iou", id=exhibit.id, iou=f"{100 * exhibit.before:.1f}")
        )
    second = page_picture(
        exhibit.second, f"Errors of the refined mask of {exhibit.id}", most_bytes=_MOST_BYTES
    )
    return slider(
        first, second, label=f"{unit} {exhibit.id}", before="cut at 0.5", after="refined",
        caption=fill(
            "<b>$id</b><br>IoU $before to $after ($gain)", id=exhibit.id,
            before=f"{100 * exhibit.before:.1f}", after=f"{100 * exhibit.after:.1f}",
            gain=f"{100 * exhibit.merit:+.1f}",
        ),
    )  # fmt: skip


def _reliability(source: SourceReport, kept: Gallery) -> Html:
    named = [("input", kept.input)]
    if source.verdict is not None:
        named.append(("refined", kept.refined))
    curves = [
        Curve(
            name=name,
            points=[(mean, share) for mean, share, _ in reliability.points()],
            counts=[count for *_, count in reliability.points()],
        )
        for name, reliability in named
    ]
    errors = "; ".join(f"{name} {100 * found.error:.1f}" for name, found in named)
    explanation = note(
        "On the dashed line a confidence is what it says: of pixels of 0.7, 70 % are foreground. "
        f"Blue: the input{'; orange: refined' if len(named) > 1 else ''}. Expected calibration "
        f"error in points: {errors}."
    )
    label = f"Reliability of {source.name}"
    return joined(
        [diagonal(curves, label=label, across="mean confidence", up="foreground"), explanation]
    )
