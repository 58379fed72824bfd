"""``geothresh evaluate``: what refinement is worth on maps whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.progress import progress_bar
from geothresh.cli.terminal import give, say

_VECTORS = (".gpkg", ".shp", ".geojson", ".json", ".fgb")
# What each kind of DATA has alone; what is in none of these sets is for all of them, or for both
# kinds of confidences.
_FOR_LINES = {"layer", "truth_layer", "buffer"}
_FOR_RASTERS = {"bidx", "scale", "nodata"}
_FOR_FOLDERS = {"confidence", "ids", "split", "skip_unpaired"}
_FOR_ALL = {"data", "mask", "as_json", "progress", "verbose", "quiet", "debug", "help"}
_FOR_MODELS = {
    "model", "tta", "match_resolution", "ground_sample_distance", "threshold", "tile_size",
    "overlap", "blend", "batch_size", "device", "precision", "backend",
}  # fmt: skip


@click.command()
@click.argument("data", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--confidence", multiple=True, type=options.PATH, metavar="DIR",
    help="Folder of confidence maps, one per base network; may be repeated.  "
    "[default: DATA/confidence]",
)  # fmt: skip
@click.option(
    "--mask", type=options.PATH, metavar="FILE",
    help="DATA is one confidence raster, and this is its truth: 1, 0, and 255 for no data. Or DATA "
    "is a file of lines, and this the truth, as lines or as a mask whose centrelines are taken.",
)  # fmt: skip
@click.option("--layer", metavar="NAME", help="Layer of DATA, of lines.")
@click.option("--truth-layer", metavar="NAME", help="Layer of the truth, of lines.")
@click.option(
    "--buffer", type=float, metavar="M",
    help="Metres to each side within which a line is right.  [default: 3]",
)  # fmt: skip
@options.model
@options.tta
@click.option("--no-refine", is_flag=True, help="Score the confidences only; needs no model.")
@click.option(
    "--ids", type=options.PATH, metavar="FILE",
    help="Use these ids only: one a line, or the split manifest that `geothresh train` wrote.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["train", "validation"]),
    help="Which side of the split manifest that --ids names.  [default: validation]",
)  # fmt: skip
@click.option(
    "--skip-unpaired", is_flag=True, help="Leave out maps and masks that have no partner."
)
@options.match_resolution
@click.option(
    "--ground-sample-distance", "--gsd", type=options.SizeRange(), metavar="M|MIN,MAX",
    multiple=True,
    help="Size of a pixel of DATA on the ground in metres, or the least and the greatest, of which "
    "the middle counts; for --match-resolution; may be repeated, one for each DATA. A raster tells "
    "it by itself.",
)  # fmt: skip
@options.threshold
@click.option(
    "--patch", type=click.IntRange(min=1), metavar="P",
    help="Side of the regions of the bound, in pixels.  [default: the model's, else 64]",
)  # fmt: skip
@click.option(
    "--boundary-metric", default="chessboard", show_default=True,
    type=click.Choice(["chessboard", "cityblock"]),
    help="Distance of Boundary IoU: erosion by squares, as its authors do, or by crosses.",
)  # fmt: skip
@click.option(
    "--figures", type=options.PATH, metavar="DIR",
    help="Draw each map into DIR/NETWORK/ID.png: confidence, masks, and errors (missed blue, "
    "falsely found red).",
)  # fmt: skip
@click.option("-o", "--output", type=options.PATH, metavar="FILE", help="Write the report as JSON.")
@options.overwrite
@options.bidx
@options.scale
@options.nodata
@options.tile_size
@options.overlap
@options.blend
@options.batch_size
@options.device
@options.precision
@options.backend
@options.progress
@options.as_json
@options.common
def evaluate(
    data: tuple[Path, ...],
    model: str,
    no_refine: bool,
    ground_sample_distance: tuple[tuple[float, float], ...],
    as_json: bool,
    progress: bool | None,
    layer: str | None,
    truth_layer: str | None,
    buffer: float | None,
    **arguments: Any,
) -> None:
    """Compare confidences cut at 0.5, at the best thresholds, and refined, with the truth.

    DATA is a folder with masks named ID_mask.png, or with the folders mask/ and confidence/; or,
    with --mask, one confidence raster. Several folders may be given. Options for bands, scale and
    nodata are for a raster; it is scored in cells of 512 x 512 pixels, each of which counts as a
    map, with Boundary IoU within 15 pixels.

    The table, one per folder of confidence maps, holds in hundredths: miou (foreground IoU,
    mean over maps), boundary (Boundary IoU within 2 % of the diagonal, mean over maps), pooled
    (foreground IoU of all pixels together), two-class (mean of foreground and background IoU of
    all pixels); and MAE, the mean of |confidence - truth|. Rows with * are chosen with the truth
    of these very maps at hand: the best fixed cuts and the bound of region-specific thresholds.

    Or DATA is a GeoPackage, shapefile, GeoJSON or FlatGeobuf of lines, and --mask the true ones:
    then completeness, correctness and quality within --buffer are printed, and how the lines hang
    together.
    """
    kind = _kind(data[0], arguments["mask"])
    _refuse_others(kind)
    if kind == "lines":
        _lines(data, arguments["mask"], layer, truth_layer, buffer, as_json=as_json)
        return
    if no_refine:
        _refuse(_FOR_MODELS, "is for refining, and --no-refine refines nothing")
    from geothresh.api.evaluate import evaluate as run

    # The middle of a range, as `geothresh train` takes it.
    sizes = [math.sqrt(least * most) for least, most in ground_sample_distance]
    unit = "map" if arguments["mask"] is None else "step"
    with progress_bar(progress, "evaluate", unit=unit) as report:
        result = run(
            data,
            model=None if no_refine else model,
            progress=report,
            ground_sample_distance=sizes,
            **arguments,
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    give(result.table())
    if options.verbosity() >= 0:
        by = "not refined" if result.model is None else f"refined with {result.model}"
        by += "" if result.tta == "none" else f", TTA {result.tta}"
        say(f"{by}; {result.seconds:.1f} s")


def _kind(data: Path, mask: Path | None) -> str | None:
    """What DATA is, for what its options may be; None where there is nothing to tell it by."""
    if data.suffix.lower() in _VECTORS:
        return "lines"
    if data.is_dir():
        return "folders"
    return "raster" if mask is not None or data.is_file() else None


def _refuse_others(kind: str | None) -> None:
    """Refuse options that do nothing for this kind of DATA, and would be thought to."""
    if kind == "lines":
        every = {param.name or "" for param in click.get_current_context().command.params}
        _refuse(every - _FOR_ALL - _FOR_LINES, "is for rasters and folders of maps")
        return
    _refuse(_FOR_LINES, "is for lines")
    if kind == "folders":
        _refuse(_FOR_RASTERS, "is for a raster, with --mask")
    elif kind == "raster":
        _refuse(_FOR_FOLDERS, "is for folders of maps")


def _refuse(names: set[str], why: str) -> None:
    """Raise a usage error for the first of these options that is on the command line."""
    for param in click.get_current_context().command.params:
        if param.name in names and options.was_given(param.name):
            raise click.UsageError(f"{param.opts[-1]} {why}; leave it out")


def _lines(
    data: tuple[Path, ...],
    truth: Path | None,
    layer: str | None,
    truth_layer: str | None,
    buffer: float | None,
    *,
    as_json: bool,
) -> None:
    from geothresh.api.lines import BUFFER, evaluate_lines

    if len(data) > 1:
        raise click.UsageError(f"{data[1]}: one file of lines is evaluated at a time")
    if truth is None:
        raise click.UsageError(f"{data[0]}: say with --mask what the true lines are")
    report = evaluate_lines(
        data[0], truth, layer=layer, truth_layer=truth_layer,
        buffer=BUFFER if buffer is None else buffer,
    )  # fmt: skip
    if as_json:
        options.print_json(report.as_dict())
    else:
        give(report.table())
