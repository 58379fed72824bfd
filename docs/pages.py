"""Pages of the site that are not in docs/: the README, the model card, and the commands' options.

mkdocs calls `on_files`; the reference is made of the click commands themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from geothresh.cli import main
from geothresh.cli.helping import MESSAGES, HelpfulCommand

_ROOT = Path(__file__).parents[1]
# What lies outside docs/, and its page.
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    **{f"geothresh/nn/models/{name}.md": f"{name}.md" for name in ("roads", "landslides")},
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and lead links to what lies outside docs/ to them."""
    for source, page in _PAGES.items():
        text = (_ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_led(text.replace("](docs/", "]("))))
    reference = "\n\n".join(_reference())
    files.append(File.generated(config, "commands.md", content=reference))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead the links of a page of docs/ likewise."""
    return _led(markdown)


def _led(text: str) -> str:
    for source, page in _PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(source)}", f"]({page}", text)
    # Files that have no page.
    return re.sub(r"\[([^\]]*)\]\((?:\.\./)*[\w/]+\.(?:cff|ipynb|py)\)", r"\1", text)


def _reference() -> Iterator[str]:
    yield "# Commands"
    yield "Most commands have these options too; their tables leave them out:"
    shared = next(command for _, command in _commands(main) if isinstance(command, HelpfulCommand))
    yield _table(shared, MESSAGES)
    for names, command in _commands(main):
        yield from _described(" ".join(("geothresh", *names)), command)


def _commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with the words that call it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, *names, name)
        else:
            yield (*names, name), command


def _described(name: str, command: click.Command) -> Iterator[str]:
    assert isinstance(command, HelpfulCommand), name
    ctx = click.Context(command, info_name=name)
    yield f"## {name}"
    yield f"```\n{' '.join((name, *command.collect_usage_pieces(ctx)))}\n```"
    yield _paragraphs(command.help or "")
    for what, line in command.examples.items():
        yield f"{what}:\n\n```\n{line}\n```"
    headings = dict.fromkeys(map(command.heading_of, command.params))
    for heading in sorted(headings, key=lambda one: one != "Options"):
        if heading != MESSAGES:
            table = _table(command, heading)
            if table:
                yield f"**{heading}**"
                yield table


def _paragraphs(text: str) -> str:
    parts = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(_escaped(" ".join(part.split())) for part in parts)


def _table(command: HelpfulCommand, heading: str) -> str:
    """The options under a heading; empty where there is none."""
    ctx = click.Context(command)
    records = [
        record
        for param in command.params
        if isinstance(param, click.Option) and command.heading_of(param) == heading
        if (record := param.get_help_record(ctx)) is not None
    ]
    rows = [f"| `{flags}` | {_escaped(_cell(text))} |" for flags, text in records]
    return "\n".join(["| option | what it does |", "|---|---|", *rows]) if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text in which no word is taken for a tag or for emphasis."""
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
