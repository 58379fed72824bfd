r"""Print to the terminal with control characters escaped.

File names may contain ``\x1b]0;`` and worse; so may texts in model files and rasters.
So all commands print through this module.
"""

from __future__ import annotations

import os
import re
import sys

import click

from geothresh.errors import OutputError

# Bytes of file names that are no UTF-8, as Python has them in texts.
_FOREIGN = re.compile("[\udc80-\udcff]")


def escaped(text: str) -> str:
    """Escape the control characters of a text, except line breaks and tabs."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str) -> str:
    """Join the lines of a text, and escape control characters."""
    joined = " ".join(part.strip() for part in text.splitlines() if part.strip())
    return escaped(joined).replace("\t", "\\t")


def print_note(line: str) -> None:
    """Print a line for people on stderr."""
    click.echo(one_line(line), err=True)


def print_result(result: object) -> None:
    """Print a result, such as the path of a file, on stdout.

    It is escaped on a terminal, and unchanged for programs, which must find the file.
    """
    text = str(result)
    printed: str | bytes = escaped(text) if sys.stdout.isatty() else text
    if not sys.stdout.isatty() and _FOREIGN.search(text):
        # The stream would escape what is no UTF-8 in a file name.
        printed = os.fsencode(text)
    try:
        # By default click strips escape codes from output to programs.
        click.echo(printed, color=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"standard output cannot be written ({error.strerror}); all files are complete"
        ) from error
