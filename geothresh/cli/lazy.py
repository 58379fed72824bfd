"""A click group that imports its commands when they are used, so that --help is quick."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group of commands, each in a module of its own, under its own name."""

    def __init__(self, *args: Any, homes: Mapping[str, str], **attrs: Any) -> None:
        """Make a click group; `homes` has the module of each command by name."""
        super().__init__(*args, **attrs)
        self.homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, without importing their modules."""
        return sorted({*self.homes, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of the command that is called."""
        if cmd_name not in self.homes:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(self.homes[cmd_name]), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.homes[cmd_name]}.{cmd_name} is not a click command")
        return command
