r"""What goes to a terminal: text of strangers, such as file names, must not command it.

A file may be called anything, ``\x1b]0;`` and worse included, and model files and rasters carry
texts of their own. So no command writes past this module.
"""

from __future__ import annotations

import sys

import click

from geothresh.errors import OutputError


def escaped(text: str) -> str:
    """The text with its lines and tabs, and every other control character spelled out."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    """Join the lines of `text` and escape control characters, which a file name may hold."""
    joined = " ".join(part.strip() for part in text.splitlines() if part.strip())
    return escaped(joined).replace("\t", "\\t")


def say(line: str) -> None:
    """Print a line for people, to stderr."""
    click.echo(one_line(line), err=True)


def give(result: object) -> None:
    """Print a result, such as the path of a file, to stdout.

    Programs get it as it is: they have to find the file. On a terminal it is escaped.
    """
    text = str(result)
    try:
        # Left to itself, click takes colours out of what goes to a program.
        click.echo(escaped(text) if sys.stdout.isatty() else text, color=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"standard output cannot be written ({error.strerror}); all files are complete"
        ) from error
