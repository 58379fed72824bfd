"""Lock of an output: one run at a time; the kernel's (``flock``), so that it dies with its process.

There is none to clean up after a kill, and none to mistake for that of a process with the same
number. Network file systems without locks are not protected, and it is said.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from geothresh.errors import GeothreshWarning, OutputError
from geothresh.files import has_no_locks, lock


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Be the only run that makes `output`; beside it stands an empty ``.NAME.lock`` meanwhile.

    A killed run leaves that file, unlocked, and the next one takes it over.

    Raises:
        OutputError: another run makes it, or the lock file cannot be made.
    """
    path = output.with_name(f".{output.name}.lock")
    descriptor = hold(output, path, _lock_file)
    try:
        yield
    finally:
        # While it is locked: whoever opened it meanwhile sees that it is not there any more.
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
        # Its owner removed it between our two steps: this lock is that of a file without a name.
        os.close(descriptor)


def _lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _lock_or_warn(descriptor: int, directory: Path) -> bool:
    """Whether the lock is held now; on a file system without locks a warning, and True."""
    try:
        return lock(descriptor)
    except OSError as error:
        if not has_no_locks(error):
            raise
        warnings.warn(
            f"{directory}: the file system has no locks ({error.strerror}); see to it that no "
            "other run has this output",
            GeothreshWarning,
            stacklevel=2,
        )
        return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
