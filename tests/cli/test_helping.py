"""--help: common options first, the others under headings, examples that work, 80 columns."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from geothresh.cli import main
from geothresh.cli.fields import options_of
from geothresh.cli.helping import COMMON, MESSAGES, HelpfulCommand
from geothresh.options import Reading


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with the words that call it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


COMMANDS = dict(commands(main))
each = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def shown(*words: str) -> list[str]:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
    assert result.exit_code == 0
    return result.output.splitlines()


@each
def test_help_fits_80_columns_and_lists_every_option_once(words: tuple[str, ...]) -> None:
    lines = shown(*words)
    assert max(map(len, lines)) <= 80
    lines = lines[next(n for n, line in enumerate(lines) if re.match(r"[A-Z].*:$", line)) :]
    for param in COMMANDS[words].params:
        if isinstance(param, click.Option):
            flag = param.opts[0]
            stated = [line for line in lines if re.match(rf"  {flag}(,? |$)", line)]
            assert len(stated) == 1, flag


@each
def test_the_common_options_come_first_and_what_is_said_last(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert isinstance(command, HelpfulCommand)
    params = {param.name for param in command.params}
    assert params >= set(command.common)
    by_heading: dict[str, list[str]] = {}
    for param in command.params:
        if isinstance(param, click.Option):
            by_heading.setdefault(command.heading_of(param), []).append(param.opts[0])
    if words[-1] not in ("train", "crossfit"):
        # What is not lifted to the top has a heading.
        assert len(by_heading.get(COMMON, [])) <= 14
    headings = [line[:-1] for line in shown(*words) if line.endswith(":") and line[0] != " "]
    assert headings[-2:] == [MESSAGES, "Examples"]
    assert COMMON not in headings[1:]


@each
def test_the_examples_are_command_lines_that_are_accepted(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert isinstance(command, HelpfulCommand) and command.examples
    for line in command.examples.values():
        start, *arguments = shlex.split(line.replace("\\\n", ""))
        assert (start, *arguments[: len(words)]) == ("geothresh", *words)
        command.make_context(words[-1], arguments[len(words) :])


def test_an_option_stands_under_the_heading_of_its_class_unless_it_is_common() -> None:
    @click.command(cls=HelpfulCommand, common=("nodata",), examples={"As it is": "look"})
    @options_of(Reading, "reading", only=("bidx", "nodata"))
    def look(reading: Reading) -> None:
        """Look."""

    assert CliRunner().invoke(look, ["--help"], terminal_width=60).output.splitlines() == [
        "Usage: look [OPTIONS]",
        "",
        "  Look.",
        "",
        "Options:",
        "  --nodata V  Value that means no data, in place of the",
        "              file's.",
        "",
        "How the input is read:",
        "  -b, --bidx N  Band with the confidence, counted from 1;",
        "                needed where there are several.  [x>=1]",
        "",
        "Messages:",
        "  --help  Show this message and exit.",
        "",
        "Examples:",
        "  As it is:",
        "    look",
    ]
