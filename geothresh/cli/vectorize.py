"""``geothresh vectorize``: a mask becomes polygons or centrelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.parents import parents
from geothresh.cli.progress import progress_bar
from geothresh.cli.terminal import give, say
from geothresh.cli.values import PATH


@click.command()
@click.argument("mask", type=PATH)
@options.output
@click.option(
    "--kind", default="polygons", show_default=True,
    type=click.Choice(["polygons", "centerlines"]), help="What to draw of the foreground.",
)  # fmt: skip
@click.option(
    "--confidence", type=PATH, metavar="FILE",
    help="Raster on the same grid; adds its mean, minimum and tenth percentile.",
)  # fmt: skip
@click.option(
    "--threshold", type=click.FloatRange(0, 1),
    help="MASK holds confidences: foreground is where they are at least this.",
)  # fmt: skip
@click.option(
    "-b", "--bidx", type=click.IntRange(min=1),
    help="Band with the mask, counted from 1; needed where there are several.",
)  # fmt: skip
@options.scale
@options.nodata
@click.option("--layer", metavar="NAME", help="Layer to write.  [default: made from MASK's name]")
@click.option(
    "--sieve", default=0, show_default=True, type=click.IntRange(min=0), metavar="N",
    help="First take out regions of fewer than N pixels, then fill holes of fewer than N.",
)  # fmt: skip
@click.option(
    "--fill-holes", default=0.0, show_default=True, type=click.FloatRange(min=0), metavar="M2",
    help="First fill holes smaller than this many square metres.",
)  # fmt: skip
@click.option(
    "--min-area", default=0.0, show_default=True, type=click.FloatRange(min=0), metavar="M2",
    help="Leave out polygons smaller than this many square metres.",
)  # fmt: skip
@click.option(
    "--min-length", default=0.0, show_default=True, type=click.FloatRange(min=0), metavar="M",
    help="Leave out centrelines shorter than this many metres that do not connect others.",
)  # fmt: skip
@click.option(
    "--spur", type=click.FloatRange(min=0), metavar="WIDTHS",
    help="Take off centrelines that end and are shorter than this many widths of the road where "
    "they begin; 0 keeps all.  [default: 1]",
)  # fmt: skip
@click.option(
    "--smooth", is_flag=True,
    help="Take the staircases out of polygons, which move by at most half a pixel; lines always "
    "are smooth.",
)  # fmt: skip
@click.option(
    "--simplify", default=0.0, show_default=True, type=click.FloatRange(min=0), metavar="M",
    help="Leave out corners of polygons that take or give less than this many metres squared, and "
    "of lines where that moves them by less than this many metres.",
)  # fmt: skip
@click.option(
    "--bridge-gaps", default=0.0, show_default=True, type=click.FloatRange(min=0), metavar="M",
    help="Join ends of centrelines that lie opposite to each other within this many metres, where "
    "the confidence says that the road goes on.",
)  # fmt: skip
@click.option(
    "--bridge-confidence", type=click.FloatRange(0, 1), metavar="C",
    help="What the confidence never falls below on the way over a gap.  [default: 0.1]",
)  # fmt: skip
@click.option(
    "--nodes", is_flag=True,
    help="Also write where centrelines end and meet, as a layer NAME_nodes.",
)  # fmt: skip
@click.option(
    "--allow-pixel-coords", is_flag=True,
    help="Write columns and rows where MASK has no georeference.",
)  # fmt: skip
@click.option(
    "--format", type=click.Choice(["gpkg", "flatgeobuf", "geojson", "geoparquet", "shapefile"]),
    help="Of the output.  [default: what its ending says]",
)  # fmt: skip
@click.option(
    "--dst-crs", metavar="CRS",
    help="CRS of the output, such as EPSG:4326.  [default: MASK's own]",
)  # fmt: skip
@click.option(
    "--append", is_flag=True, help="Add the layer to an output that exists; others stay in it."
)
@click.option("--overwrite-layer", is_flag=True, help="The same, and replace a layer of that name.")
@options.allow_vrt
@options.overwrite
@parents
@options.progress
@options.as_json
@options.common
def vectorize(
    mask: Path,
    output: Path | None,
    as_json: bool,
    progress: bool | None,
    **arguments: Any,
) -> None:
    """Turn the foreground of MASK into polygons or centrelines.

    MASK is a GeoTIFF of 0 (background), 1 (foreground) and 255 (nodata), as `geothresh refine`
    writes it. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is foreground.
    Confidences are accepted with --threshold.

    The output is MASK's name with .gpkg beside it, or the file named with -o (.gpkg, .fgb,
    .geojson, .parquet or .shp); its path is printed. Each polygon has area_m2, perimeter_m,
    compactness, and length_m, width_m and orientation_deg of its rotated rectangle; each
    centreline length_m, width_m and width_min_m. Where there is a confidence, --confidence or MASK
    itself with --threshold, all have confidence_mean, _min and _p10. On a geographic CRS lengths
    and areas are geodesic. Without a CRS the attributes are area_units2 and so on, with
    --allow-pixel-coords area_px2 and so on, and lengths and areas in options are in these units.
    """
    from geothresh.api.vectorize import vectorize as run

    with progress_bar(progress, "vectorize", unit="part") as report:
        result = run(mask, output, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    give(result.output)
    if options.verbosity() < 0:
        return
    left_out = f", {result.left_out} smaller ones left out" if result.left_out else ""
    if result.kind == "polygons":
        found = f"{result.features} polygons, {result.area:,.1f} {result.area_unit}"
    else:
        found = (
            f"{result.features} lines, {result.length:,.1f} {result.length_unit}, "
            f"{result.nodes} nodes" + (f", {result.bridges} gaps bridged" if result.bridges else "")
        )
    layers = (
        f"layer {result.layer}"
        if result.nodes_layer is None
        else (f"layers {result.layer} and {result.nodes_layer}")
    )
    say(f"{found}{left_out}; {layers}, {result.crs or 'no CRS'}; {result.seconds:.1f} s")
