"""Dataclass fields that declare options: default, accepted values and help.

A class of options checks its values when it is created (`check`). Functions, the command line
(`geothresh.cli.fields`), tags and fingerprints (`decisive`) read the fields, so that an option is
declared once.
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
        """Text that says what to give instead of a value; None if the value is accepted."""


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number in a range, or one of a few words."""

    whole: bool = False
    """Whether only integers are accepted."""
    least: float | None = None
    """Minimum; None = no minimum."""
    most: float | None = None
    """Maximum; None = no maximum."""
    above: bool = False
    """Whether `least` itself is refused."""
    below: bool = False
    """Whether `most` itself is refused."""
    words: tuple[str, ...] = ()
    """Accepted words."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`; NaN is refused wherever there is a range."""
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
            # A stored value of a raster, which may be NaN, but no integer too large for a float.
            return not isinstance(value, Integral) or _is_finite(value)
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        if not _is_finite(value) or (self.above and value == low):
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
    """Whether a path is accepted, too: for options that take a name or a file."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        if isinstance(value, str) or (self.or_path and isinstance(value, os.PathLike)):
            return None
        return "give a name or a path" if self.or_path else "give a text"


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file or directory; whether it exists is checked later."""

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
            numbers = all(isinstance(end, Real) and _is_finite(end) for end in value)
            if numbers and left < right and bottom < top:
                return None
        return "give left, bottom, right and top in the scene's CRS, each smaller than its opposite"


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping of names to values."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if isinstance(value, Mapping) else "give a mapping of names to values"


@dataclass(frozen=True, slots=True)
class Metres:
    """A length above 0 in metres, or a range of lengths (least, greatest)."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        ends = value if isinstance(value, tuple) else (value,)
        numbers = len(ends) in (1, 2) and all(isinstance(end, Real) for end in ends)
        if numbers and 0 < ends[0] <= ends[-1] < math.inf:
            return None
        return "give metres above 0, or the least and the greatest"


@dataclass(frozen=True, slots=True)
class Function:
    """A progress callback."""

    def refusal(self, value: Any) -> str | None:
        """See `Accepted`."""
        return None if callable(value) else "give a function"


@dataclass(frozen=True, slots=True)
class Value:
    """An instance of one of several classes of options."""

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
        return next((text for item in value if (text := self.of.refusal(item))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The metadata of an option, besides its name, type and default."""

    help: str
    """Help text of the command line."""
    accepts: Accepted
    """The accepted values."""
    pixels: bool
    """Whether pixels or shapes of the outputs depend on the value as given. Such options are in
    tags and fingerprints by name. For others, the decision that they lead to may be there, such as
    the scaling or the device."""
    flags: tuple[str, ...] = ()
    """Names on the command line; empty = ``--name``."""
    metavar: str | None = None
    """Placeholder of the value in the command line's help."""


def option(
    default: Any,
    help: str,
    accepts: Accepted,
    *,
    pixels: bool = False,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
) -> Any:
    """Make a dataclass field that is an option, see `Option`; a dict as default is copied."""
    known = Option(help=help, accepts=accepts, pixels=pixels, flags=flags, metavar=metavar)
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"option": known})
    return field(default=default, metadata={"option": known})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Base class of dataclasses with fields made by `option`, which are checked on creation."""

    def __post_init__(self) -> None:
        check(self)


def known(options: Options | type[Options]) -> dict[str, Option]:
    """The metadata of each option of a class, by name; other fields are left out."""
    every = fields(options)
    return {item.name: item.metadata["option"] for item in every if "option" in item.metadata}


def default_of(options: type[Options], name: str) -> Any:
    """The default of an option."""
    item = options.__dataclass_fields__[name]
    return item.default if item.default_factory is MISSING else item.default_factory()


def check(options: Options) -> None:
    """Check each value separately; call it first in a ``__post_init__`` that checks more.

    Numbers of NumPy and other libraries become numbers of Python.

    Raises:
        UsageError: a value is not accepted.
    """
    for name, about in known(options).items():
        value = getattr(options, name)
        if value is not None or default_of(type(options), name) is not None:
            require(name, value, about.accepts)
            object.__setattr__(options, name, _own_number(value))


def _own_number(value: Any) -> Any:
    """A number of another library, such as NumPy, as one of Python, which JSON can hold."""
    if type(value) in (bool, int, float) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def require(name: str, value: Any, accepts: Accepted) -> None:
    """Check one value.

    Raises:
        UsageError: the value is not accepted.
    """
    refusal = accepts.refusal(value)
    if refusal is not None:
        raise UsageError(f"`{name}` {_shown(value)}: {refusal}")


def _shown(value: Any) -> str:
    """A value in one line; strings are quoted, to show a number that is given as a string."""
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
    """Decorate a function so that it refuses arguments of a wrong type before it runs.

    What an argument accepts follows from its default (a class of options, a flag, an integer), or
    from its name: ``progress`` and ``on_...`` are callbacks. An option that is given as a separate
    keyword is refused with the name of its class.

    Args:
        accepts: what other arguments accept, by name.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        parameters = signature(function).parameters
        accepted = {n: _accepted(n, p.default) for n, p in parameters.items()} | accepts

        groups = {
            option: f"{name}={kind.__name__}({option}=...)"
            for name, about in accepted.items()
            if isinstance(about, Value)
            for kind in about.kinds
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
    """Names of the options that differ from their defaults."""
    return [n for n in known(options) if getattr(options, n) != default_of(type(options), n)]


def require_only(options: Options, *names: str, why: str) -> None:
    """Refuse options that a function would silently ignore.

    Args:
        options: the given options.
        names: names of the options that the function uses.
        why: the reason why others are refused, such as "is for a raster".

    Raises:
        UsageError: another option is given.
    """
    for name in given(options):
        if name not in names:
            raise UsageError(f"`{name}` {why}; leave it out")


def plain(value: Any) -> Any:
    """Convert a dataclass of results to JSON types: paths become texts, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


def decisive(*options: Options) -> dict[str, Any]:
    """Values of the options that pixels depend on, by name: for tags and fingerprints."""
    return {
        name: getattr(group, name)
        for group in options
        for name, about in known(group).items()
        if about.pixels
    }


FLAG = Flag()
COUNT = Number(whole=True, least=1)
SEED = Number(whole=True, least=0, most=2**32 - 1)
"""Accepted by every random number generator, also by torch's after it is combined with a step."""
AMOUNT = Number(least=0)
SHARE = Number(least=0, most=1)
