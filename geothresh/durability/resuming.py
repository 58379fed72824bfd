"""Resume a run: check that its parameters are the same, find its last state, say that it can go on.

The newest state of a training has the given name, the one before it ``.state.previous``, so that
one of them is always whole. Their content, and the check that a state is whole, are the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geothresh.errors import GeothreshError, ModelError, UsageError, warn

# Of one entry, in a message.
_MOST_DIFFERENCES = 3
_LONGEST_VALUE = 40

_ENDING = ".safetensors"
RequireWhole = Callable[[Path], None]
"""Raises ModelError where a state is not as it was written."""


def require_same_run(
    place: object,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    error: type[GeothreshError],
    anew: str = "`overwrite`",
) -> None:
    """Check that an interrupted run had the same parameters as this one.

    Args:
        place: the output, or the file with what was left; named in the message.
        found: all that the bytes of the output depend on, by name, as the interrupted run logged
            it; JSON types.
        wanted: the same of this run.
        error: what is raised.
        anew: the option that starts afresh.

    Raises:
        GeothreshError: they differ; the message says where.
    """
    # As JSON has them: tuples are lists there.
    asked = json.loads(json.dumps(wanted))
    changed = [
        f"{key} ({_difference(found.get(key), asked.get(key))})" for key in _differing(found, asked)
    ]
    if changed:
        raise error(
            f"{place}: the run was started with another {_some(changed)}; give the same options "
            f"and data again, or start anew with {anew}"
        )


@contextmanager
def noting(where: Callable[[], str | None], *, overwrite: bool = False) -> Iterator[None]:
    """Add a note to the exception that ends the block: how the run is resumed.

    Args:
        where: says from where the run is resumed, such as "after epoch 3"; None = nothing is kept.
        overwrite: the run was started with `overwrite`, which would start it anew.
    """
    try:
        yield
    except BaseException as error:
        if is_resumable(error):
            try:
                place = where()
            except GeothreshError as damage:
                error.add_note(f"the same command tells whether it can go on ({damage})")
            else:
                if place is not None:
                    add_note(error, place, overwrite=overwrite)
        raise


def add_note(error: BaseException, where: str, *, overwrite: bool = False) -> None:
    """Add a note to an exception: the same command resumes the run; arguments as for `noting`."""
    command = "the same command without `overwrite`" if overwrite else "the same command"
    error.add_note(f"{command} goes on {where}")


def is_resumable(error: BaseException) -> bool:
    """Whether the same command may succeed after this; an error in the input comes again."""
    return not isinstance(error, GeothreshError) or error.resumable


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return _some(
            [
                f"{key} {_difference(found.get(key), wanted.get(key))}"
                for key in _differing(found, wanted)
            ]
        )
    return f"{_shown(found)}, now {_shown(wanted)}"


def _some(parts: list[str]) -> str:
    more = len(parts) - _MOST_DIFFERENCES
    shown = ", ".join(parts[:_MOST_DIFFERENCES])
    return f"{shown} and {more} more" if more > 0 else shown


def _shown(value: Any) -> str:
    if isinstance(value, list | dict) and len(value) > _MOST_DIFFERENCES:
        return f"{len(value)} entries"
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:8] + "..."


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
            warn(f"{error}; {then}")
        else:
            return file
    return None


def state_to_resume(
    newest: Path, require_whole: RequireWhole, *, resume: bool | None, overwrite: bool
) -> Path | None:
    """The state from which a run is resumed; None where it starts anew.

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
