"""``geothresh calibrate``: find how best to transform and cut a base network's confidences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.calibration.options import Calibrating
from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import PATH
from geothresh.errors import UsageError
from geothresh.evaluation.options import Maps
from geothresh.options import IN_THIS_PROCESS, Compute, Reading, Refining, Tiling
from geothresh.training.options import SCENE_LABELS, SCENE_READING, SceneData


@click.command(
    cls=HelpfulCommand,
    common=("output", "confidence", "models", "place_pattern", "overwrite"),
    examples={
        "Find what is best on these maps, and write it to a file": (
            "geothresh calibrate DATA --confidence DATA/confidence/unet \\\n    -o calibration.json"
        ),
        "On a labelled scene": "geothresh calibrate scene.tif --labels roads.gpkg --buffer 3.5",
        "Without a model, with the frames of a sequence kept together": (
            "geothresh calibrate DATA --model none --place-pattern '^(\\d+)_'"
        ),
    },
)
@click.argument("data", nargs=-1, required=True, type=PATH)
@click.option(
    "-m", "--model", "models", multiple=True, metavar="NAME|FILE",
    help="A packaged model or a .safetensors file; may be repeated; none runs no model.  "
    "[default: all packaged models]",
)  # fmt: skip
@options_of(Maps, "maps")
@options_of(SceneData, "scenes", only=SCENE_LABELS, make=dict)
@options_of(Reading, "reading", only=SCENE_READING)
@options_of(Calibrating, "calibrating")
@options_of(Refining, "refining", only=("tta", "resolution"))
@options_of(Tiling, "tiling")
@options_of(Compute, "compute", only=IN_THIS_PROCESS)
@options.progress
@options.as_json
@options.common
def calibrate(
    data: tuple[Path, ...],
    models: tuple[str, ...],
    maps: Maps,
    scenes: dict[str, Any],
    reading: Reading,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Find how best to refine and cut a base network's confidences, on labelled tiles.

    DATA is a folder with masks named ID_mask.png, or with the folders mask/ and confidence/. Or
    DATA is a scene (a confidence raster) whose ground truth is given with --labels. The tiles of a
    scene are cells of 512 x 512 pixels, and its places are squares of cells.

    The cut at 0.5 is compared with the best threshold, with calibrations, and with models at
    several strengths. Each candidate is fitted to some places and scored on others. The table has
    its mean gain in points of IoU with the standard error, the share of tiles that lose more than
    a point, the expected calibration error (ECE), and the time for a megapixel. Below the table is
    the advice: the best candidate that gains over the cut at 0.5 beyond noise, or else to keep the
    cut at 0.5.

    `geothresh refine` --calibration FILE follows the advice.
    """
    if "none" in models and len(models) > 1:
        raise UsageError("--model none is no model, but others are given too; leave it out")
    from geothresh.api.calibrate import calibrate as run

    if scenes["labels"]:
        given: Any = SceneData(scenes=data, reading=reading, **scenes)
    else:
        options.refuse({*SCENE_LABELS, *SCENE_READING}, "is for a scene, with --labels")
        given = data
    named = None if not models else () if models == ("none",) else models
    with reporting(progress, "calibrate", unit="map") as report:
        result = run(given, models=named, maps=maps, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.table())
    if options.verbosity() >= 0 and result.output is not None:
        print_note(f"calibration: {result.output}; reliability diagram: {result.diagram}")
