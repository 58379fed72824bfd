"""``geothresh demo``: refine and vectorise the scene that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geothresh.cli import options
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_result
from geothresh.cli.values import PATH
from geothresh.errors import number_of

if TYPE_CHECKING:
    from geothresh.api.demo import DemoResult


@click.command(
    cls=HelpfulCommand,
    examples={
        "Write the results into another folder": "geothresh demo -o demo",
    },
)
@click.option(
    "-o", "--output", type=PATH, default=Path("geothresh-demo"), show_default=True,
    help="Directory for the results; made if missing.",
)  # fmt: skip
@options.model
@options.overwrite
@options.as_json
@options.progress
@options.common
def demo(output: Path, model: str, overwrite: bool, as_json: bool, progress: str) -> None:
    """Refine and vectorise the scene that ships with geothresh, and print what changed."""
    from geothresh.api.demo import demo as run

    with reporting(progress, "refine") as report:
        result = run(output, model=model, overwrite=overwrite, progress=report)
    if as_json:
        options.print_json(result.as_dict())
    else:
        print_result(_table(result))


def _table(result: DemoResult) -> str:
    """The table of what changed, and the files to open."""
    pairs = [
        ("road pixels", result.road_before, result.road_after),
        ("connected pieces", result.pieces_before, result.pieces_after),
    ]
    lines = [f"{'':<18}{'cut at 0.5':>12}{'refined':>12}"]
    lines += [f"{name:<18}{before:>12,}{after:>12,}" for name, before, after in pairs]
    changed = result.removed + result.added
    lines += [
        "",
        f"{changed:,} of {result.valid_pixels:,} pixels changed: "
        f"{result.removed:,} removed, {result.added:,} added.",
        f"{number_of(result.polygons, 'polygon')}; {number_of(result.lines, 'centreline')} of "
        f"{result.lines_length / 1000:.1f} km, {number_of(result.bridges, 'gap')} bridged.",
        f"{result.seconds:.1f} s with the model {result.model}.",
        "",
        f"Look at {result.picture}",
        f"Open in QGIS: {result.project}, with all layers; or {result.mask}, {result.vector} and "
        f"{result.centerlines} in any GIS",
    ]
    return "\n".join(lines)
