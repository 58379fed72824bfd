"""Locks that let only one run at a time make an output, and the work directory of the output.

The kernel keeps the lock (``flock``) and releases it when the process ends. So nothing remains
after a kill, and no process id can be mistaken for another. Network file systems without locks give
no protection; a warning says so.
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
    """Lock an output against other runs, with an empty file ``.NAME.lock`` beside it.

    A killed run leaves that file unlocked, and the next run uses it.

    Raises:
        OutputError: another run is making the output, or the lock file cannot be created.
    """
    path = _hidden_beside(output, ".lock")
    descriptor = hold(output, path, _lock_file)
    try:
        yield
    finally:
        # Removed while still locked: another run that has opened it notices that it is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def hold(output: Path, path: Path, make: Callable[[Path], int]) -> int:
    """Lock the file or directory at `path`, so that no other run makes `output`.

    Args:
        output: the output, for messages.
        path: the file or directory to lock, beside the output.
        make: opens `path`, and creates it first if it does not exist.

    Returns:
        The descriptor that holds the lock until it is closed.

    Raises:
        OutputError: another run holds the lock, or `path` cannot be opened or locked.
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
        # The other run removed it between opening and locking: the lock is on a deleted file.
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
    """The path ``.NAME.geothresh`` beside an output; a very long name is cut and gets a digest."""
    return _hidden_beside(target, _ENDING)


def _hidden_beside(target: Path, ending: str) -> Path:
    name = os.fsencode(f".{target.name}")
    if len(name) + len(ending) > LONGEST_NAME:
        digest = hashlib.sha256(name).hexdigest()[:16].encode()
        name = name[: LONGEST_NAME - len(ending) - len(digest) - 1] + b"-" + digest
    return target.parent / (name.decode(errors="ignore") + ending)


class WorkDirectory:
    """A work directory that this process has locked, until it is released or the process ends."""

    def __init__(self, target: Path) -> None:
        """Create the directory if it does not exist, and lock it.

        Raises:
            OutputError: another run is making the same output, the directory belongs to another
                user, or it cannot be created.
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
        if owner != os.geteuid() and owner != self._owner_of_new_files():
            raise OutputError(
                f"{self.target}: the work directory {self.path.name} beside it belongs to another "
                "user; choose another output"
            )

    def _owner_of_new_files(self) -> int:
        """The owner of a file that this process creates in this directory."""
        probe = create_beside(self.target)
        try:
            return probe.stat().st_uid
        finally:
            discard(probe)

    def flush(self) -> None:
        """Flush the entries of the directory to the disk."""
        flush_directory(self._descriptor)

    def clear(self) -> None:
        """Remove everything in the directory.

        Raises:
            OSError: an entry cannot be removed.
        """
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()

    def release(self, *, remove: bool) -> None:
        """Release the lock; with `remove`, remove the directory and its content first.

        The directory is renamed before, in one step: after a kill, an ordinary temporary directory
        remains, which the next run removes.
        """
        try:
            if remove:
                dead = temporary_name(self.target)
                self.path.replace(dead)
                shutil.rmtree(dead)
        finally:
            os.close(self._descriptor)
