"""Processes that are killed without warning, and what must hold afterwards.

A body is forked from a parent that has imported everything, so that a kill falls into the work, not
into the start of Python; the parent must have started no threads.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

#: Children of a killed process see that it is gone within this many seconds; a worker that starts,
#: on a busy machine, sees it when it is up.
ORPHANS = 60.0


@dataclass(slots=True)
class Child:
    """A process in a group of its own, whose output is in a file."""

    pid: int
    log: Path
    started: float = field(default_factory=time.monotonic)
    code: int | None = None
    """Exit code, negative for a signal; None while it runs."""

    def poll(self) -> int | None:
        if self.code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; it is killed when it takes longer."""
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > until:
                self.kill()
                raise AssertionError(f"no end after {seconds:.0f} s: {self.said}")
            time.sleep(0.002)
        assert self.code is not None
        return self.code

    def kill(self) -> int:
        """SIGKILL it, not its children, and see that none of them outlives it for long."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
        until = time.monotonic() + ORPHANS
        while _alive(self.pid):
            if time.monotonic() > until:
                os.killpg(self.pid, signal.SIGKILL)
                raise AssertionError(f"orphans of {self.pid} after {ORPHANS:.0f} s")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def heeds_sigterm(self) -> bool:
        """Whether the process has a handler for SIGTERM, which Python has not by itself (Linux)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace").strip()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def start(body: Callable[[], None], log: Path, *, largest_file: int | None = None) -> Child:
    """Run a body in a process and group of its own; SystemExit gives its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        # Here as in the child: whichever comes first, there is a group to send signals to.
        with suppress(ProcessLookupError):
            os.setpgid(pid, pid)
        return Child(pid, log)
    code = 99
    try:
        os.setpgid(0, 0)
        if largest_file is not None:
            # What it says would be cut off as well.
            log = Path(os.devnull)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        body()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing of the parent's is run at the exit: pytest's hooks, say.
        os._exit(code)


def command(arguments: Sequence[str]) -> Callable[[], None]:
    """The command line, as the body of a process."""

    def body() -> None:
        # The handlers of the parent, which pytest may have set.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        from geothresh.cli import main

        main(list(arguments), prog_name="geothresh")

    return body


def kill_after(child: Child, seconds: float) -> bool:
    """Kill a process that has run so long; whether it had not ended before."""
    until = child.started + seconds
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    return child.kill() == -signal.SIGKILL


def kill_at(child: Child, there: Callable[[], bool], seconds: float = 60) -> bool:
    """Kill a process as soon as something is there, a file say; whether it had not ended before."""
    until = child.started + seconds
    while child.poll() is None and not there() and time.monotonic() < until:
        time.sleep(0.0005)
    return child.kill() == -signal.SIGKILL


def table(rows: Sequence[tuple[str, object]]) -> str:
    """Two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"| {name:<{width}} | {value:>8} |" for name, value in rows)


def appeared(place: Path, pattern: str, delay: float) -> Callable[[], bool]:
    """Whether a file of another inode than now has been there for so many seconds."""

    def found() -> set[int]:
        # Folders and files may go while they are looked for.
        inodes = set()
        with suppress(FileNotFoundError):
            for path in place.glob(pattern):
                with suppress(FileNotFoundError):
                    inodes.add(path.stat().st_ino)
        return inodes

    known = found()
    since: list[float] = []

    def there() -> bool:
        if not since and found() - known:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() >= since[0] + delay

    return there
