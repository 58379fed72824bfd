"""Exceptions of geothresh, each with the exit code of the command line.

A message is one line: what happened, the numbers, what to do next.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable


class GeothreshError(Exception):
    """Base class of all errors that geothresh raises; raised itself, it is a bug of geothresh."""

    exit_code = 1
    resumable = False
    """Whether the same call may succeed later, so that finished work is kept."""


class ClusterError(GeothreshError):
    """A Dask scheduler or all of its workers were lost."""

    resumable = True


class DeviceLostError(GeothreshError):
    """A GPU failed during a run; this process cannot use it any more."""

    resumable = True


class UsageError(GeothreshError):
    """The call contradicts itself or asks for something that does not exist."""

    exit_code = 2


class InputError(GeothreshError):
    """An input cannot be read, or its content is not suitable."""

    exit_code = 3


class DeadlyTileError(InputError):
    """Every worker process that refined a certain group of tiles died."""

    resumable = True


class OutputError(GeothreshError):
    """An output cannot be written, or would replace a file without permission."""

    exit_code = 4
    resumable = True


class ModelError(GeothreshError):
    """A model file is missing, damaged, of another kind, or does not fit the request."""

    exit_code = 5


class GeothreshWarning(UserWarning):
    """Something unusual in the input was handled; the text says how."""


def warn(text: str) -> None:
    """Give a `GeothreshWarning` for the line that called geothresh."""
    frame, depth, outermost = inspect.currentframe(), 0, 0
    while frame is not None:
        depth += 1
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "geothresh":
            outermost = depth
        frame = frame.f_back
    warnings.warn(text, GeothreshWarning, stacklevel=outermost + 1)


def number_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, for a message: ``1 file``, ``1,200 files``.

    Args:
        number: 0 or more.
        noun: for one.
        plural: for others; by default the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def names(some: Iterable[str], most: int = 10) -> str:
    """Join up to ``most`` names, sorted, for a message."""
    every = sorted(some)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
