"""Exceptions of geothresh, each with the exit code of the command line.

A message is one line: what happened, the numbers, what to do next.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable


class GeothreshError(Exception):
    """Base of every error that geothresh raises on purpose; by itself, a fault of ours."""

    exit_code = 1
    resumable = False
    """Whether the same call may succeed later on, so that work done so far is worth keeping."""


class ClusterError(GeothreshError):
    """A Dask scheduler or all of its workers were lost."""

    resumable = True


class DeviceLostError(GeothreshError):
    """A GPU failed in the middle of a run; nothing on it works in this process any more."""

    resumable = True


class UsageError(GeothreshError):
    """The call contradicts itself or asks for something that does not exist."""

    exit_code = 2


class InputError(GeothreshError):
    """An input cannot be read, or what it holds is not what the operation needs."""

    exit_code = 3


class DeadlyTileError(InputError):
    """Every worker process that refined the tiles at one place died."""

    resumable = True


class OutputError(GeothreshError):
    """An output cannot be written, or would destroy something without leave to do so."""

    exit_code = 4
    resumable = True


class ModelError(GeothreshError):
    """A model file is missing, damaged, of another kind, or does not fit the request."""

    exit_code = 5


class GeothreshWarning(UserWarning):
    """Something odd in the input that was understood and handled; the text says how."""


def warn(text: str) -> None:
    """Warn with a `GeothreshWarning`, shown for the line that called geothresh."""
    frame, depth, outermost = inspect.currentframe(), 0, 0
    while frame is not None:
        depth += 1
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "geothresh":
            outermost = depth
        frame = frame.f_back
    warnings.warn(text, GeothreshWarning, stacklevel=outermost + 1)


def names(some: Iterable[str], most: int = 10) -> str:
    """Up to ``most`` names, sorted, for a message."""
    every = sorted(some)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
