"""Options in messages: `name` in Python, --name on the command line.

The library names options in errors and warnings as Python does, in backticks: `scale`, `scale=255`,
`allow_vrt=True`. Here they become --scale, --scale 255 and --allow-vrt, as the running command, or
else another command, spells them. Other words in backticks stay as they are.
"""

from __future__ import annotations

import re
from functools import cache

import click

from geothresh.fields import known

_MARKED = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


@cache
def _flags() -> dict[str, str]:
    """Flags of the options that several commands have, by name; made when a message needs them."""
    from geothresh.evaluation.options import Maps, Scoring
    from geothresh.many.options import Many
    from geothresh.options import Compute, Reading, Refining, Tiling, Writing

    return {
        name: option.flags[-1] if option.flags else f"--{name.replace('_', '-')}"
        for kind in (Compute, Many, Maps, Reading, Refining, Scoring, Tiling, Writing)
        for name, option in known(kind).items()
    }


def as_options(text: str, command: click.Command | None) -> str:
    """Replace each option in backticks by the command's own spelling of it."""
    params = {param.name: param for param in command.params} if command else {}

    def spelled(found: re.Match[str]) -> str:
        name, value = found.groups()
        param = params.get(name)
        if param is None and name not in _flags():
            return found[0]
        if isinstance(param, click.Argument):
            return param.human_readable_name.removesuffix("...")
        if value == "False" and param is not None and param.secondary_opts:
            return param.secondary_opts[0]
        flag = _flags()[name] if param is None else max(param.opts, key=len)
        return flag if value in (None, "True") else f"{flag} {value}"

    return _MARKED.sub(spelled, text)
