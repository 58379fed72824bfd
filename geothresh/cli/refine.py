"""``geothresh refine``: turn a confidence raster into a refined mask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import ADDRESS
from geothresh.errors import UsageError, number_of
from geothresh.fields import given
from geothresh.many.options import Many
from geothresh.options import Compute, Outputs, PathLike, Reading, Refining, Tiling, Writing

if TYPE_CHECKING:
    from geothresh.api.refine import RefineResult
    from geothresh.api.refine_many import RefineManyResult

BAD_INPUT, NOT_MADE = 3, 4
"""Exit codes of runs over many files: some inputs could not be read; workers died on some parts."""


@click.command(
    cls=HelpfulCommand,
    common=(
        "output",
        "output_dir",
        "model",
        "threshold",
        "scale",
        "aoi",
        "confidence",
        "vector",
        "device",
        "overwrite",
    ),
    examples={
        "A mask beside the scene, scene_mask.tif": "geothresh refine scene.tif",
        "The refined confidence and polygons too": (
            "geothresh refine scene.tif -o mask.tif --confidence-out refined.tif \\\n"
            "    --vector-out roads.gpkg"
        ),
        "Logits, with your own model, on the second GPU": (
            "geothresh refine logits.tif --scale logit -m model.safetensors \\\n    --device cuda:1"
        ),
        "With the calibration that `geothresh calibrate` advised": (
            "geothresh refine scene.tif --calibration calibration.json"
        ),
        "Only inside an area, with a raster of the changes": (
            "geothresh refine scene.tif --aoi area.gpkg --diff-out changes.tif"
        ),
        "A directory of scenes as one surface, without seams": (
            "geothresh refine tiles --output-dir refined --layers mask,confidence"
        ),
    },
)
@click.argument("scene", nargs=-1, required=True, metavar="SCENE...")
@options.output
@click.option(
    "--output-dir",
    type=ADDRESS,
    metavar="DIR",
    help="Directory for the outputs of many SCENEs, which are refined as one surface; made if it "
    "is not there. SCENE may be a directory, @list.txt or a tile index (.gti.gpkg) then.",
)
@options_of(Outputs, "outputs")
@options_of(Many, "many")
@options_of(Reading, "reading")
@options.model
@options_of(Refining, "refining")
@options.match_resolution
@options_of(Tiling, "tiling")
@options_of(Compute, "compute")
@options_of(Writing, "writing")
@options.progress
@options.as_json
@options.common
def refine(
    scene: tuple[str, ...],
    output: PathLike | None,
    output_dir: PathLike | None,
    outputs: Outputs,
    many: Many,
    model: str,
    refining: Refining,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Refine the confidence raster SCENE, or many as one, and write a mask on the same grid.

    SCENE is a GeoTIFF with the probability of the foreground, pixel by pixel: uint8 as value / 255,
    floats from 0 to 1, or anything else with --scale. Pixels without data (nodata value, mask,
    alpha, NaN) stay without data.

    The mask is SCENE's name with _mask.tif beside it, or the file named with -o: 0 background,
    1 foreground, 255 nodata. Its path is printed.

    With --output-dir, many SCENEs are refined as one surface, so that there is no seam between
    them; each has its own outputs there, SCENE_mask.tif and so on, whose paths are printed.

    A run that is interrupted keeps its finished work beside the mask, in .MASK.geothresh: the same
    command resumes from there.
    """
    how: dict[str, Any] = {"model": options.model_given(model, refining), "refining": refining}
    if output_dir is not None:
        _refuse_single(output, outputs)
        many = replace(many, vector=outputs.vector)
        _refine_many(scene, output_dir, many, progress, as_json, how | arguments)
        return
    for name in given(many):
        raise UsageError(f"`{name}` is for many scenes; add `output_dir`, or leave it out")
    if len(scene) > 1:
        raise UsageError(
            f"{len(scene)} scenes: say with `output_dir` where their outputs go, or give one"
        )
    from geothresh.api.refine import refine as run

    with reporting(progress, "refine") as report:
        result = run(scene[0], output, outputs=outputs, progress=report, **how, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.mask)
    if options.verbosity() >= 0:
        for line in summary(result):
            print_note(line)


