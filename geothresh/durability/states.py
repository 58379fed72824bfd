"""State files of a training: the newest and the one before it, so that one of them is whole.

The newest has the name that is asked for, the one before it ``.state.previous``. What is in them is
the business of whoever writes them, and so is the check that one is whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from geothresh.errors import GeothreshWarning, ModelError, UsageError

_ENDING = ".safetensors"

RequireWhole = Callable[[Path], None]
"""Raises ModelError where a state is not as it was written."""


def earlier_state(newest: Path) -> Path:
    """Where the state before the newest is: ``m.state.previous.safetensors``."""
    return newest.with_name(newest.name.removesuffix(_ENDING) + ".previous" + _ENDING)


def states_there(newest: Path) -> list[Path]:
    """The states that exist, whole or not, the newest first."""
    return [file for file in (newest, earlier_state(newest)) if file.exists()]


def forget_states(newest: Path) -> None:
    """Remove the states; the older one first, which must not outlive the newer."""
    earlier_state(newest).unlink(missing_ok=True)
    newest.unlink(missing_ok=True)


def find_state(newest: Path, require_whole: RequireWhole) -> Path | None:
    """The newest state that is whole, None where there is none; damaged ones are warned of."""
    there = states_there(newest)
    for number, file in enumerate(there):
        try:
            require_whole(file)
        except ModelError as error:
            left = there[number + 1 :]
            then = f"going on from the one before it, {left[0].name}" if left else "it is no use"
            warnings.warn(f"{error}; {then}", GeothreshWarning, stacklevel=3)
        else:
            return file
    return None


def state_to_resume(
    newest: Path, require_whole: RequireWhole, *, resume: bool | None, overwrite: bool
) -> Path | None:
    """The state that a run goes on from, None where it starts anew.

    Args:
        newest: where the newest state is, if there is one.
        require_whole: the check of a state.
        resume: True goes on with the run that was stopped and fails where there is none; None goes
            on with it if there is one; False never does.
        overwrite: start anew.

    Raises:
        UsageError: there is no run to go on with, but one is asked for; or starting anew is too.
        ModelError: the one that is asked for is damaged.
    """
    if resume and overwrite:
        raise UsageError("`resume` goes on and `overwrite` starts anew; give one of them")
    state = None if overwrite or resume is False else find_state(newest, require_whole)
    if resume and state is None:
        if newest.exists():
            raise ModelError(f"{newest}: no state is whole; start anew with `overwrite`")
        raise UsageError(
            f"{newest}: no run to go on with; leave `resume` out, or name its model with `output`"
        )
    return state
