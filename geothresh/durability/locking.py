"""Locks, so that one run at a time makes an output, and the work directory beside the output.

The lock is the kernel's (``flock``) and ends with its process: there is nothing to clean up after a
kill, and no process id to mistake for another. On network file systems without locks there is no
protection, and a warning says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from geothresh.errors import OutputError, warn
from geothresh.files import (
    LONGEST_NAME,
    create_beside,
    discard,
    flush_directory,
    has_no_locks,
    lock,
    temporary_name,
)

_ENDING = ".geothresh"


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Lock an output against other runs, by an empty file ``.NAME.lock`` beside it.

    A killed run leaves that file behind, unlocked; the next run uses it.

    Raises:
        OutputError: another run makes it, or the lock file cannot be made.
    """
    path = output.with_name(f".{output.name}.lock")
    descriptor = hold(output, path, _lock_file)
    try:
        yield
    finally:
        # While it is still locked: a run that has opened it notices that it is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def hold(output: Path, path: Path, make: Callable[[Path], int]) -> int:
    """Lock the file or directory at `path`, so that no other run makes `output`.

    Args:
        output: named in messages.
        path: what is locked, beside the output.
        make: opens it, and makes it first if it is not there.

    Returns:
        The descriptor that holds the lock until it is closed.

    Raises:
        OutputError: another run holds the lock, or there is no way to get it.
    """
    while True:
        try:
            descriptor = make(path)
        except OSError as error:
            raise OutputError(
                f"{output}: {path.name} beside it cannot be made or opened ({error.strerror}); "
                "choose another directory"
            ) from error
        try:
            if not _lock_or_warn(descriptor, path.parent):
                raise OutputError(
                    f"{output}: another run is making it; wait for its end, or name another output"
                )
            if _is_at(path, descriptor):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            raise OutputError(
                f"{output}: {path.name} beside it cannot be locked ({error.strerror}); choose "
                "another directory"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        # Its owner removed it between opening and locking: the lock is on a deleted file.
        os.close(descriptor)


def _lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _lock_or_warn(descriptor: int, directory: Path) -> bool:
    """Whether the lock is held now; on a file system without locks it warns and returns True."""
    try:
        return lock(descriptor)
    except OSError as error:
        if not has_no_locks(error):
            raise
        warn(
            f"{directory}: the file system has no locks ({error.strerror}); see to it that no "
            "other run has this output"
        )
        return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def work_directory(target: Path) -> Path:
    """``.NAME.geothresh`` beside an output; very long names are cut and get a digest."""
    name = os.fsencode(f".{target.name}")
    if len(name) + len(_ENDING) > LONGEST_NAME:
        digest = hashlib.sha256(name).hexdigest()[:16].encode()
        name = name[: LONGEST_NAME - len(_ENDING) - len(digest) - 1] + b"-" + digest
    return target.parent / (name.decode(errors="ignore") + _ENDING)


class WorkDirectory:
    """A work directory that is locked by this process until it is released or the process ends."""

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
                continue  # another run ended and removed it in between
            try:
                self._check_owner(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    def _check_owner(self, descriptor: int) -> None:
        owner = os.fstat(descriptor).st_uid
        # On network file systems the owner of a file may not be the user who creates it.
        if owner != os.geteuid() and owner != self._owner_here():
            raise OutputError(
                f"{self.target}: the work directory {self.path.name} beside it belongs to another "
                "user; choose another output"
            )

    def _owner_here(self) -> int:
        """The owner of a file that this process creates here."""
        made = create_beside(self.target)
        try:
            return made.stat().st_uid
        finally:
            discard(made)

    def flush(self) -> None:
        """Flush the entries of the directory to the disk."""
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
        """Release the lock; with `remove`, after removing the directory and all in it.

        It is renamed first, in one step: what a kill leaves then is an ordinary temporary folder,
        which the next run removes.
        """
        try:
            if remove:
                dead = temporary_name(self.target)
                self.path.replace(dead)
                shutil.rmtree(dead)
        finally:
            os.close(self._descriptor)
