"""Format ``--help``: common options first, the others under headings, then examples.

The heading of an option is that of its class in `HEADINGS`, or given by the decorator that makes
it. A command lists the options that most users need at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import click

COMMON = "Options"
"""Heading of common options, and of those without another heading."""
MESSAGES = "Messages"
"""Heading of the options that every command has."""
WRITING = "Files that are written"

HEADINGS = {
    "BasePlan": "The network",
    "BaseRecipe": "How it is trained",
    "BaseTiling": "Tiles",
    "Calibrating": "How candidates are compared",
    "Centerlines": "Centrelines",
    "Compute": "Where it runs",
    "FolderData": "Folders of maps and masks",
    "Foreground": "What is foreground",
    "Holdout": "What is held out",
    "ImageData": "Which images",
    "LossWeights": "How the loss is weighted",
    "Many": "Many files",
    "Maps": "Which maps",
    "NetworkChoice": "The network",
    "Outputs": "Further outputs",
    "Polygons": "Polygons",
    "Reading": "How the input is read",
    "Recipe": "How it is trained",
    "Refining": "How the model refines",
    "SceneData": "Scenes and labels",
    "Scoring": "How maps are scored",
    "Splitting": "What is held out for validation",
    "Tiling": "Tiles",
    "VectorWriting": WRITING,
    "Writing": WRITING,
}
"""The heading of the fields of each class of options."""


class HeadedOption(click.Option):
    """An option with the heading under which it is listed."""

    def __init__(self, *args: Any, heading: str = COMMON, **attrs: Any) -> None:
        """Take the heading, besides what a click option takes."""
        super().__init__(*args, **attrs)
        self.heading = heading


class HelpfulCommand(click.Command):
    """A command whose options stand under headings, with examples below."""

    def __init__(
        self,
        *args: Any,
        common: Sequence[str] = (),
        examples: Mapping[str, str] | None = None,
        **attrs: Any,
    ) -> None:
        """Make a click command with common options and examples.

        Args:
            args, attrs: as for `click.Command`.
            common: names of the parameters to list first, in this order.
            examples: command lines, by what they do.
        """
        super().__init__(*args, **attrs)
        self.common = tuple(common)
        self.examples = dict(examples or {})

    def heading_of(self, param: click.Parameter) -> str:
        """The heading under which an option is listed."""
        if param.name in self.common:
            return COMMON
        if param.name == "help":
            return MESSAGES
        return param.heading if isinstance(param, HeadedOption) else COMMON

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one list for each heading."""
        groups: dict[str, list[tuple[str, str]]] = {COMMON: [], MESSAGES: []}
        for param in sorted(self.get_params(ctx), key=self._rank):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(self.heading_of(param), []).append(record)
        groups[MESSAGES] = groups.pop(MESSAGES)  # last
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping them, so that they can be copied."""
        if self.examples:
            with formatter.section("Examples"):
                for what, line in self.examples.items():
                    formatter.write_text(f"{what}:")
                    formatter.write(indent(line, " " * (formatter.current_indent + 2)) + "\n")
        super().format_epilog(ctx, formatter)

    def _rank(self, param: click.Parameter) -> int:
        """The position of an option: common ones first in their order, then the others."""
        name = param.name or ""
        return self.common.index(name) if name in self.common else len(self.common)
