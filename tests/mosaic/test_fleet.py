"""Whole units on worker processes: each is done once, and one that kills workers is set aside."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from geothresh.mosaic.fleet import MOST_DEATHS, Deadly, run_units
from geothresh.mosaic.protocols import Workers

DEADLY = 3


def square(unit: int, /, *, cores: int | None, stopped: Callable[[], bool]) -> int:
    if unit == DEADLY:
        os._exit(1)
    assert not stopped()
    return unit**2


@pytest.mark.slow
def test_a_unit_that_kills_workers_is_set_aside_and_the_rest_is_done() -> None:
    found = list(run_units(square, range(40), Workers(2)))
    done = sorted(result for result in found if not isinstance(result, Deadly))
    assert done == [unit**2 for unit in range(40) if unit != DEADLY]
    assert [r for r in found if isinstance(r, Deadly)] == [Deadly(DEADLY, MOST_DEATHS)]


@pytest.mark.slow
def test_what_a_unit_raises_ends_the_run() -> None:
    def fail(unit: int, /, *, cores: int | None, stopped: Callable[[], bool]) -> int:
        raise ValueError(f"unit {unit}")

    with pytest.raises(ValueError, match="unit 0"):
        list(run_units(fail, range(3), Workers(1)))
