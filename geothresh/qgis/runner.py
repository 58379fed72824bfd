"""Run the command, and pass its progress, messages and errors to QGIS; imports nothing of QGIS."""

from __future__ import annotations

import json
import os

# The command is one that the user has installed, and is run without a shell.
import subprocess  # nosec B404
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Queue
from typing import IO, Any, Protocol

# Seconds between checks whether the user has cancelled.
_POLL = 0.1
# Seconds that a cancelled run has to save its work.
_GRACE = 60.0
# Variables that QGIS sets for its own Python, GDAL and PROJ, and that would mislead the command's.
_OF_QGIS = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "PROJ_DATA",
    "PROJ_LIB",
)


class Feedback(Protocol):
    """The methods of QgsProcessingFeedback that are used."""

    def isCanceled(self) -> bool:
        """Whether the user has cancelled."""

    def setProgress(self, progress: float) -> None:
        """Show the progress as a bar, in percent."""

    def setProgressText(self, text: str) -> None:
        """Show a line of text beside the bar."""

    def pushInfo(self, info: str) -> None:
        """Write into the log."""

    def pushWarning(self, warning: str) -> None:
        """Write into the log as a warning."""

    def pushCommandInfo(self, info: str) -> None:
        """Write a command line into the log."""


class Failed(Exception):
    """The command has ended with an error; the message is the line that it printed."""


class Canceled(Exception):
    """The user has cancelled, and the command has ended."""


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the command: that of QGIS, without what QGIS sets for itself."""
    return {name: value for name, value in own.items() if name not in _OF_QGIS}


def run(
    words: Sequence[str],
    feedback: Feedback,
    *,
    begin: float = 0.0,
    end: float = 100.0,
    shown: Callable[[Sequence[str]], str] = " ".join,
) -> str:
    """Run a command line to its end.

    Args:
        words: the executable and its arguments, with ``--progress=json``.
        feedback: receives progress and messages, and tells whether the user has cancelled.
        begin, end: the progress in percent at the beginning and at the end of this command.
        shown: how the command line is written into the log.

    Returns:
        What the command has printed on stdout.

    Raises:
        Failed: the command ended with an error, or could not be started.
        Canceled: the user has cancelled; the same run can be resumed.
    """
    feedback.pushCommandInfo(shown(words))
    try:
        process = subprocess.Popen(  # nosec B603
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment(os.environ),
            # On Windows no terminal window is opened.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise Failed(f"{words[0]}: cannot be started ({error.strerror})") from error
    with process:
        try:
            return _follow(process, feedback, begin, end)
        finally:
            if process.poll() is None:
                process.kill()


def _follow(process: subprocess.Popen[str], feedback: Feedback, begin: float, end: float) -> str:
    lines: Queue[str] = Queue()
    printed: list[str] = []
    readers = [
        threading.Thread(target=_each_line, args=(process.stdout, printed.append), daemon=True),
        threading.Thread(target=_each_line, args=(process.stderr, lines.put), daemon=True),
    ]
    for reader in readers:
        reader.start()
    messages = _Messages(feedback, begin, end)
    canceled_at: float | None = None
    while any(reader.is_alive() for reader in readers) or not lines.empty():
        if canceled_at is None and feedback.isCanceled():
            # SIGTERM on POSIX, on which the command cleans up; SIGINT may be ignored in processes
            # that QGIS starts. On Windows it ends the process: finished work is on the disk.
            process.terminate()
            canceled_at = time.monotonic()
        if canceled_at is not None and time.monotonic() - canceled_at > _GRACE:
            process.kill()
        try:
            messages.take(lines.get(timeout=_POLL))
        except Empty:
            continue
    code = process.wait()
    if canceled_at is not None:
        raise Canceled(messages.last)
    if code != 0:
        raise Failed(messages.error or messages.last or f"geothresh ended with exit code {code}")
    feedback.setProgress(end)
    return "".join(printed).strip()


def _each_line(stream: IO[str] | None, take: Callable[[str], Any]) -> None:
    for line in stream or ():
        take(line)


class _Messages:
    """Handles the lines on stderr: progress, warnings, and errors."""

    def __init__(self, feedback: Feedback, begin: float, end: float) -> None:
        self._feedback = feedback
        self._begin, self._end = begin, end
        self.error = ""
        self.last = ""

    def take(self, line: str) -> None:
        line = line.rstrip()
        if not line:
            return
        update = progress_of(line)
        if update is not None:
            if update.get("event") == "progress":
                self._show(update)
            return
        self.last = line
        if line.startswith("Error: "):
            self.error = line[len("Error: ") :]
        elif line.startswith("Warning: "):
            self._feedback.pushWarning(line[len("Warning: ") :])
        else:
            self._feedback.pushInfo(line)

    def _show(self, update: Mapping[str, Any]) -> None:
        done, total = update["done"], max(update["total"], 1)
        self._feedback.setProgress(self._begin + (self._end - self._begin) * done / total)
        text = f"{update['kind']}: {done:,} of {total:,} {update['unit']}s"
        if update["eta"]:
            text += f", {_duration(update['eta'])} left"
        self._feedback.setProgressText(text)


def progress_of(line: str) -> dict[str, Any] | None:
    """Parse a line of ``--progress json``; None if it is another line."""
    if not line.startswith("{"):
        return None
    try:
        update: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return update if "event" in update else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
