"""Draw charts as SVG, each with an accessible table of its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geothresh.pages.html import Html, fill, joined
from geothresh.pages.parts import hidden, table

# Margins for numbers and names of axes.
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 40
# With more bars than this, there are no tooltips and no table.
_MOST_NAMED = 400
_NUMBERS = "The same in numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A histogram: counts of equal bins of [0, 1]."""

    name: str
    counts: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A named number."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve through points from 0 to 1 in both directions."""

    name: str
    points: Sequence[tuple[float, float]]
    counts: Sequence[int]
    """Number of pixels of each point."""


@dataclass(frozen=True, slots=True)
class _Plot:
    """The plotting area of a chart, in SVG units."""

    width: float = 572
    height: float = 208

    def x(self, share: float) -> float:
        """Coordinate of a share of the width."""
        return _LEFT + share * self.width

    def y(self, share: float) -> float:
        """Coordinate of a share of the height, from below."""
        return _TOP + (1 - share) * self.height


_WIDE, _SQUARE = _Plot(), _Plot(320, 320)


def histogram(first: Steps, second: Steps | None = None, *, label: str, axis: str) -> Html:
    """Draw histograms of pixels on a logarithmic axis, as most of a scene is near 0.

    Args:
        first: shown as bars.
        second: shown as a line over them; None = not shown.
        label: what the chart shows.
        axis: name of the horizontal axis.
    """
    drawn = [first] if second is None else [first, second]
    shapes = [_steps(first, filled=True)]
    if second is not None:
        shapes.append(_steps(second, filled=False))
    ticks = [_ticks_across(_WIDE)]
    ticks += [_tick_up(_WIDE, _log_share(p), f"{p:g}") for p in (0.01, 0.1, 1, 10, 100)]
    names = _axis_names(_WIDE, axis, "% of pixels")
    rows = [
        (f"{k / len(first.counts):.2f} to {(k + 1) / len(first.counts):.2f}",
         *(f"{_percent(steps, k):.3f}" for steps in drawn))
        for k in range(len(first.counts))
    ]  # fmt: skip
    numbers = table([axis, *(f"{s.name}, %" for s in drawn)], rows, caption=label)
    chart = _chart(_WIDE, label, joined([*ticks, *shapes, names]))
    return joined([chart, hidden(_NUMBERS, numbers)])


def bars(values: Sequence[Bar], *, label: str, axis: str) -> Html:
    """Draw bars from the greatest to the least value, negative ones in another colour."""
    ordered = sorted(values, key=lambda bar: -bar.value)
    high = max(0.0, *(bar.value for bar in ordered))
    low = min(0.0, *(bar.value for bar in ordered))
    span = (high - low) or 1.0
    base, step = -low / span, 1 / len(ordered)
    named = len(ordered) <= _MOST_NAMED
    shapes = []
    for k, bar in enumerate(ordered):
        share = (bar.value - low) / span
        title = fill("<title>$name: $value</title>", name=bar.name, value=f"{bar.value:+.2f}")
        height = abs(share - base) * _WIDE.height
        shapes.append(fill(
            '<rect class="$kind" x="$x" y="$y" width="$w" height="$h">$title</rect>',
            kind="gain" if bar.value >= 0 else "loss", x=f"{_WIDE.x(k * step):.2f}",
            y=f"{_WIDE.y(max(share, base)):.2f}", w=f"{step * 0.85 * _WIDE.width:.2f}",
            h=f"{max(height, 0.5):.2f}", title=title if named else "",
        ))  # fmt: skip
    ticks = [
        _tick_up(_WIDE, (value - low) / span, f"{value:+.1f}") for value in sorted({low, 0.0, high})
    ]
    drawn = [_chart(_WIDE, label, joined([*ticks, *shapes, _axis_names(_WIDE, "", axis)]))]
    if named:
        rows = [(bar.name, f"{bar.value:+.2f}") for bar in ordered]
        drawn.append(hidden(_NUMBERS, table(["map", axis], rows, caption=label)))
    return joined(drawn)


