"""Options in messages: `name` in Python, --name on the command line.

Below the command line an error or warning names an option as Python does, in backticks: `scale`,
`scale=255`, `allow_vrt=True`. Here they become --scale, --scale 255 and --allow-vrt, as the command
that runs spells them. What is none of its options stays as it is.
"""

from __future__ import annotations

import re

import click

_MARKED = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


def as_options(text: str, command: click.Command | None) -> str:
    """The text with the command's own spelling of each option in backticks."""
    params = {param.name: param for param in command.params} if command else {}

    def spelled(found: re.Match[str]) -> str:
        name, value = found.groups()
        param = params.get(name)
        if param is None:
            return found[0]
        if not isinstance(param, click.Option):
            return param.human_readable_name
        if value == "False" and param.secondary_opts:
            return param.secondary_opts[0]
        flag = max(param.opts, key=len)
        return flag if value in (None, "True") else f"{flag} {value}"

    return _MARKED.sub(spelled, text)
