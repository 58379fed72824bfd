"""Work directory of an unfinished run, beside its output, and locked."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from geothresh.durability.lock import hold
from geothresh.errors import OutputError
from geothresh.files import (
    LONGEST_NAME,
    create_beside,
    discard,
    flush_directory,
    temporary_name,
)

_ENDING = ".geothresh"


def work_directory(target: Path) -> Path:
    """``.NAME.geothresh`` beside an output; of very long names, the beginning and a digest."""
    name = os.fsencode(f".{target.name}")
    if len(name) + len(_ENDING) > LONGEST_NAME:
        digest = hashlib.sha256(name).hexdigest()[:16].encode()
        name = name[: LONGEST_NAME - len(_ENDING) - len(digest) - 1] + b"-" + digest
    return target.parent / (name.decode(errors="ignore") + _ENDING)


class WorkDirectory:
    """A work directory that belongs to this process until it is released or the process ends."""

    def __init__(self, target: Path) -> None:
        """Make the directory if it is not there, and lock it.

        Raises:
            OutputError: another run is at work on the same output, the directory is another
                user's, or it cannot be made.
        """
        self.path = work_directory(target)
        self.target = target
        self._descriptor = hold(target, self.path, self._open)

    def _open(self, path: Path) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            path.mkdir(exist_ok=True)
            try:
                descriptor = os.open(path, flags)
            except FileNotFoundError:
                continue  # another run ended, and removed it, between the two
            try:
                self._check_owner(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def _check_owner(self, descriptor: int) -> None:
        owner = os.fstat(descriptor).st_uid
        # Network file systems may give files to another user than the one who makes them.
        if owner != os.geteuid() and owner != self._owner_here():
            raise OutputError(
                f"{self.target}: the work directory {self.path.name} beside it belongs to another "
                "user; choose another output"
            )

    def _owner_here(self) -> int:
        """To whom a file belongs that this process makes here."""
        made = create_beside(self.target)
        try:
            return made.stat().st_uid
        finally:
            discard(made)

    def flush(self) -> None:
        """Bring the names in the directory to the disk."""
        flush_directory(self._descriptor)

    def clear(self) -> None:
        """Remove all that is in the directory.

        Raises:
            OSError: something cannot be removed.
        """
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()

    def release(self, *, remove: bool) -> None:
        """Give the lock up; with `remove`, after removing the directory and all in it.

        It goes in one step, by its name: what a kill leaves of it then is a temporary folder as
        any other, which the next run removes.
        """
        try:
            if remove:
                dead = temporary_name(self.target)
                self.path.replace(dead)
                shutil.rmtree(dead)
        finally:
            os.close(self._descriptor)
