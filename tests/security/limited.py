"""geothresh in a process of its own that may take so much memory and time and no more."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_CODE = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from geothresh.cli import main
try:
    main()
finally:
    # Not getrusage, which counts what the parent held when this process began.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print("peak", status["VmHWM"].split()[0], file=sys.stderr)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended."""

    code: int
    stdout: str
    lines: list[str]
    """Of stderr."""
    peak: int
    """Most memory that it held, in bytes."""


def run_limited(
    *arguments: str | Path, cwd: Path, memory: int = 6 << 30, seconds: float = 60
) -> Ended:
    """Run a command line."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(memory), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=seconds,
    )
    *lines, last = done.stderr.splitlines()
    assert last.startswith("peak "), done.stderr
    return Ended(
        code=done.returncode, stdout=done.stdout, lines=lines, peak=int(last.split()[1]) * 1024
    )
