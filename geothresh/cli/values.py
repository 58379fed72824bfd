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
    """A path, or a URL, which stays a string: a Path would drop one of its slashes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Path, or the URL as it is."""
        if isinstance(value, str) and is_remote(value):
            return value
        return super().convert(value, param, ctx)


# The types of paths on the command line: on this machine only, and on this or another one.
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
        """Return the word or number as it was given to the class."""
        return self.values[super().convert(str(value), param, ctx)]


class NumberOrWord(click.ParamType):
    """A number, or one of a few words; a click type checks the number."""

    name = "number"

    def __init__(self, number: click.ParamType, *words: str) -> None:
        self.number = number
        self.words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | str:
        """Return the number, or the word in lower case."""
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
        """Return the least and the greatest, which are equal for a single size."""
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
        """Return the four numbers."""
        if isinstance(value, tuple):
            return value
        try:
            left, bottom, right, top = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not L,B,R,T: four numbers.", param, ctx)
        return left, bottom, right, top
