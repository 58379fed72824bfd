"""The options that several commands share: one spelling, one meaning, one help text.

Each name below is a decorator. Paths are passed on without a look at the disk: whether a file is
there is the library's to find out, with the exit code of a bad input (3) or output (4), where
click's own check would call it wrong usage (2).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from geothresh.cli.terminal import give

Command = TypeVar("Command", bound=Callable[..., Any])

# The type of every path on the command line.
PATH = click.Path(path_type=Path)

_VERBOSITY = "geothresh.verbosity"
_DEBUG = "geothresh.debug"


def verbosity(ctx: click.Context | None = None) -> int:
    """How much is said on stderr: -1 errors only (-q), 0 warnings too, 1 (-v) news, 2 all."""
    ctx = ctx or click.get_current_context()
    return int(ctx.meta.get(_VERBOSITY, 0))


def debug(ctx: click.Context | None = None) -> bool:
    """Whether --debug was given: show tracebacks."""
    ctx = ctx or click.get_current_context()
    return bool(ctx.meta.get(_DEBUG, False))


def was_given(name: str) -> bool:
    """Whether an option was on the command line, rather than left to its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT)


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout: the one place behind every ``--json``.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    give(json.dumps(result, indent=2, allow_nan=False, default=str))


class NumberOrWord(click.ParamType):
    """A number, or one of a few words; the number's own type and range are click's."""

    def __init__(self, number: click.ParamType, *words: str, metavar: str) -> None:
        self.number = number
        self.words = words
        self.name = metavar

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | str:
        if isinstance(value, str) and value.lower() in self.words:
            return value.lower()
        try:
            number: int | float = self.number.convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} Or say {' or '.join(self.words)}.", param, ctx)
        return number