def diagonal(curves: Sequence[Curve], *, label: str, across: str, up: str) -> Html:
    """Draw curves in a unit square with its diagonal, for reliability diagrams."""
    x, y = _SQUARE.x, _SQUARE.y
    ideal = '<path class="ideal" d="M$x0 $y0 L$x1 $y1"/>'
    shapes = [fill(ideal, x0=x(0), y0=y(0), x1=x(1), y1=y(1))]
    for kind, line, curve in zip(("first", "second"), ("line", "second"), curves, strict=False):
        path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in curve.points)
        shapes.append(fill('<path class="$kind" d="$path"/>', path=path, kind=line))
        point = '<circle class="point $kind" cx="$x" cy="$y" r="3.5"/>'
        shapes += [
            fill(point, kind=kind, x=f"{x(a):.1f}", y=f"{y(b):.1f}") for a, b in curve.points
        ]
    ticks = [_ticks_across(_SQUARE)]
    ticks += [_tick_up(_SQUARE, share, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    rows = [
        (curve.name, f"{a:.3f}", f"{b:.3f}", f"{count:,}")
        for curve in curves
        for (a, b), count in zip(curve.points, curve.counts, strict=True)
    ]
    numbers = table(["", across, up, "pixels"], rows, caption=label)
    chart = _chart(_SQUARE, label, joined([*ticks, *shapes, _axis_names(_SQUARE, across, up)]))
    return joined([chart, hidden(_NUMBERS, numbers)])


def _chart(plot: _Plot, label: str, inside: Html) -> Html:
    frame = fill(
        '<path class="axis" d="M$l $t V$b H$r"/>', l=_LEFT, t=_TOP, b=plot.y(0), r=plot.x(1)
    )
    return fill(
        '<svg class="chart" viewBox="0 0 $w $h" width="$w" role="img" aria-label="$label">'
        "$frame$inside</svg>",
        w=plot.x(1) + _RIGHT, h=plot.y(0) + _BOTTOM, label=label, frame=frame, inside=inside,
    )  # fmt: skip


def _log_share(percent: float) -> float:
    """Height of a percentage on an axis of four decades, 0.01 % to 100 %."""
    return max(0.0, (math.log10(max(percent, 1e-9)) + 2) / 4)


def _percent(steps: Steps, k: int) -> float:
    return 100 * steps.counts[k] / max(1, sum(steps.counts))


def _steps(steps: Steps, *, filled: bool) -> Html:
    n, plot = len(steps.counts), _WIDE
    corners = []
    for k in range(n):
        height = plot.y(_log_share(_percent(steps, k)))
        corners += [f"{plot.x(side / n):.1f} {height:.1f}" for side in (k, k + 1)]
    path = "L".join(corners)
    if filled:
        path = f"{plot.x(0)} {plot.y(0)}L{path}L{plot.x(1)} {plot.y(0)}Z"
    return fill('<path class="$kind" d="M$path"><title>$name</title></path>', path=path,
                kind="first" if filled else "second", name=steps.name)  # fmt: skip


def _ticks_across(plot: _Plot) -> Html:
    return joined(
        fill('<text x="$x" y="$y" text-anchor="middle">$text</text>',
             x=f"{plot.x(share):.1f}", y=plot.y(0) + 16, text=f"{share:g}")
        for share in (0, 0.25, 0.5, 0.75, 1)
    )  # fmt: skip


def _tick_up(plot: _Plot, share: float, text: str) -> Html:
    return fill(
        '<path class="axis" d="M$l $y H$r"/><text x="$x" y="$b" text-anchor="end">$text</text>',
        l=_LEFT, r=plot.x(1), y=f"{plot.y(share):.1f}", x=_LEFT - 6,
        b=f"{plot.y(share) + 4:.1f}", text=text,
    )  # fmt: skip


def _axis_names(plot: _Plot, across: str, up: str) -> Html:
    return fill(
        '<text x="$x" y="$y" text-anchor="middle">$across</text>'
        '<text transform="translate(12 $m) rotate(-90)" text-anchor="middle">$up</text>',
        x=plot.x(0.5), y=plot.y(0) + 34, across=across, m=plot.y(0.5), up=up,
    )  # fmt: skip
