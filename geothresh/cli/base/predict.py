"""``geothresh base predict``: from images to confidences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geothresh.cli import options
from geothresh.cli.progress import progress_bar
from geothresh.cli.terminal import give, say


@click.command()
@click.argument("image")
@options.output
@click.option(
    "-m", "--model", type=options.PATH, required=True, metavar="FILE",
    help="A base network, written by `geothresh base train`.",
)  # fmt: skip
@options.nodata
@options.allow_vrt
@click.option(
    "--tile-size", default=1024, show_default=True, type=click.IntRange(min=1),
    help="Side of the square that the network reads, in pixels; a multiple of 32.",
)  # fmt: skip
@click.option(
    "--overlap", default=128, show_default=True, type=click.IntRange(min=0),
    help="Pixels that neighbouring tiles share; a multiple of 32.",
)  # fmt: skip
@options.blend
@options.batch_size
@options.device
@options.precision
@options.workers
@options.creation_options
@options.resume
@options.restart
@options.overwrite
@options.progress
@options.as_json
@options.common
def predict(
    image: str,
    output: Path | None,
    as_json: bool,
    progress: bool | None,
    **arguments: Any,
) -> None:
    """Predict the confidence of IMAGE with a base network.

    IMAGE is a GeoTIFF of any size with red, green and blue in 8 bits, which gives a confidence
    raster on the same grid for `geothresh refine` (0-254 for 0-1, 255 nodata); or a PNG or JPEG, or
    a folder of them, which give maps of the same size, <id>.png, with confidence x 255.

    A GeoTIFF's prediction that is interrupted keeps its finished work beside the output: the same
    command goes on from there.

    The output is IMAGE's name with _confidence, beside it, or what is named with -o. Its path is
    printed.
    """
    from geothresh.api.base_predict import predict as run

    with progress_bar(progress, "predict") as report:
        result = run(image, output, progress=report, **arguments)
    if as_json:
        options.print_json(result.as_dict())
        return
    give(result.output)
    if options.verbosity() >= 0:
        share = 100 * result.foreground / max(result.pixels, 1)
        say(
            f"{result.images} {'image' if result.images == 1 else 'images'}, {result.pixels:,} "
            f"pixels with data, {share:.2f} % of them at 0.5 or above; model {result.model}; "
            f"{result.seconds:.1f} s"
        )
