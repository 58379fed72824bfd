"""``geothresh base predict``: from images to confidences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.fields import options_of
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.progress import reporting
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import PATH
from geothresh.errors import number_of
from geothresh.options import BaseTiling, Compute, Reading, Writing


@click.command(
    cls=HelpfulCommand,
    common=("output", "model", "device", "overwrite"),
    examples={
        "A confidence raster beside the image, image_confidence.tif": (
            "geothresh base predict image.tif -m base.safetensors"
        ),
        "A folder of PNG or JPEG images, one map each": (
            "geothresh base predict images -m base.safetensors -o maps"
        ),
    },
)
@click.argument("image")
@options.output
@click.option(
    "-m", "--model", type=PATH, required=True, metavar="FILE",
    help="A base network, written by `geothresh base train`.",
)  # fmt: skip
@options_of(Reading, "reading", only=("nodata", "allow_vrt"))
@options_of(BaseTiling, "tiling")
@options_of(Compute, "compute", only=("batch_size", "device", "precision", "workers"))
@options_of(Writing, "writing")
@options.progress
@options.as_json
@options.common
def predict(
    image: str,
    output: Path | None,
    as_json: bool,
    progress: str,
    **arguments: Any,
) -> None:
    """Predict the confidence of IMAGE with a base network.

    IMAGE is a GeoTIFF of any size with red, green and blue in 8 bits. Its output is a confidence
    raster on the same grid for `geothresh refine` (0-254 for 0-1, 255 nodata). Or IMAGE is a PNG or
    JPEG, or a folder of them, whose outputs are maps of the same size, <id>.png, with confidence x
    255.

    If the prediction of a GeoTIFF is interrupted, its finished work stays beside the output: the
    same command resumes from there.

    The output is beside IMAGE, with _confidence added to its name, or what is named with -o. Its
    path is printed.
    """
    from geothresh.api.predict_base import predict_base as run

    with reporting(progress, "predict") as report:
        result = run(image, output, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.output)
    if options.verbosity() >= 0:
        share = 100 * result.foreground / max(result.pixels, 1)
        print_note(
            f"{number_of(result.images, 'image')}, {result.pixels:,} pixels "
            f"with data, {share:.2f} % of them at 0.5 or above; model {result.model}; "
            f"{result.seconds:.1f} s"
        )
