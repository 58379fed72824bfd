"""What a command does when it fails, warns or is interrupted: one line on stderr, one exit code."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, TextIO

import click

from geothresh.cli.options import debug, verbosity
from geothresh.cli.terminal import escaped, one_line
from geothresh.errors import GeothreshError, GeothreshWarning

_LOGGER = logging.getLogger("geothresh")


class Failure(click.ClickException):
    """An error as click reports it: ``Error: message`` on stderr, then ``exit_code``."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code


class Interruption(click.ClickException):
    """A run that a signal ended; the message is no error, the exit code is 128 + signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}.")
        self.exit_code = 128 + signum

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class Terminated(BaseException):
    """Raised in the main thread by a signal that asks the process to end, so that it cleans up.

    Not an ``Exception``: nothing that handles failures may take it for one.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def usage_escaped() -> Iterator[None]:
    """Wrong usage quotes what was typed, and a * of the shell types names of files."""
    try:
        yield
    except click.ClickException as error:
        error.message = escaped(error.message)
        raise


@contextmanager
def reported(ctx: click.Context) -> Iterator[None]:
    """Run a command's body with warnings, logs, signals and exceptions turned into plain lines."""
    with ExitStack() as stack:
        stack.enter_context(_warnings_as_lines(ctx))
        stack.enter_context(_logs_as_lines())
        stack.enter_context(_signals_raised())
        stack.enter_context(usage_escaped())
        try:
            yield
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except GeothreshError as error:
            _show_traceback(ctx)
            raise Failure(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            _show_traceback(ctx)
            raise Interruption(signal.SIGINT) from error
        except Terminated as error:
            _show_traceback(ctx)
            raise Interruption(error.signum) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                _leave_closed_stdout()
                raise click.exceptions.Exit(128 + signal.SIGPIPE) from error
            _show_traceback(ctx)
            hint = "" if debug(ctx) else "; run again with --debug to see where"
            raise Failure(f"internal fault: {type(error).__name__}: {error}{hint}", 1) from error


def _show_traceback(ctx: click.Context) -> None:
    if debug(ctx):
        click.echo(escaped(traceback.format_exc()), err=True, nl=False)


def _leave_closed_stdout() -> None:
    """Point stdout at nothing, else the interpreter's last flush complains about the pipe."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


@contextmanager
def _warnings_as_lines(ctx: click.Context) -> Iterator[None]:
    """Print each distinct GeothreshWarning once; the libraries' own warnings go to the log."""
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = one_line(str(message))
        if not issubclass(category, GeothreshWarning):
            _LOGGER.info("%s: %s (%s:%d)", category.__name__, text, filename, lineno)
        elif text not in seen and verbosity(ctx) >= 0:
            seen.add(text)
            _print_line(f"Warning: {text}")

    with warnings.catch_warnings():
        # "always", not "once": the registry behind "once" outlives this block.
        warnings.simplefilter("always", GeothreshWarning)
        warnings.showwarning = show
        yield


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is at the time: a test runner replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        _print_line(escaped(self.format(record)))


def _print_line(text: str) -> None:
    """Write a line to stderr, above the progress bar if one is being drawn."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        click.echo(text, err=True)
    else:
        tqdm.tqdm.write(text, file=sys.stderr)


@contextmanager
def _logs_as_lines() -> Iterator[None]:
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise `Terminated` in the main thread on SIGTERM and SIGHUP, so that ``finally`` runs."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Terminated(signum)

    # A handler can be set from the main thread only; one that somebody else set (nohup ignores
    # SIGHUP) is left alone.
    chosen = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        chosen.append(signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        chosen = []
    chosen = [signum for signum in chosen if signal.getsignal(signum) is signal.SIG_DFL]
    for signum in chosen:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum in chosen:
            signal.signal(signum, signal.SIG_DFL)
