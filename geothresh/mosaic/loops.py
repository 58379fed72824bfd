"""Event loop for local workers whose thread and child processes ignore Ctrl-C (SIGINT).

Ctrl-C goes to all processes of a terminal, but one alone is to answer it. A worker that is told to
ignore it once it is up has had seconds before that in which it did not. A blocked signal is
inherited by threads and processes, and through exec, so that a worker is deaf from its first
instruction on; the main thread, which blocks it for the start of one thread, loses none.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

from distributed.utils import LoopRunner

_FAULTS = logging.getLogger("geothresh.faults")
"""Faults inside libraries that come back as an exception as well, or of what is ending: no news,
unless somebody looks for an error (--debug)."""

# How the tracker of multiprocessing begins its complaint.
_LEAKS = "ignore:resource_tracker:UserWarning"


@contextmanager
def loop_without_interrupts() -> Iterator[Any]:
    """Tornado's event loop, running in a thread that blocks SIGINT, as all that is started there.

    What goes wrong in it unseen by anybody is logged as information by ``geothresh.faults``.
    """
    _start_tracker()
    runner = LoopRunner()
    try:
        with _interrupts_blocked():
            runner.start()
        loop = runner.loop
        loop.add_callback(loop.asyncio_loop.set_exception_handler, _note)
        yield loop
    finally:
        runner.stop()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep SIGINT from this thread; one that came meanwhile is answered at the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield  # Windows: workers share the console's Ctrl-C
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start multiprocessing's resource tracker, which removes leaked semaphores.

    Here, because it unblocks SIGINT in the thread that starts it. A run that is killed leaves some
    semaphores to it; that it removes them is no warning of ours.
    """
    if not hasattr(resource_tracker, "ensure_running"):
        return
    quiet = [] if _FAULTS.isEnabledFor(logging.INFO) else [_LEAKS]
    sys.warnoptions.extend(quiet)  # which the tracker inherits
    try:
        resource_tracker.ensure_running()
    finally:
        for option in quiet:
            sys.warnoptions.remove(option)


def _note(loop: Any, context: dict[str, Any]) -> None:
    _FAULTS.info("%s", context["message"], exc_info=context.get("exception"))