class SizeRange(click.ParamType):
    """One size above 0, or the least and the greatest with a comma between: two numbers."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or not 0 < numbers[0] <= numbers[-1] < math.inf:
            self.fail(f"{value!r} is neither a size above 0 nor MIN,MAX.", param, ctx)
        return numbers[0], numbers[-1]


class Bounds(click.ParamType):
    """Left, bottom, right, top: four numbers with commas between."""

    name = "bounds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        if isinstance(value, tuple):
            return value
        try:
            left, bottom, right, top = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not L,B,R,T: four numbers.", param, ctx)
        return left, bottom, right, top


def _louder(ctx: click.Context, param: click.Parameter, value: int) -> None:
    _set_verbosity(ctx, verbosity(ctx) + value)


def _quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _set_verbosity(ctx, -1)


def _set_verbosity(ctx: click.Context, level: int) -> None:
    ctx.meta[_VERBOSITY] = level
    logger = logging.getLogger("geothresh")
    ctx.find_root().call_on_close(partial(logger.setLevel, logger.level))
    names = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}
    logger.setLevel(names.get(level, logging.DEBUG))


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def common(command: Command) -> Command:
    """``-v``, ``-q`` and ``--debug``, before or after the command's name; no arguments result."""
    for decorate in (
        click.option(
            "--debug", is_flag=True, expose_value=False, callback=_debug,
            help="Show where an error comes from.",
        ),
        click.option(
            "-q", "--quiet", is_flag=True, expose_value=False, callback=_quiet,
            help="Say nothing on stderr but errors.",
        ),
        click.option(
            "-v", "--verbose", count=True, expose_value=False, callback=_louder,
            help="Say more on stderr; twice for all.",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


def _creation_options(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for value, (name, equals, _) in zip(values, pairs, strict=True):
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE.", ctx, param)
    return {name.upper(): text for name, _, text in pairs}


# Input raster
bidx = click.option(
    "-b", "--bidx", type=click.IntRange(min=1),
    help="Band with the confidence, counted from 1; needed where there are several.",
)  # fmt: skip
scale = click.option(
    "--scale", default="auto", show_default=True,
    type=NumberOrWord(
        click.FloatRange(min=0, min_open=True), "auto", "logit", metavar="auto|N|logit"
    ),
    help="Confidence is value / N, or the logistic of a logit; auto decides once per file.",
)  # fmt: skip
nodata = click.option(
    "--nodata", type=float, metavar="V", help="Value that means no data, in place of the file's."
)
allow_vrt = click.option("--allow-vrt", is_flag=True, help="Accept a VRT as input.")

# Model
model = click.option(
    "-m", "--model", default="roads", show_default=True, metavar="NAME|FILE",
    help="A packaged model (see `geothresh model list`) or a .safetensors file.",
)  # fmt: skip
tta = click.option(
    "--tta", default="none", show_default=True, type=click.Choice(["none", "d4"]),
    help="Test-time augmentation: d4 refines every tile turned and mirrored in all eight ways and "
    "takes the mean, which takes eight times as long.",
)  # fmt: skip
match_resolution = click.option(
    "--match-resolution", is_flag=True,
    help="Refine at the resolution that the model was trained at (see `geothresh model show`) and "
    "bring the changes back to the raster's own pixels; up to 8 times finer or coarser.",
)  # fmt: skip
threshold = click.option(
    "--threshold", default=0.5, show_default=True, type=click.FloatRange(0, 1),
    help="Refined confidence from which on a pixel is foreground.",
)  # fmt: skip
tile_size = click.option(
    "--tile-size", default=512, show_default=True, type=click.IntRange(min=1),
    help="Side of the square that the network reads, in its pixels; a multiple of its patch.",
)  # fmt: skip
overlap = click.option(
    "--overlap", type=click.IntRange(min=0),
    help="Pixels that neighbouring tiles share, in the network's pixels; a multiple of its patch.  "
    "[default: 128, the model's patch where that is larger, less for small tiles]",
)  # fmt: skip
blend = click.option(
    "--blend", default="hann", show_default=True,
    type=click.Choice(["hann", "gaussian", "linear", "crop"]),
    help="How the confidences of overlapping tiles are joined.",
)  # fmt: skip
batch_size = click.option(
    "--batch-size", default="auto", show_default=True,
    type=NumberOrWord(click.IntRange(min=1), "auto", metavar="auto|N"),
    help="Tiles that go through the network at once.",
)  # fmt: skip
device = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]|mps",
    help="Where the network runs.",
)  # fmt: skip
precision = click.option(
    "--precision", default="auto", show_default=True,
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    help="Number format inside the network; heads and blending stay fp32.",
)  # fmt: skip
backend = click.option(
    "--backend", default="torch", show_default=True,
    type=click.Choice(["torch", "onnxruntime", "openvino"]),
    help="Library that runs the network; the others than torch are for CPUs, and come with "
    "geothresh[onnx] and geothresh[openvino].",
)  # fmt: skip
workers = click.option(
    "--workers", default=0, show_default=True, type=click.IntRange(min=0), metavar="N",
    help="Worker processes on this machine; 0 works in threads of this one.",
)  # fmt: skip
scheduler = click.option(
    "--scheduler", metavar="ADDRESS",
    help="Workers of a running Dask cluster, tcp://HOST:PORT or tls://HOST:PORT; they see the "
    "input and the model under the same paths.",
)  # fmt: skip

# Output
output = click.option(
    "-o", "--output", type=PATH, help="File to write; the default is named by the command."
)
creation_options = click.option(
    "--co", "creation_options", multiple=True, metavar="NAME=VALUE", callback=_creation_options,
    help="Creation option of the GeoTIFF driver; may be repeated.",
)  # fmt: skip
overwrite = click.option("--overwrite", is_flag=True, help="Replace the outputs that exist.")
resume = click.option(
    "--resume/--no-resume", default=True, show_default=True,
    help="Keep finished work on the disk, and go on from that of an interrupted run.",
)  # fmt: skip
restart = click.option(
    "--restart", is_flag=True, help="Throw away what an interrupted run left, and start afresh."
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else there."
)
progress = click.option(
    "--progress/--no-progress", default=None,
    help="Draw a progress bar on stderr; by default where stderr is a terminal.",
)  # fmt: skip
