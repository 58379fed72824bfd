"""Make click options from dataclasses of options (`geothresh.fields`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import click

from geothresh.cli.helping import COMMON, HEADINGS, HeadedOption
from geothresh.cli.values import ADDRESS, BoundsType, ChoiceOf, NumberOrWord, SizeRange
from geothresh.fields import (
    Accepted,
    Choice,
    File,
    Flag,
    Metres,
    Number,
    Option,
    Options,
    Pairs,
    Rectangle,
    Several,
    Text,
    default_of,
    known,
)

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


_OWN: Any = object()


def option_of(
    kind: type[Options], name: str, *, help: str | None = None, default: Any = _OWN
) -> Decorator:
    """The click option of one field.

    Args:
        kind: the class.
        name: name of the field and of the command's parameter.
        help, default: used instead of the field's own.
    """
    option = known(kind)[name]
    value = default_of(kind, name) if default is _OWN else default
    heading = HEADINGS.get(kind.__name__, COMMON)
    return _click_option(name, option, value, help or option.help, heading)


def options_of(
    kind: type[Options],
    parameter: str,
    *,
    only: Sequence[str] = (),
    help: Mapping[str, str] | None = None,
    make: Callable[..., Any] | None = None,
) -> Decorator:
    """The click options of a class, which the command receives as one value.

    Args:
        kind: the class.
        parameter: name of the command's parameter.
        only: names of the fields that the command has; empty = all.
        help: help texts in place of the fields' own, by field.
        make: called with the fields by keyword to make the value; None = the class. With ``dict``
            the command can add fields that are not options.
    """
    names = only or list(known(kind))

    def decorate(command: Command) -> Command:
        @wraps(command)
        def collecting(*arguments: Any, **values: Any) -> Any:
            fields = {name: values.pop(name) for name in names}
            return command(*arguments, **{parameter: (make or kind)(**fields)}, **values)

        decorated: Command = collecting
        for name in reversed(names):
            decorated = option_of(kind, name, help=(help or {}).get(name))(decorated)
        return decorated

    return decorate


def _click_option(name: str, option: Option, default: Any, help: str, heading: str) -> Decorator:
    flags = option.flags or (f"--{name.replace('_', '-')}",)
    made = partial(click.option, cls=HeadedOption, heading=heading)
    match option.accepts:
        case Flag() if default:
            (flag,) = flags
            both = f"{flag}/--no-{flag.removeprefix('--')}"
            return made(both, name, default=True, show_default=True, help=help)
        case Flag():
            return made(*flags, name, is_flag=True, help=help)
        case Pairs():
            return made(
                *flags, name, multiple=True, metavar=option.metavar, callback=_pairs, help=help
            )
        case Several(of):
            return made(
                *flags, name, type=_type_of(of), multiple=True, metavar=option.metavar, help=help
            )
    return made(
        *flags, name, type=_type_of(option.accepts), default=default,
        show_default=default is not None, metavar=option.metavar or _metavar(option.accepts),
        help=help,
    )  # fmt: skip


def _metavar(accepts: Accepted) -> str | None:
    """N or X for numbers, where click would write INTEGER RANGE."""
    if isinstance(accepts, Number):
        return "N" if accepts.whole else "X"
    return None


def _type_of(accepts: Accepted) -> click.ParamType:
    match accepts:
        case Number(words=()):
            return _number(accepts)
        case Number():
            return NumberOrWord(_number(accepts), *accepts.words)
        case Choice():
            return ChoiceOf(accepts.words)
        case File():
            return ADDRESS
        case Rectangle():
            return BoundsType()
        case Metres():
            return SizeRange()
        case Text():
            return click.STRING
    raise TypeError(f"{accepts!r} has no type on the command line")


def _number(of: Number) -> click.ParamType:
    if of.least is None and of.most is None:
        return click.INT if of.whole else click.FLOAT
    kind = click.IntRange if of.whole else click.FloatRange
    return kind(min=of.least, max=of.most, min_open=of.above, max_open=of.below)


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for value, (name, equals, _) in zip(values, pairs, strict=True):
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE.", ctx, param)
    return {name.upper(): text for name, _, text in pairs}
