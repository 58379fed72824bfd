"""Click types of values on the command line.

Whether a path exists is checked by the library, with the exit code of a bad input (3) or output
(4), where click's check would give that of wrong usage (2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from geothresh.addresses import is_remote


class PathOrAddress(click.Path):
    """A path; a URL stays a text, of which a Path would lose a slash."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A Path, or the address as it is."""
        if isinstance(value, str) and is_remote(value):
            return value
        return super().convert(value, param, ctx)


# The type of every path on the command line, and of those that may be on another machine.
PATH = click.Path(path_type=Path)
ADDRESS = PathOrAddress(path_type=Path)


class ChoiceOf(click.Choice):
    """One of a few words or whole numbers."""

    def __init__(self, values: Sequence[str | int]) -> None:
        super().__init__([str(value) for value in values])
        self.values = {str(value): value for value in values}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        """The word or number as given to the class."""
        return self.values[super().convert(str(value), param, ctx)]


class NumberOrWord(click.ParamType):
    """A number, or one of a few words; the number's own type and range are click's."""

    name = "number"

    def __init__(self, number: click.ParamType, *words: str) -> None:
        self.number = number
        self.words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | str:
        """The number, or the word in lower case."""
        if isinstance(value, str) and value.lower() in self.words:
            return value.lower()
        try:
            number: int | float = self.number.convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} Or say {' or '.join(self.words)}.", param, ctx)
        return number


class SizeRange(click.ParamType):
    """A size above 0, or the least and the greatest separated by a comma."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """The least and the greatest; equal for a single size."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or not 0 < numbers[0] <= numbers[-1] < math.inf:
            self.fail(f"{value!r} is neither a size above 0 nor MIN,MAX.", param, ctx)
        return numbers[0], numbers[-1]


class BoundsType(click.ParamType):
    """Left, bottom, right, top: four numbers separated by commas."""

    name = "bounds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """The four numbers."""
        if isinstance(value, tuple):
            return value
        try:
            left, bottom, right, top = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not L,B,R,T: four numbers.", param, ctx)
        return left, bottom, right, top
