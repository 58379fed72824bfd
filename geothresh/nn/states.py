"""States of trainings: the last two, sealed, so that a run goes on from one that is whole.

A state is a model file with a checksum over all of it. The newest has the name that is asked for,
the one before it ``.state.previous``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geothresh.errors import GeothreshError, GeothreshWarning, ModelError
from geothresh.nn.modelfile import Kind, require_seal, write_model

_ENDING = ".safetensors"
# Of one entry, in a message.
_MOST_DIFFERENCES = 3
_LONGEST_VALUE = 40


def earlier_state(path: Path) -> Path:
    """Where the state before the newest is: ``m.state.previous.safetensors``."""
    return path.with_name(path.name.removesuffix(_ENDING) + ".previous" + _ENDING)


def write_state(
    path: Path, kind: Kind, *, tensors: Mapping[str, Any], entries: Mapping[str, Any]
) -> None:
    """Write a state; the newest becomes the one before it, and that one goes.

    Raises:
        OutputError: it cannot be written; what was there is still there.
    """
    write_model(path, kind, tensors=tensors, entries=entries, sealed=True, keep=earlier_state(path))


def forget_states(path: Path) -> None:
    """Remove the states; the older one first, which must not outlive the newer."""
    earlier_state(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def find_state(path: Path) -> Path | None:
    """The newest state that is whole, None where there is none; damaged ones are warned of."""
    there = [file for file in (path, earlier_state(path)) if file.exists()]
    for number, file in enumerate(there):
        try:
            require_seal(file)
        except ModelError as error:
            left = there[number + 1 :]
            then = f"going on from the one before it, {left[0].name}" if left else "it is no use"
            warnings.warn(
                f"{error}; {then}",
                GeothreshWarning,
                stacklevel=3,
            )
        else:
            return file
    return None


def require_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """See that a state is of the run that is to go on.

    Args:
        path: the state, for the message.
        found: what it says of its run; JSON types.
        wanted: the same of the run at hand.

    Raises:
        ModelError: they differ; the message says in what.
    """
    asked = json.loads(json.dumps(wanted))
    changed = [
        f"{key} ({_difference(found.get(key), asked.get(key))})"
        for key in sorted({*asked, *found})
        if asked.get(key) != found.get(key)
    ]
    if changed:
        raise ModelError(
            f"{path}: the run was started with another {', '.join(changed)}; give the same "
            "options and data again, or start anew with --overwrite"
        )


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        parts = [
            f"{key} {_difference(found.get(key), wanted.get(key))}"
            for key in sorted({*found, *wanted})
            if found.get(key) != wanted.get(key)
        ]
        more = len(parts) - _MOST_DIFFERENCES
        shown = ", ".join(parts[:_MOST_DIFFERENCES])
        return f"{shown} and {more} more" if more > 0 else shown
    return f"{_shown(found)}, now {_shown(wanted)}"


def _shown(value: Any) -> str:
    if isinstance(value, list | dict) and len(value) > _MOST_DIFFERENCES:
        return f"{len(value)} entries"
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:8] + "..."


@contextmanager
def told_how_to_go_on(
    path: Path, where: Callable[[Path], str], *, overwrite: bool
) -> Iterator[None]:
    """Add to what ends the block, a signal or an error, how the run goes on.

    Args:
        path: the newest state, if there is one by then.
        where: says of a state where the run goes on from it, as in "after epoch 3".
        overwrite: the run began with leave to replace what was there, which it would do again.
    """
    try:
        yield
    except ModelError:
        # The network itself: to go on would come to the same.
        raise
    except BaseException as error:
        state = next((file for file in (path, earlier_state(path)) if file.exists()), None)
        if state is not None:
            command = "the same command without --overwrite" if overwrite else "the same command"
            try:
                error.add_note(f"{command} goes on {where(state)}")
            except GeothreshError as damage:
                error.add_note(f"{command} tells whether it can go on ({damage})")
        raise
