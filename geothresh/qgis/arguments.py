"""Build the command line of a run; imports nothing of QGIS."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .vocabulary import Command, Option


class NotFound(Exception):
    """The command geothresh was not found."""


def command_line(
    command: Command, inputs: Sequence[str], outputs: Mapping[str, str], values: Mapping[str, Any]
) -> list[str]:
    """Make the command line of a command with its options, without the executable.

    Args:
        command: the command to run.
        inputs: paths, in the order in which the command takes them.
        outputs: paths by the flag that names each.
        values: values of options, by name; None, empty text and defaults are left out.

    Returns:
        Words of the command line. Each option is one word with its value, so that no value, such
        as -9999, is taken for an option.
    """
    words = [command.name, "--progress=json"]
    words += [f"{flag}={path}" for flag, path in outputs.items()]
    for option in command.options:
        words += _words(option, values.get(option.name))
    return [*words, "--", *inputs]


def _words(option: Option, value: Any) -> list[str]:
    if value is None or value == "" or value == option.default:
        return []
    if option.kind == "flag":
        flag = option.flag if value else option.no_flag
        return [flag] if flag else []
    if option.kind == "pairs":
        # As QGIS writes creation options of GDAL: COMPRESS=ZSTD|ZSTD_LEVEL=3
        return [f"{option.flag}={pair}" for pair in str(value).split("|") if pair]
    return [f"{option.flag}={value}"]


def find_executable(setting: str, installed_by: Sequence[str]) -> list[str]:
    """Find the first words of a command line that runs geothresh.

    Args:
        setting: a path that the user has chosen; empty = none.
        installed_by: the command line that has installed the plugin.

    Raises:
        NotFound: there is no executable; the message says what to do.
    """
    advice = "set it in Settings > Options > Processing > Providers > geothresh"
    if setting:
        if not Path(setting).is_file():
            raise NotFound(f"{setting}: there is no such executable; {advice}")
        return [setting]
    if installed_by and Path(installed_by[0]).is_file():
        return list(installed_by)
    found = shutil.which("geothresh")
    if found is None:
        raise NotFound(f"the command geothresh is not on PATH; {advice}")
    return [found]
