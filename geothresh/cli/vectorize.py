"""``geothresh vectorize``: turn a mask into polygons or centrelines."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.fields import Command, option_of, options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import ADDRESS
from geothresh.errors import UsageError, number_of
from geothresh.fields import default_of, known
from geothresh.options import READ_WHOLE, Reading
from geothresh.vector.options import Centerlines, Foreground, Polygons, VectorWriting

_KINDS: dict[str, type[Polygons] | type[Centerlines]] = {
    kind.kind: kind for kind in (Polygons, Centerlines)
}


def _drawing_options(command: Command) -> Command:
    """Add ``--kind`` and the options of each kind; the command receives them as ``draw``."""
    every = {name: kind for kind in _KINDS.values() for name in known(kind)}

    @wraps(command)
    def drawing(*arguments: Any, kind: str, **values: Any) -> Any:
        given = {name: values.pop(name) for name in every}
        wanted = _KINDS[kind]
        own = {name: value for name, value in given.items() if name in known(wanted)}
        for name, home in every.items():
            if name not in own and given[name] != default_of(home, name):
                raise UsageError(
                    f"`{name}` is not for {kind}; leave it out, or choose `kind={home.kind}`"
                )
        return command(*arguments, draw=wanted(**own), **values)

    decorated: Command = drawing
    for name, home in reversed(every.items()):
        decorated = option_of(home, name)(decorated)
    return click.option(
        "--kind", type=click.Choice(list(_KINDS)), default=Polygons.kind, show_default=True,
        help="What the foreground is drawn as.",
    )(decorated)  # fmt: skip


@click.command(
    cls=HelpfulCommand,
    common=("output", "kind", "confidence", "threshold", "min_area", "simplify", "overwrite"),
    examples={
        "Polygons beside the mask, scene_mask.gpkg": "geothresh vectorize scene_mask.tif",
        "Polygons of at least 50 m2, with fewer corners and their confidence": (
            "geothresh vectorize mask.tif -o roads.gpkg --min-area 50 --simplify 1 \\\n"
            "    --confidence refined.tif"
        ),
        "Roads as a network of lines with nodes, gaps of up to 30 m bridged": (
            "geothresh vectorize mask.tif -o lines.gpkg --kind centerlines --nodes \\\n"
            "    --bridge-gaps 30 --confidence refined.tif"
        ),
        "The outputs of `geothresh refine --output-dir refined`, as one network": (
            "geothresh vectorize refined/mask.gti.gpkg -o roads.gpkg"
        ),
    },
)
@click.argument("mask", nargs=-1, required=True, type=ADDRESS, metavar="MASK...")
@options.output
@click.option(
    "--confidence", type=ADDRESS, metavar="FILE",
    help="Confidence raster on the same grid, or several as for MASK; each feature gets its mean, "
    "minimum and tenth percentile.",
)  # fmt: skip
@options_of(Foreground, "foreground")
@_drawing_options
@options_of(
    Reading, "reading", only=READ_WHOLE,
    help={"bidx": "Band with the mask, counted from 1; needed where there are several."},
)  # fmt: skip
@options_of(VectorWriting, "writing")
@options.progress
@options.as_json
@options.common
def vectorize(
    mask: tuple[Path, ...],
    output: Path | None,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Turn the foreground of MASK into polygons or centrelines.

    MASK is a GeoTIFF of 0 (background), 1 (foreground) and 255 (nodata), as `geothresh refine`
    writes it. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is foreground.
    Confidences are accepted with --threshold.

    Several MASKs on one pixel grid, a directory, @list.txt and a tile index (.gti.gpkg) are read as
    one, so that polygons and lines are whole across their borders; name the output with -o.

    The output is MASK's name with .gpkg beside it, or the file named with -o (.gpkg, .fgb,
    .geojson, .parquet or .shp); its path is printed. Each polygon has area_m2, perimeter_m,
    compactness, and rect_length_m, rect_width_m and orientation_deg of its rotated rectangle. Each
    centreline has length_m, width_m and width_min_m. Where there is a confidence (--confidence, or
    MASK itself with --threshold) all features have confidence_mean, _min and _p10.

    On a geographic CRS lengths and areas are geodesic. Without a CRS the attributes are area_units2
    and so on, with --allow-pixel-coords area_px2 and so on, and lengths and areas in options are in
    these units.
    """
    from geothresh.api.vectorize import vectorize as run

    with reporting(progress, "vectorize", unit="part") as report:
        masks = mask[0] if len(mask) == 1 else mask
        result = run(masks, output, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.output)
    if options.verbosity() < 0:
        return
    left_out = f", {number_of(result.left_out, 'smaller one')} left out" if result.left_out else ""
    if result.kind == "polygons":
        found = f"{number_of(result.features, 'polygon')}, {result.area:,.1f} {result.area_unit}"
    else:
        found = (
            f"{number_of(result.features, 'line')}, {result.length:,.1f} {result.length_unit}, "
            + number_of(result.nodes or 0, "node")
            + (f", {number_of(result.bridges, 'gap')} bridged" if result.bridges else "")
        )
    layers = (
        f"layer {result.layer}"
        if result.nodes_layer is None
        else (f"layers {result.layer} and {result.nodes_layer}")
    )
    print_note(f"{found}{left_out}; {layers}, {result.crs or 'no CRS'}; {result.seconds:.1f} s")
