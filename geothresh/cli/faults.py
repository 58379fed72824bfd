"""Turn errors, warnings, logs and signals of a command into lines on stderr and an exit code."""

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
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from types import FrameType, TracebackType
from typing import Any, TextIO

import click

from geothresh.cli.naming import as_options
from geothresh.cli.options import debug, print_json, running, verbosity
from geothresh.cli.terminal import escaped, one_line
from geothresh.errors import GeothreshError, GeothreshWarning, InputError, OutputError
from geothresh.files import too_long

_LOGGER = logging.getLogger("geothresh")

# Bytes of address space below which libraries crash when they are loaded.
_LEAST_ADDRESS_SPACE = 1 << 30


class Failure(click.ClickException):
    """An error as click reports it: ``Error: message`` on stderr, then ``exit_code``."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code


class Interruption(click.ClickException):
    """A run that a signal ended; shown without the word Error, with exit code 128 + signal."""

    def __init__(self, signum: int, notes: str = "") -> None:
        super().__init__(one_line(f"Stopped by {signal.Signals(signum).name}{notes}") + ".")
        self.exit_code = 128 + signum

    def show(self, file: Any = None) -> None:
        """Print the message without the word Error."""
        click.echo(self.message, err=True)


class Terminated(BaseException):
    """Raised in the main thread on SIGTERM or SIGHUP, so that the process cleans up.

    Not an ``Exception``, so that no handler of failures catches it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def usage_escaped() -> Iterator[None]:
    """Escape control characters in messages about wrong usage, which may quote file names."""
    try:
        yield
    except click.ClickException as error:
        error.message = escaped(error.message)
        raise


@contextmanager
def reported(ctx: click.Context) -> Iterator[None]:
    """Run a command's body with warnings, logs, signals and exceptions turned into plain lines."""
    with ExitStack() as stack:
        stack.enter_context(_errors_as_json(ctx))
        stack.enter_context(_warnings_as_lines(ctx))
        stack.enter_context(_logs_as_lines(ctx))
        stack.enter_context(_signals_raised())
        stack.enter_context(usage_escaped())
        try:
            _require_address_space()
            with _lost_signals_raised():
                yield
                sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except GeothreshError as error:
            _show_traceback(ctx)
            text = as_options(f"{error}{_notes(error)}", running(ctx))
            raise Failure(text, error.exit_code) from error
        except KeyboardInterrupt as error:
            _show_traceback(ctx)
            notes = as_options(_notes(error), running(ctx))
            raise Interruption(signal.SIGINT, notes) from error
        except Terminated as error:
            _show_traceback(ctx)
            notes = as_options(_notes(error), running(ctx))
            raise Interruption(error.signum, notes) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                _leave_closed_stdout()
                raise click.exceptions.Exit(128 + signal.SIGPIPE) from error
            _show_traceback(ctx)
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                # Any path may be too long, and paths are used everywhere: so it is checked here.
                raise Failure(too_long(error.filename), InputError.exit_code) from error
            if _lacks_memory(error):
                what = str(error) or type(error).__name__
                text = (
                    f"not enough memory ({what}); end other programs, raise the limit (ulimit -v), "
                    f"or take a smaller --tile-size or --batch-size{_notes(error)}"
                )
                raise Failure(as_options(text, running(ctx)), 1) from error
            hint = "" if debug(ctx) else "; run again with --debug to see where"
            text = f"internal fault: {type(error).__name__}: {error}{hint}{_notes(error)}"
            raise Failure(as_options(text, running(ctx)), 1) from error


@contextmanager
def _errors_as_json(ctx: click.Context) -> Iterator[None]:
    """With ``--json``, print errors on stdout too, as the one JSON object there.

    ``--json`` is searched in the raw arguments, as wrong ones are not parsed.
    """
    asked = "--json" in takewhile(lambda argument: argument != "--", ctx.args)
    try:
        yield
    except click.ClickException as error:
        if asked:
            # If stdout cannot be written either, stderr still has the first error.
            with suppress(OutputError, OSError):
                print_json({"error": error.format_message(), "exit_code": error.exit_code})
        raise


