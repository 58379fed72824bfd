"""File locks (flock) that allow one run at a time per output, and end with the process.

Only the standard library. Network file systems without locks are not protected, and it is said.
"""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geothresh.errors import GeothreshWarning, OutputError

# What file systems without locks answer.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def lock(descriptor: int) -> bool:
    """Take the lock of an open file or directory, without waiting.

    Returns:
        Whether it is held now; False where another process holds it.

    Raises:
        OSError: the file system has no locks, see `has_no_locks`.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def has_no_locks(error: OSError) -> bool:
    """Whether an error says that the file system has no locks."""
    return error.errno in _UNSUPPORTED


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Be the only run that makes `output`; beside it stands an empty ``.NAME.lock`` meanwhile.

    A killed run leaves that file, unlocked, and the next one takes it over.

    Raises:
        OutputError: another run makes it, or the lock file cannot be made.
    """
    path = output.with_name(f".{output.name}.lock")
    try:
        descriptor = _locked(path)
    except OSError as error:
        raise OutputError(f"{output}: {path.name} cannot be made ({error.strerror})") from error
    if descriptor is None:
        raise OutputError(
            f"{output}: another run is making it; wait for its end, or name another output"
        )
    try:
        yield
    finally:
        # While it is locked: whoever opened it meanwhile sees that it is not there any more.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_or_warn(descriptor: int, directory: Path) -> bool:
    """`lock`; on a file system without locks, a warning, and True.

    Raises:
        OSError: locking fails for another reason.
    """
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


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of the file at `path`; None where another has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            held = lock_or_warn(descriptor, path.parent)
        except OSError:
            os.close(descriptor)
            raise
        if not held:
            os.close(descriptor)
            return None
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        # Its owner removed it between our two steps: this lock is that of a file without a name.
        os.close(descriptor)
