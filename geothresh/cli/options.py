"""Click options that several commands share, besides those of `geothresh.options`.

The lower-case names at the end of the module are decorators.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from geothresh.cli.fields import option_of
from geothresh.cli.helping import HEADINGS, MESSAGES, HeadedOption
from geothresh.cli.terminal import print_result
from geothresh.cli.values import ADDRESS
from geothresh.errors import UsageError
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import Compute, Refining, Writing

Command = TypeVar("Command", bound=Callable[..., Any])

_VERBOSITY = "geothresh.verbosity"
_DEBUG = "geothresh.debug"
_COMMAND = "geothresh.command"


def verbosity(ctx: click.Context | None = None) -> int:
    """How much goes to stderr: -1 errors (-q), 0 also warnings, 1 also information (-v), 2 all."""
    ctx = ctx or click.get_current_context()
    return int(ctx.meta.get(_VERBOSITY, 0))


def debug(ctx: click.Context | None = None) -> bool:
    """Whether --debug was given: show tracebacks."""
    ctx = ctx or click.get_current_context()
    return bool(ctx.meta.get(_DEBUG, False))


def running(ctx: click.Context) -> click.Command | None:
    """The command whose arguments were parsed last."""
    command: click.Command | None = ctx.meta.get(_COMMAND)
    return command


def was_given(name: str) -> bool:
    """Whether an option was on the command line, rather than left to its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT)


def model_given(model: str, refining: Refining) -> str | Path:
    """The model to run: a name, or the file of a model that was given beside a calibration.

    Beside a calibration, the name of the default model stands for the calibration's own model. So a
    model that was given explicitly is passed as a file.
    """
    if refining.calibration is None or not was_given("model"):
        return model
    from geothresh.nn.packaged import find_model

    return find_model(model)


def refuse(names: Collection[str], why: str) -> None:
    """Raise UsageError for the first of these options that is on the command line."""
    for param in click.get_current_context().command.params:
        if param.name and param.name in names and was_given(param.name):
            raise UsageError(f"{param.opts[-1]} {why}; leave it out")


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout: the one place behind every ``--json``.

    Raises ValueError for NaN and infinities, which JSON does not have.
    """
    print_result(json.dumps(result, indent=2, allow_nan=False, default=str))


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
    ctx.meta[_COMMAND] = ctx.command
    if value:
        ctx.meta[_DEBUG] = True


message = partial(click.option, cls=HeadedOption, heading=MESSAGES)
"""Like ``click.option``, for an option under the heading `MESSAGES`."""


def common(command: Command) -> Command:
    """Add ``-v``, ``-q`` and ``--debug``, which give the command no arguments."""
    for decorate in (
        message(
            "--debug", is_flag=True, expose_value=False, callback=_debug,
            help="Show the traceback of an error.",
        ),
        message(
            "-q", "--quiet", is_flag=True, expose_value=False, callback=_quiet,
            help="Print only errors on stderr.",
        ),
        message(
            "-v", "--verbose", count=True, expose_value=False, callback=_louder,
            help="Print more on stderr; -vv prints all.",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


# Paths
output = click.option(
    "-o", "--output", type=ADDRESS, help="File to write; its default is described above."
)

# Options of commands that take one field of a class only
device = option_of(Compute, "device")
overwrite = option_of(Writing, "overwrite")


def match_resolution(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--match-resolution``, an alias of ``--resolution auto``, below those of `Refining`."""

    @wraps(command)
    def checked(*arguments: Any, match_resolution: bool, refining: Refining, **others: Any) -> Any:
        if match_resolution and refining.resolution != "auto":
            raise click.UsageError(
                "--match-resolution means --resolution auto, and --resolution "
                f"{refining.resolution} is given too; leave one of them out"
            )
        return command(*arguments, refining=refining, **others)

    return click.option(
        "--match-resolution", is_flag=True, help="The same as --resolution auto, the default.",
        cls=HeadedOption, heading=HEADINGS["Refining"],
    )(checked)  # fmt: skip


model = click.option(
    "-m", "--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME|FILE",
    help="A packaged model (see `geothresh model list`) or a .safetensors file.",
)  # fmt: skip
as_json = message(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result, or the error, as one JSON object on stdout.",
)
resume = click.option(
    "--resume/--no-resume", default=None,
    help="Resume a run that was stopped. By default a run is resumed if there is one. --resume "
    "fails if there is none; --no-resume never resumes, and treats files of an earlier run as any "
    "existing files.",
)  # fmt: skip


def progress(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--progress`` and ``--no-progress``; the command receives one word."""

    @wraps(command)
    def chosen(*arguments: Any, progress: str, no_progress: bool, **others: Any) -> Any:
        return command(*arguments, progress="none" if no_progress else progress, **others)

    chosen = message("--no-progress", is_flag=True, help="The same as --progress none.")(chosen)
    return message(
        "--progress", type=click.Choice(["auto", "bar", "lines", "json", "none"]),
        default="auto", show_default=True,
        help="How progress is shown on stderr: a bar, a line a minute, or JSON for programs. auto "
        "is a bar on a terminal, and lines elsewhere.",
    )(chosen)  # fmt: skip
