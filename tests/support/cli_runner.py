"""click's test runner with stdout and stderr apart, whichever click is installed."""

from __future__ import annotations

import inspect
from typing import Any

from click.testing import CliRunner


def runner() -> CliRunner:
    """A runner; before click 8.2 the two streams had to be parted on demand."""
    split: dict[str, Any] = {}
    if "mix_stderr" in inspect.signature(CliRunner).parameters:
        split["mix_stderr"] = False
    return CliRunner(**split)
