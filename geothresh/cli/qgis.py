"""``geothresh qgis``: install or remove the plugin for QGIS's Processing toolbox."""

from __future__ import annotations

import sys
from typing import Any

import click

from geothresh._version import __version__
from geothresh.cli import options
from geothresh.cli.helping import HelpfulCommand
from geothresh.cli.terminal import print_note, print_result
from geothresh.cli.values import BoundsType, NumberOrWord

#: The commands that the plugin's algorithms run.
_COMMANDS = ("refine", "vectorize", "compare")

_profile = click.option(
    "--profile", metavar="NAME",
    help="Profile of QGIS.  [default: the one that QGIS starts with]",
)  # fmt: skip


@click.group()
@options.common
def qgis() -> None:
    """Install geothresh into QGIS, as algorithms of its Processing toolbox."""


@qgis.command(
    cls=HelpfulCommand,
    examples={
        "Into the profile that QGIS starts with": "geothresh qgis install",
        "Into another profile": "geothresh qgis install --profile work",
    },
)
@_profile
@options.as_json
@options.common
def install(profile: str | None, as_json: bool) -> None:
    """Install the plugin into a profile of QGIS 3.22 or later, or update it.

    The plugin runs the installation of geothresh that installed it; nothing is installed into
    QGIS's Python. The plugin's folder is printed.
    """
    from geothresh.api.qgis_plugin import PLUGIN, install_plugin

    result = install_plugin(vocabulary(), profile=profile)
    if as_json:
        options.print_json(result.as_dict())
        return
    print_result(result.folder)
    if options.verbosity() >= 0:
        if result.replaced:
            print_note("updated; if QGIS is open, restart it")
        else:
            print_note(
                "start QGIS and tick geothresh in Plugins > Manage and Install Plugins > "
                f"Installed, or run: qgis_process plugins enable {PLUGIN}"
            )


@qgis.command(
    cls=HelpfulCommand,
    examples={"Out of the profile that QGIS starts with": "geothresh qgis uninstall"},
)
@_profile
@options.as_json
@options.common
def uninstall(profile: str | None, as_json: bool) -> None:
    """Remove the plugin from a profile of QGIS, and print the folder that was removed."""
    from geothresh.api.qgis_plugin import uninstall_plugin

    folder = uninstall_plugin(profile=profile)
    if as_json:
        options.print_json({"folder": str(folder)})
    else:
        print_result(folder)


def vocabulary() -> dict[str, Any]:
    """The options of the commands, as `geothresh.qgis.vocabulary` reads them; JSON types."""
    from geothresh.cli import main
    from geothresh.nn.packaged import packaged_models

    commands = {}
    with click.Context(main) as ctx:
        for name in _COMMANDS:
            command = main.get_command(ctx, name)
            if command is None:
                raise LookupError(f"there is no command {name}")
            given = [p for p in command.params if isinstance(p, click.Option)]
            commands[name] = {
                "help": command.help or "",
                "options": [_described(option) for option in given],
            }
    return {
        "version": __version__,
        "executable": [sys.executable, "-m", "geothresh"],
        "models": list(packaged_models()),
        "commands": commands,
    }


def _described(option: click.Option) -> dict[str, Any]:
    """Describe an option with the fields of `geothresh.qgis.vocabulary.Option`."""
    found: dict[str, Any] = {
        "name": option.name,
        "flag": max(option.opts, key=len),
        "no_flag": option.secondary_opts[0] if option.secondary_opts else "",
        "kind": _kind(option),
        "default": None if option.multiple else option.default,
        "help": " ".join((option.help or "").split()),
    }
    kind = option.type
    if isinstance(kind, click.Choice):
        found["words"] = list(kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        found["least"], found["most"] = kind.min, kind.max
    return found


def _kind(option: click.Option) -> str:
    """The kind of an option's values."""
    if option.is_flag or option.count:
        return "flag"
    if option.multiple:
        return "pairs"
    match option.type:
        case click.Choice():
            return "choice"
        case NumberOrWord():
            return "word"
        case click.Path():
            return "file"
        case BoundsType():
            return "bounds"
        case click.IntRange() | click.types.IntParamType():
            return "whole"
        case click.FloatRange() | click.types.FloatParamType():
            return "number"
        case click.types.StringParamType():
            return "text"
    raise TypeError(f"{option.name}: {option.type!r} is no type that the plugin knows")
