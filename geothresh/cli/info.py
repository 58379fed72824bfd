"""``geothresh info``: show the metadata of confidence rasters and how they would be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import one_line, print_result
from geothresh.errors import InputError, number_of
from geothresh.options import READ_WHOLE, Reading

if TYPE_CHECKING:
    from geothresh.many.overview import ManyInfo
    from geothresh.run.scene_info import SceneInfo

_GAP = "  "
_HEADING = ("file", "size", "type", "read as", "pixel", "data", "fits")


@click.command(
    cls=HelpfulCommand,
    examples={
        "How a scene would be read": "geothresh info scene.tif",
        "The same as JSON, for values from 0 to 100": (
            "geothresh info scene.tif --scale 100 --json"
        ),
        "A table of all scenes in a directory": "geothresh info tiles",
    },
)
@click.argument("scene", nargs=-1, required=True, metavar="SCENE...")
@options.model
@options_of(Reading, "reading", only=READ_WHOLE)
@options.progress
@options.as_json
@options.common
def info(
    scene: tuple[str, ...], model: str, reading: Reading, progress: str, as_json: bool
) -> None:
    """Show what SCENE is and how `geothresh refine` would read it.

    It prints the size, type, blocks and georeference, the size of a pixel on the ground, where data
    is missing, how values become confidences, and whether the model is made for such pixels. It
    takes the options with which `refine` reads a scene.

    For several SCENEs, a directory, @list.txt or a tile index (.gti.gpkg) it prints a table with a
    line for each file, the number of pixel grids, and which files cannot be read and why. If there
    are such files, the exit code is 3.
    """
    from geothresh.api.info import info as look
    from geothresh.run.scene_info import SceneInfo

    with reporting(progress, "info", "file") as report:
        named = scene[0] if len(scene) == 1 else scene
        found = look(named, reading, model=model, progress=report)
    facts = found.as_dict()
    if as_json:
        options.print_json(facts)
    elif not isinstance(found, SceneInfo):
        for line in [*_table(found.files), *_totals(found)]:
            print_result(line)
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print_result(f"{name.replace('_', ' '):{width}}  {_shown(name, value, facts)}")
    if not isinstance(found, SceneInfo) and found.bad:
        raise click.exceptions.Exit(InputError.exit_code)


def _table(files: Sequence[SceneInfo]) -> list[str]:
    """A table with a line for each file; empty without files."""
    if not files:
        return []
    rows = [_HEADING, *map(_row, files)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(scene: SceneInfo) -> tuple[str, ...]:
    from geothresh.geobox import PixelSize

    x_y = scene.pixel_size
    return (
        one_line(scene.path),
        f"{scene.width} x {scene.height}",
        scene.dtype,
        scene.scaling,
        "not known" if x_y is None else PixelSize(x=x_y[0], y=x_y[1]).text,
        f"{100 * scene.data_share:.4g} %",
        _fits(scene.fits),
    )


def _totals(found: ManyInfo) -> list[str]:
    """Totals, files that do not fit the model, and files that cannot be read."""
    files = found.files
    lines = [
        f"{number_of(len(files), 'file')}, {found.pixels:,} pixels, "
        f"{number_of(found.grids, 'pixel grid')}"
    ]
    if found.unplaced:
        without = number_of(found.unplaced, "file")
        lines.append(f"{without} without a transform, and so without a place beside others")
    unfit = [scene for scene in files if scene.fits is False]
    if unfit:
        lines.append(
            f"{number_of(len(unfit), 'file')} unlike what the model {unfit[0].model} reads, first "
            f"{one_line(unfit[0].path)}: {unfit[0].fit}"
        )
    if found.bad:
        lines.append(f"{number_of(len(found.bad), 'file')} that cannot be read:")
        lines += [f"  {one_line(bad.reason)}" for bad in found.bad]
    return lines


def _fits(fits: bool | None) -> str:
    return "not known" if fits is None else "yes" if fits else "no"


def _shown(name: str, value: Any, facts: Mapping[str, Any]) -> str:
    """Format a value for people."""
    match name:
        case "transform":
            return ", ".join(f"{number:.12g}" for number in value)
        case "pixel_size" if value is not None:
            return " x ".join(f"{side:.3g}" for side in value) + " m on the ground"
        case "nodata" if facts["dtype"].startswith("float"):
            number = f"{value}, and " if isinstance(value, float) else ""
            return f"{number}NaN and infinities"
        case "data_share":
            return f"{100 * value:.4g} % of the pixels that were looked at"
        case "fits":
            return _fits(value)
    return "none" if value is None else str(value)
