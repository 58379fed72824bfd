"""``geothresh compare``: write the changes from one mask to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_note, print_result
from geothresh.options import WRITE_IN_ONE_GO, Writing


@click.command(
    cls=HelpfulCommand,
    common=("output", "overwrite"),
    examples={
        "What changed, as new_mask_changes.tif": "geothresh compare old_mask.tif new_mask.tif",
        "Print the counts as JSON for a program": (
            "geothresh compare old_mask.tif new_mask.tif -o changes.tif --json"
        ),
    },
)
@click.argument("before")
@click.argument("after")
@options.output
@options_of(
    Writing,
    "writing",
    only=WRITE_IN_ONE_GO,
)
@options.progress
@options.as_json
@options.common
def compare(
    before: str,
    after: str,
    output: Path | None,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Write what changed from the mask BEFORE to the mask AFTER.

    Both are masks on the same grid, as `geothresh refine` writes them: 0 background, 1 foreground,
    255 nodata. Where only 0 and 255 occur, 255 is foreground; 0 is background also where it is
    tagged as nodata.

    The output is beside AFTER, with _changes.tif at the end of its name, or the file named with
    -o: 0 unchanged, 1 became foreground, 2 became background, 255 nodata in either mask. Its path
    is printed.
    """
    from geothresh.api.compare import compare as run

    with reporting(progress, "compare", unit="part") as report:
        result = run(before, after, output, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.output)
    if options.verbosity() >= 0:
        print_note(
            f"foreground {result.foreground_before:,} -> {result.foreground_after:,} pixels: "
            f"{result.added:,} added, {result.removed:,} removed, "
            f"{100 * result.changed_share:.2f} % of {result.valid_pixels:,} with data changed; "
            f"IoU {100 * result.iou:.2f}"
        )