def _notes(error: BaseException) -> str:
    """The notes that were added to an error, such as how the run is resumed."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _require_address_space() -> None:
    """Raise MemoryError if the limit on memory is too low to load the libraries.

    OpenBLAS would retry its allocations forever; torch would end the process by a signal.
    """
    try:
        import resource
    except ImportError:
        return  # Windows has no such limits
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise MemoryError(
            f"the limit on the address space is {limit >> 20} MiB, and "
            f"{_LEAST_ADDRESS_SPACE >> 20} are the least to begin with"
        )


def _lacks_memory(error: Exception) -> bool:
    """Whether an error means that memory is exhausted."""
    if isinstance(error, ImportError):
        # The dynamic loader reports it so.
        texts = ("failed to map segment", "cannot allocate memory")
        return any(text in str(error).lower() for text in texts)
    if isinstance(error, RuntimeError):
        # Raised for the stack of a thread, by C++, and by torch for an error of the system.
        causes = ("can't start new thread", "std::bad_alloc", "Cannot allocate memory")
        return any(cause in str(error) for cause in causes)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def _show_traceback(ctx: click.Context) -> None:
    if debug(ctx):
        click.echo(escaped(traceback.format_exc()), err=True, nl=False)


def _leave_closed_stdout() -> None:
    """Redirect a closed stdout to the null device, or the interpreter's last flush fails."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


@contextmanager
def _warnings_as_lines(ctx: click.Context) -> Iterator[None]:
    """Print each distinct GeothreshWarning once; warnings of libraries go to the log."""
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = one_line(as_options(str(message), running(ctx)))
        if not issubclass(category, GeothreshWarning):
            _LOGGER.info("%s: %s (%s:%d)", category.__name__, text, filename, lineno)
        elif text not in seen and verbosity(ctx) >= 0:
            seen.add(text)
            print_line(f"Warning: {text}")

    with warnings.catch_warnings():
        # "always", not "once": the registry behind "once" outlives this block.
        warnings.simplefilter("always", GeothreshWarning)
        warnings.showwarning = show
        yield


class _StderrHandler(logging.Handler):
    """Writes to the current stderr, which a test runner may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(escaped(self.format(record)))


def print_line(text: str) -> None:
    """Write a line to stderr, above the progress bar if one is being drawn."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        click.echo(text, err=True)
    else:
        tqdm.tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


@contextmanager
def _logs_as_lines(ctx: click.Context) -> Iterator[None]:
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _LOGGER.addHandler(handler)
    faults = _LOGGER.getChild("faults")  # errors of libraries that were handled
    level = faults.level
    if debug(ctx):
        faults.setLevel(logging.INFO)
    try:
        yield
    finally:
        faults.setLevel(level)
        _LOGGER.removeHandler(handler)


# Signals that asked this process to end. The exception of a handler is lost where Python ignores
# exceptions: in a callback at a fork or of GDAL, or in a destructor.
_ASKED: list[int] = []


def require_not_stopped(*_: Any) -> None:
    """Raise the exception of a signal again if it was lost; called in long runs.

    Raises:
        KeyboardInterrupt, Terminated: a signal asked for the end.
    """
    if _ASKED:
        raise _raised(_ASKED[0])


@contextmanager
def _lost_signals_raised() -> Iterator[None]:
    """Raise the exception of a signal in place of an error that comes after it.

    A call of GDAL during which a signal was lost fails for no other reason.
    """
    try:
        yield
    except Exception as error:
        if not _ASKED:
            raise
        stop = _raised(_ASKED[0])
        for note in getattr(error, "__notes__", ()):
            stop.add_note(note)
        raise stop from error


def _raised(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else Terminated(signum)


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise an exception in the main thread on the first signal that asks the process to end.

    `KeyboardInterrupt` on SIGINT, `Terminated` on SIGTERM and SIGHUP, so that ``finally`` runs. A
    second signal ends the process at once; finished work is on the disk by then.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        if _ASKED:
            os._exit(128 + signum)
        _ASKED.append(signum)
        raise _raised(signum)

    defaults: dict[signal.Signals, Any] = {}
    # Handlers can be set in the main thread only. A handler that is not the default (nohup ignores
    # SIGHUP) is left alone.
    if threading.current_thread() is threading.main_thread():
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if hasattr(signal, "SIGHUP"):
            defaults[signal.SIGHUP] = signal.SIG_DFL
    defaults = {
        signum: handler
        for signum, handler in defaults.items()
        if signal.getsignal(signum) is handler
    }

    def show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if not (_ASKED and issubclass(kind, (KeyboardInterrupt, Terminated))):
            shown(kind, error, where)

    def ignore(lost: sys.UnraisableHookArgs) -> None:
        if not (_ASKED and issubclass(lost.exc_type, (KeyboardInterrupt, Terminated))):
            ignored(lost)

    _ASKED.clear()
    for signum in defaults:
        signal.signal(signum, stop)
    # Where an exception is lost it is printed, by Cython with both.
    shown, ignored = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = show, ignore
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = shown, ignored
        # Not restored while the process ends: a second signal, of a terminal or supervisor, would
        # print a traceback.
        if not _ASKED:
            for signum, handler in defaults.items():
                signal.signal(signum, handler)
