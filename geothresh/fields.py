"""Fields of dataclasses that are options: each with its default, what it accepts and its help.

A class of options checks its values when it is made (`check`). The functions that take it, the
command line (`geothresh.cli.fields`), tags and fingerprints (`decisive`) know from the fields all
that is to be known of an option.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from typing import Any, ParamSpec, Protocol, TypeVar

from geothresh.errors import UsageError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Accepted(Protocol):
    """The values that an option accepts."""

    def refusal(self, value: Any) -> str | None:
        """What to give instead of this value; None where it is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """Numbers of a range, and perhaps a few words in their place."""

    whole: bool = False
    """Integers only."""
    least: float | None = None
    most: float | None = None
    above: bool = False
    """Whether `least` itself is refused."""
    below: bool = False
    """Whether `most` itself is refused."""
    words: tuple[str, ...] = ()

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`; NaN, of which no comparison holds, is in no range."""
        if isinstance(value, str) and value in self.words:
            return None
        kind = Integral if self.whole else Real
        if not isinstance(value, bool) and isinstance(value, kind) and self._holds(value):
            return None
        number = "a whole number" if self.whole else "a number"
        if self.most is not None and self.below:
            number += f" of at least {self.least or 0:g} and below {self.most:g}"
        elif self.most is not None:
            number += f" from {self.least or 0:g} to {self.most:.12g}"
        elif self.least is not None:
            number += f" above {self.least:g}" if self.above else f" of at least {self.least:g}"
        return f"give {' or '.join((*self.words, number))}"

    def _holds(self, value: Any) -> bool:
        if self.least is None and self.most is None:
            return True  # a stored value, which may be NaN
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer too large for a float
            finite = False
        if not finite or (self.above and value == low):
            return False
        return low <= value <= high and not (self.below and value == high)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words or numbers."""

    words: tuple[str | int, ...]

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if value in self.words else f"give {' or '.join(map(str, self.words))}"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or False."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if isinstance(value, bool) else "give True or False"


@dataclass(frozen=True, slots=True)
class Text:
    """Any text."""

    or_path: bool = False
    """Whether a path is one too: of what is found by its name, or in a file."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        if isinstance(value, str) or (self.or_path and isinstance(value, os.PathLike)):
            return None
        return "give a name or a path" if self.or_path else "give a text"


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file or directory, which is looked at later."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if isinstance(value, str | os.PathLike) else "give a path"


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Left, bottom, right and top in the CRS of a raster."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        if isinstance(value, Sequence) and len(value) == 4:
            left, bottom, right, top = value
            numbers = all(isinstance(end, Real) and math.isfinite(end) for end in value)
            if numbers and left < right and bottom < top:
                return None
        return "give left, bottom, right and top in the scene's CRS, each smaller than its opposite"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Values by name."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if isinstance(value, Mapping) else "give a mapping of names to values"


@dataclass(frozen=True, slots=True)
class Metres:
    """A length above 0, or the least and the greatest."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        ends = value if isinstance(value, tuple) else (value,)
        numbers = len(ends) in (1, 2) and all(isinstance(end, Real) for end in ends)
        if numbers and 0 < ends[0] <= ends[-1] < math.inf:
            return None
        return "give metres above 0, or the least and the greatest"


@dataclass(frozen=True, slots=True)
class Function:
    """What is told how far something is."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if callable(value) else "give a function"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of some classes of options."""

    kinds: tuple[type[Options], ...]

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        if isinstance(value, self.kinds):
            return None
        return f"give {' or '.join(f'{kind.__name__}(...)' for kind in self.kinds)}"


@dataclass(frozen=True, slots=True)
class Several:
    """Any number of values, in a list or tuple."""

    of: Accepted

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        if not isinstance(value, list | tuple):
            return "give a list"
        return next((text for one in value if (text := self.of.refusal(one))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known of an option besides its name, type and default."""

    help: str
    """One line, for the command line."""
    accepts: Accepted
    pixels: bool
    """Whether pixels or shapes of the outputs depend on the value as it is given: such options are
    part of tags and fingerprints by name. Of others, what they lead to is (the scaling, the
    device), or nothing at all."""
    flags: tuple[str, ...] = ()
    """Spellings on the command line, where not ``--name`` alone."""
    metavar: str | None = None
    """What the command line's help writes for the value."""


def option(
    default: Any,
    help: str,
    accepts: Accepted,
    *,
    pixels: bool = False,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
) -> Any:
    """A dataclass field that is an option: see `Option`. A dict as default is copied."""
    known = Option(help=help, accepts=accepts, pixels=pixels, flags=flags, metavar=metavar)
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"option": known})
    return field(default=default, metadata={"option": known})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A dataclass whose fields are made by `option`, and are checked when it is made."""

    def __post_init__(self) -> None:
        check(self)


def known(options: Options | type[Options]) -> dict[str, Option]:
    """What is known of each option of a class, by its name; other fields are left out."""
    every = fields(options)
    return {one.name: one.metadata["option"] for one in every if "option" in one.metadata}


def default_of(options: type[Options], name: str) -> Any:
    """The value of an option that is not given."""
    one = options.__dataclass_fields__[name]
    return one.default if one.default_factory is MISSING else one.default_factory()


def check(options: Options) -> None:
    """Check each value on its own; first in a ``__post_init__`` that has more to check.

    Raises:
        UsageError: one is not accepted.
    """
    for name, one in known(options).items():
        value = getattr(options, name)
        if value is not None or default_of(type(options), name) is not None:
            require(name, value, one.accepts)


def require(name: str, value: Any, accepts: Accepted) -> None:
    """Check one value by itself.

    Raises:
        UsageError: it is not accepted.
    """
    refusal = accepts.refusal(value)
    if refusal is not None:
        raise UsageError(f"`{name}` {_shown(value)}: {refusal}")


def _shown(value: Any) -> str:
    """A value in one line: texts in quotes, as numbers may be given as texts by mistake."""
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, str):
        return repr(value)
    if value is None or isinstance(value, Real | os.PathLike):
        return str(value)
    return f"of type {type(value).__name__}"


def checked(
    **accepts: Accepted,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Refuse arguments of a wrong kind, before a function fails somewhere inside.

    A class of options, a flag or a whole number as default tells what the argument is, and so do
    the names of the functions that are told how far it is, ``progress`` and ``on_...``. Who gives
    an option by itself is told of its class.

    Args:
        accepts: what else is accepted, by the names of arguments.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        parameters = signature(function).parameters
        accepted = {n: _accepted(n, one.default) for n, one in parameters.items()} | accepts

        groups = {
            option: f"{name}={kind.__name__}({option}=...)"
            for name, one in accepted.items()
            if isinstance(one, Value)
            for kind in one.kinds
            for option in known(kind)
            if option not in parameters
        }

        @wraps(function)
        def checking(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for name, value in (*zip(parameters, args, strict=False), *kwargs.items()):
                if name in groups:
                    raise UsageError(f"`{name}` is given in a class: {groups[name]}")
                about = accepted.get(name)
                if about and not (value is None and parameters[name].default is None):
                    require(name, value, about)
            return function(*args, **kwargs)

        return checking

    return decorate


def _accepted(name: str, default: Any) -> Accepted | None:
    if name == "progress" or name.startswith("on_"):
        return Function()
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int):
        return Number(whole=True)
    return Value((type(default),)) if isinstance(default, Options) else None


def given(options: Options) -> list[str]:
    """Names of the options that are not at their defaults."""
    return [n for n in known(options) if getattr(options, n) != default_of(type(options), n)]


def require_only(options: Options, *names: str, why: str) -> None:
    """Refuse options that would do nothing, and be thought to.

    Args:
        options: what a function was given.
        names: those that it uses.
        why: what is said of any other one, such as "is for a raster".

    Raises:
        UsageError: another one is given.
    """
    for name in given(options):
        if name not in names:
            raise UsageError(f"`{name}` {why}; leave it out")


def plain(value: Any) -> Any:
    """A dataclass of results, or what is in one, as JSON types: paths are texts, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, os.PathLike) else value


def decisive(*options: Options) -> dict[str, Any]:
    """The options that pixels depend on, by name: for tags and fingerprints."""
    return {
        name: getattr(one, name)
        for one in options
        for name, about in known(one).items()
        if about.pixels
    }


FLAG = Flag()
COUNT = Number(whole=True, least=1)
SEED = Number(whole=True, least=0, most=2**32 - 1)
"""What every generator of random numbers takes, torch's too after it is combined with a step."""
AMOUNT = Number(least=0)
SHARE = Number(least=0, most=1)
