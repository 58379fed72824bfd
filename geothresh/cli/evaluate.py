"""``geothresh evaluate``: score refinement on maps whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.addresses import path_of
from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import ADDRESS
from geothresh.evaluation.options import Maps, Scoring
from geothresh.fields import known
from geothresh.files import is_directory
from geothresh.many.inputs import names_several
from geothresh.options import IN_THIS_PROCESS, READ_WHOLE, Compute, Reading, Refining, Tiling

_VECTORS = (".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet")
# Options for lines only, and options for any kind of DATA.
_FOR_LINES = {"layer", "truth_layer", "buffer"}
_FOR_ALL = {
    "data",
    "mask",
    "as_json",
    "progress",
    "no_progress",
    "verbose",
    "quiet",
    "debug",
    "help",
}
_FOR_MODELS = {
    "model", "match_resolution", "ground_sample_distance",
    *known(Refining), *known(Tiling), *known(Compute),
}  # fmt: skip


@click.command(
    cls=HelpfulCommand,
    common=("mask", "confidence", "model", "output", "figures", "overwrite"),
    examples={
        "Score refining on maps in folders": (
            "geothresh evaluate DATA --confidence DATA/confidence/unet"
        ),
        "On one raster with its truth, with pictures": (
            "geothresh evaluate scene.tif --mask truth.tif --figures figures"
        ),
        "On a folder of rasters and a folder of masks with the same names": (
            "geothresh evaluate tiles --mask truths"
        ),
        "Lines against true lines, within 5 m": (
            "geothresh evaluate lines.gpkg --mask true_roads.gpkg --buffer 5"
        ),
    },
)
@click.argument("data", nargs=-1, required=True, type=ADDRESS)
@click.option(
    "--mask", type=ADDRESS, metavar="FILE", multiple=True,
    help="Truth of the confidence raster DATA: 1, 0, and 255 for no data. For several rasters give "
    "one each, in their order; for a folder of rasters, a folder of masks. For a file of lines: "
    "the true lines, or a mask whose centrelines are the truth.",
)  # fmt: skip
@click.option("--layer", metavar="NAME", help="Layer of DATA with the lines.")
@click.option("--truth-layer", metavar="NAME", help="Layer of the truth with the lines.")
@click.option(
    "--buffer", type=float, metavar="M",
    help="Width in metres to each side of a line within which other lines match it.  [default: 3]",
)  # fmt: skip
@options.model
@click.option("--no-refine", is_flag=True, help="Score the confidences only; needs no model.")
@options_of(Refining, "refining")
@options.match_resolution
@options_of(Maps, "maps")
@options_of(Scoring, "scoring")
@options_of(Reading, "reading", only=READ_WHOLE)
@options_of(Tiling, "tiling")
@options_of(Compute, "compute", only=IN_THIS_PROCESS)
@options.progress
@options.as_json
@options.common
def evaluate(
    data: tuple[Path, ...],
    model: str,
    no_refine: bool,
    mask: tuple[Path, ...],
    as_json: bool,
    progress: str,
    layer: str | None,
    truth_layer: str | None,
    buffer: float | None,
    refining: Refining,
    **arguments: Any,
) -> None:
    """Score confidences against the truth: cut at 0.5, at the best thresholds, and refined.

    DATA is a folder with masks named ID_mask.png, or with the folders mask/ and confidence/; or,
    with --mask, one confidence raster. Several folders may be given. Options for bands, scale and
    nodata are for a raster; it is scored in cells of 512 x 512 pixels, each of which counts as a
    map, with Boundary IoU within 15 pixels.

    Several rasters are given with a --mask each, in the same order. Or both are a folder, @list.txt
    or tile index (.gti.gpkg), where masks have the names of the rasters, or these with _mask or
    _truth at the end. Each raster is refined by itself, the cells of all are scored together, and a
    table with a line for each scene follows.

    There is one table per folder of confidence maps. It holds, in points: IoU as the mean over maps
    and of all pixels together, the mean of foreground and background IoU (mIoU), Boundary IoU
    within d pixels (2 % of the diagonal), and the mean absolute error of the confidence. Thresholds
    of columns with * were chosen with the truth of the same maps. Below the table is what refining
    gains or loses, with its standard error over the maps.

    Or DATA is a GeoPackage, shapefile, GeoJSON or FlatGeobuf of lines, and --mask the true lines:
    then completeness, correctness and quality within --buffer are printed, and how well the lines
    are connected.
    """
    data, mask = tuple(map(path_of, data)), tuple(map(path_of, mask))
    if data[0].suffix.lower() in _VECTORS and not names_several(data[0]):
        every = {param.name or "" for param in click.get_current_context().command.params}
        options.refuse(every - _FOR_ALL - _FOR_LINES, "is for rasters and folders of maps")
        _lines(data, mask, layer, truth_layer, buffer, as_json=as_json)
        return
    options.refuse(_FOR_LINES, "is for lines")
    if is_directory(data[0]) and not mask:
        options.refuse(set(known(Reading)), "is for a raster, with --mask")
    if no_refine:
        options.refuse(_FOR_MODELS, "is for refining, and --no-refine refines nothing")
    from geothresh.api.evaluate import evaluate as run

    unit = "step" if mask else "map"
    with reporting(progress, "evaluate", unit=unit) as report:
        chosen = None if no_refine else options.model_given(model, refining)
        result = run(
            data, mask=mask or None, model=chosen, refining=refining, progress=report, **arguments
        )
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.table())
    if options.verbosity() >= 0:
        by = "not refined" if result.model is None else f"refined with {result.model}"
        by += "" if result.tta == "none" else f", TTA {result.tta}"
        by += "" if refining.calibration is None else f", calibrated by {refining.calibration}"
        print_note(f"{by}; {result.seconds:.1f} s")


def _lines(
    data: tuple[Path, ...],
    truths: tuple[Path, ...],
    layer: str | None,
    truth_layer: str | None,
    buffer: float | None,
    *,
    as_json: bool,
) -> None:
    from geothresh.api.lines import BUFFER, evaluate_lines

    if len(data) > 1:
        raise click.UsageError(f"{data[1]}: one file of lines is evaluated at a time")
    if not truths:
        raise click.UsageError(f"{data[0]}: say with --mask what the true lines are")
    if len(truths) > 1:
        raise click.UsageError(f"{truths[1]}: one file of lines has one truth")
    report = evaluate_lines(
        data[0], truths[0], layer=layer, truth_layer=truth_layer,
        buffer=BUFFER if buffer is None else buffer,
    )  # fmt: skip
    if as_json:
        options.print_json(report.as_dict())
    else:
        print_result(report.table())
