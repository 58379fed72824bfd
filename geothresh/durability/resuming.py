"""Resume a run: compare its parameters, find its last state, tell the user how to resume.

The newest state of a training has the given name, and the one before it ``.state.previous``, so
that one of them is always complete. The caller defines their content and how they are checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geothresh.errors import GeothreshError, ModelError, UsageError, warn

# Most differences that a message names, and longest text of a value in it.
_MOST_DIFFERENCES = 3
_LONGEST_VALUE = 40

_ENDING = ".safetensors"
RequireWhole = Callable[[Path], None]
"""Raises ModelError if a state file is damaged."""


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
        place: the output or the state file, for the message.
        found: the parameters that the interrupted run logged: everything that the bytes of the
            output depend on, by name, in JSON types.
        wanted: the parameters of this run.
        error: the exception to raise.
        anew: the option that starts anew.

    Raises:
        GeothreshError: the parameters differ; the message names the differences.
    """
    # Converted to JSON types, in which tuples are lists.
    now = json.loads(json.dumps(wanted))
    changed = [
        f"{key} ({_difference(found.get(key), now.get(key))})" for key in _differing(found, now)
    ]
    if changed:
        raise error(
            f"{place}: the run was started with another {_first_few(changed)}; give the same "
            f"options and data again, or start anew with {anew}"
        )


@contextmanager
def noting(where: Callable[[], str | None], *, overwrite: bool = False) -> Iterator[None]:
    """Add a note to an exception that ends the block, which tells how to resume the run.

    Args:
        where: gives the point from which the run is resumed, such as "after epoch 3"; None =
            nothing is kept.
        overwrite: whether the run was started with `overwrite`, which would start it anew.
    """
    try:
        yield
    except BaseException as error:
        if is_resumable(error):
            try:
                point = where()
            except GeothreshError as damage:
                error.add_note(f"the same command tells whether it can go on ({damage})")
            else:
                if point is not None:
                    add_note(error, point, overwrite=overwrite)
        raise


def add_note(error: BaseException, where: str, *, overwrite: bool = False) -> None:
    """Add a note to an exception that the same command resumes the run; arguments as `noting`."""
    command = "the same command without `overwrite`" if overwrite else "the same command"
    error.add_note(f"{command} goes on {where}")


def is_resumable(error: BaseException) -> bool:
    """Whether the same command may succeed after an error; one in the input would come again."""
    return not isinstance(error, GeothreshError) or error.resumable


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return _first_few(
            [
                f"{key} {_difference(found.get(key), wanted.get(key))}"
                for key in _differing(found, wanted)
            ]
        )
    return f"{_shown(found)}, now {_shown(wanted)}"


def _first_few(parts: list[str]) -> str:
    more = len(parts) - _MOST_DIFFERENCES
    shown = ", ".join(parts[:_MOST_DIFFERENCES])
    return f"{shown} and {more} more" if more > 0 else shown


def _shown(value: Any) -> str:
    if isinstance(value, list | dict) and len(value) > _MOST_DIFFERENCES:
        return f"{len(value)} entries"
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:8] + "..."


def earlier_state(newest: Path) -> Path:
    """Path of the state before the newest: ``m.state.previous.safetensors``."""
    return newest.with_name(newest.name.removesuffix(_ENDING) + ".previous" + _ENDING)


def states_there(newest: Path) -> list[Path]:
    """The states that exist, damaged or not, the newest first."""
    return [file for file in (newest, earlier_state(newest)) if file.exists()]


def forget_states(newest: Path) -> None:
    """Remove the states, the older one first: it must not outlive the newer."""
    earlier_state(newest).unlink(missing_ok=True)
    newest.unlink(missing_ok=True)


def find_state(newest: Path, require_whole: RequireWhole) -> Path | None:
    """The newest state that is complete, None if there is none; warns of damaged ones."""
    existing = states_there(newest)
    for number, file in enumerate(existing):
        try:
            require_whole(file)
        except ModelError as error:
            left = existing[number + 1 :]
            then = f"going on from the one before it, {left[0].name}" if left else "it is no use"
            warn(f"{error}; {then}")
        else:
            return file
    return None


def state_to_resume(
    newest: Path, require_whole: RequireWhole, *, resume: bool | None, overwrite: bool
) -> Path | None:
    """The state from which a run is resumed; None if it starts anew.

    Args:
        newest: path of the newest state, which need not exist.
        require_whole: checks a state.
        resume: True resumes the stopped run, and fails if there is none; None resumes it if there
            is one; False never does.
        overwrite: start anew.

    Raises:
        UsageError: `resume` is True and there is no run to resume, or `overwrite` is True as well.
        ModelError: `resume` is True and all states are damaged.
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
