"""A few seconds of each kill storm; hours of them are tests/storm/ from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STORMS = Path(__file__).parent


@pytest.mark.storm
@pytest.mark.catalogue(87, 121)
@pytest.mark.parametrize(
    "script, options",
    [
        ("storm_refine.py", ["kills", "--number", "4"]),
        ("storm_refine.py", ["chains", "--number", "2"]),
        ("storm_refine.py", ["signals", "--number", "4"]),
        ("storm_refine.py", ["limits", "--number", "6"]),
        ("storm_refine.py", ["kills", "--number", "2", "--workers", "2"]),
        ("storm_train.py", ["--kills", "3", "--limits", "2"]),
        ("storm_vectorize.py", ["--kills", "5", "--limits", "5"]),
        ("storm_many.py", ["--kills", "4"]),
        ("storm_store.py", ["--kills", "3", "--faults", "0.03"]),
    ],
)
def test_a_short_storm_leaves_nothing_wrong(script: str, options: list[str]) -> None:
    # In a process of its own: it forks, which pytest's threads would not survive.
    done = subprocess.run(
        [sys.executable, str(STORMS / script), *options, "--seed", "3"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| wrong " in done.stdout