def _refuse_single(output: PathLike | None, outputs: Outputs) -> None:
    """Refuse options that name a single output file."""
    single = {name for name in given(outputs) if name != "vector"}
    for name in ("output",) if output is not None else sorted(single):
        raise UsageError(
            f"`{name}` names one file, and with `output_dir` each scene has its own; leave one of "
            "them out, and say with `layers` what is written"
        )


def _refine_many(
    scenes: tuple[str, ...],
    output_dir: PathLike,
    many: Many,
    progress: str,
    as_json: bool,
    arguments: dict[str, Any],
) -> None:
    from geothresh.api.refine_many import refine_many

    with reporting(progress, "refine") as report:
        result = refine_many(scenes, output_dir, many=many, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
    else:
        for part in result.parts:
            print_result(part.outputs["mask"])
        if options.verbosity() >= 0:
            for line in summary_of_many(result):
                print_note(line)
    if result.set_aside:
        raise click.exceptions.Exit(NOT_MADE)
    if result.bad:
        raise click.exceptions.Exit(BAD_INPUT)


def summary_of_many(result: RefineManyResult) -> list[str]:
    """A summary for people, in a few lines."""
    scenes, surfaces = number_of(result.scenes, "scene"), number_of(result.surfaces, "surface")
    made = len(result.parts) - result.kept
    threshold = result.parameters["threshold"]
    lines = [
        f"{scenes} on {surfaces}; model {result.model}, threshold {threshold:g}",
        f"{number_of(made, 'part')} made, {result.kept:,} kept of an earlier run; "
        f"{number_of(result.tiles_refined, 'tile')} refined, {result.tiles_skipped:,} without data "
        f"skipped; {result.seconds:.1f} s",
        _changed(result),
    ]
    if result.removed:
        lines.append(
            f"{number_of(len(result.removed), 'part')} of scenes that are gone: outputs removed"
        )
    if result.vector is not None:
        lines.append(f"{number_of(result.features or 0, 'polygon')}: {result.vector}")
    lines += [f"as one raster: {index}" for index in result.indexes]
    lines += [f"left out: {bad.reason}" for bad in result.bad]
    lines += [f"set aside, as it killed every worker: {name}" for name in result.set_aside]
    return lines


def summary(result: RefineResult) -> list[str]:
    """A summary for people, in a few lines."""
    theme = f" ({result.theme})" if result.theme else ""
    tta = "" if result.tta == "none" else f", TTA {result.tta}"
    kept = result.keep_threshold
    keep = "" if kept is None or kept >= result.threshold else f" ({kept:g} to remove)"
    lines = [
        f"{result.width} x {result.height} pixels, {result.scaling}; model {result.model}"
        f"{theme}{tta}, threshold {result.threshold:g}{keep}",
        f"tiles: {result.tiles_refined} refined, {result.tiles_skipped} without data skipped; "
        f"{result.seconds:.1f} s",
        _changed(result),
    ]
    lines.insert(1, _read_at(result))
    if result.calibration is not None:
        lines.insert(1, f"calibrated, {result.calibration}")
    if result.strips_resumed:
        lines.append(
            f"went on after {number_of(result.strips_resumed, 'strip')} of an interrupted run"
        )
    further = {
        "refined confidence": result.confidence,
        "what changed": result.changes,
        "region-specific thresholds": result.thresholds,
        number_of(result.features or 0, "polygon"): result.vector,
        "report page": result.report,
    }
    return [*lines, *(f"{what}: {path}" for what, path in further.items() if path is not None)]


def _changed(result: RefineResult | RefineManyResult) -> str:
    """Pixels before and after refining."""
    return (
        f"foreground {result.foreground_before:,} -> {result.foreground_after:,} pixels, "
        f"{result.changed_pixels:,} changed ({100 * result.changed_share:.2f} % of "
        f"{result.valid_pixels:,} with data)"
    )


def _read_at(result: RefineResult) -> str:
    """The resolution at which the model read the scene."""
    if result.pixel_size is None:
        own, read = "unknown size", ""
    else:
        across, down = result.pixel_size
        own = f"{across:.3g} x {down:.3g} m"
        read = f"{across / result.resampling:.3g} x {down / result.resampling:.3g} m"
    if result.resampling == 1:
        return f"read at its own pixels, of {own}"
    of = f", of {read}" if read else ""
    return f"resampled: a pixel of {own} is read as {result.resampling:.3g} of the model's{of}"
