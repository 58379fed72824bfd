"""Path checks and atomic writes: a temporary file beside the output is renamed when complete.

It uses only the standard library, because every writer of the package depends on it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geothresh.addresses import is_remote, lost_a_slash, path_of
from geothresh.errors import InputError, OutputError, UsageError

# Suffix of the names of temporary folders.
_TEMPORARY = ".tmp"
# The temporary files of this process, each with the descriptor that locks its folder.
_LOCKS: dict[Path, int] = {}
# Folders without temporary folders, by the time of their last change.
_CLEAN: dict[Path, int] = {}

# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# Errors of file systems that cannot flush a directory.
_NO_DIRECTORY_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# Targets of the links /dev/stdout and /dev/fd/N of a process.
_STREAMS = ("/proc/", "/dev/fd/")
# The longest file name, in bytes, on every file system in common use.
LONGEST_NAME = 255


def paths_of(given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Convert one path or several to a list of Paths; for objects in a store, GDAL's paths."""
    return [path_of(p) for p in ([given] if isinstance(given, str | os.PathLike) else given)]


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file; False if it cannot be one, as a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file() fails there


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a directory; False if it cannot be one, as a name that is too long."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir() fails there


def files_among(*named: object) -> list[Path]:
    """The paths of files among values that may be others, such as the name of a model."""
    paths = [Path(os.fspath(name)) for name in named if isinstance(name, str | os.PathLike)]
    return [path for path in paths if is_file(path)]


def too_long(name: str) -> str:
    """The message for a name that the file system refuses as too long."""
    return f"{name}: the name is too long for the file system; shorten it"


def require_file(name: str, path: Path) -> os.stat_result:
    """Check that a path is a regular file that is not empty; gives its status.

    Raises:
        InputError: it is not; the message calls the file `name`.
    """
    try:
        status = path.stat()
    except OSError as error:
        # Path.is_symlink() fails where a name is too long, or its directory cannot be searched.
        if os.path.islink(path):  # noqa: PTH114
            raise InputError(
                f"{name}: a link to {path.readlink()}, which cannot be found; mend the link"
            ) from error
        if lost_a_slash(path):
            raise InputError(
                f"{name}: no such file; if it is a URL, give it as a text with both slashes, and "
                "copy the file first where URLs are not read"
            ) from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise InputError(f"{name}: no such file; check the path") from error
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(too_long(name)) from error
        raise InputError(
            f"{name}: cannot be read ({error.strerror}); check its path and permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name}: is a directory; name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: is not a regular file (pipe or device); give a file")
    if status.st_size == 0:
        raise InputError(f"{name}: the file is empty; write or copy it again")
    return status


def head_of(name: str, path: Path) -> bytes:
    """The first 512 bytes of a file, which tell its format.

    Raises:
        InputError: the file cannot be read; the message calls it `name`.
    """
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise InputError(
            f"{name}: cannot be read ({error.strerror}); check its path and permissions"
        ) from error


def check_output(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
    cleared: bool = False,
) -> Path:
    """Return `path` as a Path if a file may be written there; called before any work.

    Temporary files of killed runs of this output are removed.

    Args:
        path: the file.
        overwrite: whether the file may exist.
        inputs: files that must not be overwritten.
        cleared: whether the directory is free of leftovers already: scanning it for each of a
            hundred thousand files would take hours.

    Raises:
        UsageError: the path is one of `inputs`, by name or through a link.
        OutputError: the directory is missing or not writable, the path is a directory or a
            device, or the file exists and `overwrite` is false.
    """
    target = Path(os.fspath(path))
    if "\0" in str(target) or not target.name:
        raise UsageError(f"{str(target)!r} is not the name of a file; name the output otherwise")
    for source in inputs:
        if _same_file(target, Path(os.fspath(source))):
            raise UsageError(f"{target}: the output is the input {source}; name another file")
    try:
        found = target.lstat()
        parent = target.parent.stat()
    except FileNotFoundError:
        found = None
        try:
            parent = target.parent.stat()
        except OSError as error:
            if is_remote(path) or lost_a_slash(path):
                raise OutputError(
                    f"{path}: is not on this machine; this output is written to a local file only"
                ) from error
            raise OutputError(
                f"{target}: the directory {target.parent} does not exist; create it first"
            ) from error
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    if not stat.S_ISDIR(parent.st_mode):
        raise OutputError(f"{target}: {target.parent} is not a directory; choose another")
    # Also done if the output is refused below, because nothing else would remove them.
    if not cleared:
        remove_stale(target.parent, target)
    if found is not None:
        _check_existing(target, overwrite)
    if not os.access(target.parent, os.R_OK | os.W_OK | os.X_OK):
        raise OutputError(
            f"{target}: no permission to read and write in {target.parent}; choose another "
            "directory"
        )
    return target


def require_other_files(outputs: Iterable[Path], read: Iterable[Path]) -> None:
    """Check that none of many outputs is one of many files that are read.

    Raises:
        UsageError: one is, by name or through a link.
    """
    inputs = {os.path.realpath(path): path for path in read}
    for target in outputs:
        same = inputs.get(os.path.realpath(target))
        if same is not None:
            raise UsageError(f"{target}: the output is the input {same}; name another file")


def require_page(path: Path) -> None:
    """Refuse a report whose name is not that of an HTML page.

    Raises:
        UsageError: it does not end in .html or .htm.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path}: a page is HTML; name it {path.stem}.html")


def _check_existing(target: Path, overwrite: bool) -> None:
    if target.is_symlink() and str(target.readlink()).startswith(_STREAMS):
        # If stdout is a file, this looks like a regular file, but a rename would replace the link.
        raise OutputError(f"{target}: is a stream of a process; name a file")
    if target.is_dir():
        raise OutputError(f"{target}: is a directory; name a file in it")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is not a regular file; choose another name")
    if not overwrite:
        raise OutputError(f"{target}: exists already; choose another name or add `overwrite=True`")


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return first.absolute() == second.absolute()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give the path of a new empty file that replaces `target` at the end of the block.

    The file has the permissions of the umask. After any exception, including KeyboardInterrupt, it
    is removed, and `target` is not changed.

    Raises:
        OutputError: the file cannot be created, flushed to the disk or renamed.
    """
    temporary = create_beside(target)
    try:
        yield temporary
        publish(temporary, target)
    except BaseException:
        discard(temporary)
        raise


def write_text(target: Path, text: str) -> None:
    """Write a small text file in UTF-8 atomically, see `write_bytes`."""
    write_bytes(target, text.encode())


def write_bytes(target: Path, content: bytes) -> None:
    """Write a small file atomically: it replaces an old one, or nothing changes.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(target) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error.strerror})") from error


def lock(descriptor: int) -> bool:
    """Lock an open file or directory without waiting (``flock``).

    Returns:
        True if the lock is held now; False if another process holds it.

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
    return error.errno in _NO_LOCKS


def create_beside(target: Path) -> Path:
    """Create an empty file in a new hidden folder with an unguessable name, beside `target`.

    The folder is locked as long as this process runs, so that `remove_stale` recognises folders of
    dead processes. The folder is locked and not the file, because some writers delete the file and
    create it again, or create others beside it (``-journal``, ``.aux.xml``).
    """
    try:
        folder, descriptor = _locked_folder(target)
        temporary = folder / f"file{_TEMPORARY}"
        try:
            # O_EXCL: never an existing file or link.
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except BaseException:
            with suppress(OSError):
                folder.rmdir()
            os.close(descriptor)
            raise
    except OSError as error:
        raise OutputError(
            f"{target}: no file can be created in {target.parent} ({error.strerror})"
        ) from error
    _LOCKS[temporary] = descriptor
    return temporary


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new folder beside `target`, and the descriptor that holds its lock."""
    while True:
        folder = temporary_name(target)
        folder.mkdir(0o700)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            # Another run has removed it, because it was not locked yet.
            continue
        try:
            held = lock(descriptor)
        except OSError as error:
            if not has_no_locks(error):
                os.close(descriptor)
                raise
            # No other process can lock it either, so none will remove it.
            held = True
        if held and folder.exists():
            return folder, descriptor
        os.close(descriptor)


def temporary_name(target: Path) -> Path:
    """An unguessable path beside `target` of a folder that `remove_stale` removes if unlocked."""
    return target.parent / f"{_start(target)}{secrets.token_hex(8)}{_TEMPORARY}"


def _start(target: Path) -> str:
    """The prefix of the names of the temporary folders of `target`."""
    # Truncated in bytes, because the limit of file systems is in bytes.
    rest = 16 + len(_TEMPORARY)
    return os.fsencode(f".{target.name}.")[: LONGEST_NAME - rest].decode(errors="ignore")


def remove_stale(directory: Path, target: Path | None = None) -> None:
    """Remove the temporary folders of killed runs in a directory.

    Folders of running processes are locked and kept. On a file system without locks, all are kept.

    Args:
        directory: the directory.
        target: remove only the folders of this file and of files with the same stem, such as its
            style; None = of all files.
    """
    starts = r"\..*"
    if target is not None:
        starts = rf"(?:{re.escape(_start(target))}|\.{re.escape(target.stem)}\..*)"
    ours = re.compile(f"{starts}[0-9a-f]{{16}}{re.escape(_TEMPORARY)}", re.DOTALL)
    with suppress(OSError):
        changed = directory.stat().st_mtime_ns
        if _CLEAN.get(directory) == changed:
            # A run may call this for each of thousands of files in a directory.
            return
        with os.scandir(directory) as entries:
            every = [entry for entry in entries if entry.name.endswith(_TEMPORARY)]
        if not every:
            _CLEAN[directory] = changed
        for entry in every:
            if ours.fullmatch(entry.name):
                _remove_dead(Path(entry.path))


def _remove_dead(folder: Path) -> None:
    # A folder that cannot be opened, locked or removed is kept; it does no harm.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_directory(directory: Path, *, parents: bool = False) -> None:
    """Create a directory for outputs if it does not exist; with `parents`, also its parents.

    Raises:
        OutputError: the directory cannot be created.
    """
    try:
        directory.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{directory}: the directory cannot be made ({error.strerror}); choose another"
        ) from error


def free_bytes(target: Path) -> int:
    """Free bytes for this user in the file system of `target`.

    Raises:
        OutputError: the directory of `target` does not exist any more.
    """
    try:
        return shutil.disk_usage(target.parent).free
    except OSError as error:
        raise OutputError(f"{target}: {target.parent} is gone ({error.strerror})") from error


def publish(temporary: Path, target: Path, *, replaced: Iterable[Path] = ()) -> None:
    """Flush `temporary` to the disk and rename it to `target`: atomic and durable.

    Args:
        temporary: a file of `create_beside`.
        target: the final path.
        replaced: sidecar files of the old file. They are removed first, so that they never lie
            beside the new file, and restored if the rename fails.

    Raises:
        OutputError: the file cannot be flushed or renamed; `temporary` is kept.
    """
    try:
        # A rename does not flush the data, and is durable only after the directory is flushed. The
        # directory is opened first: if that fails, nothing was changed.
        with _opened(target.parent) as directory:
            with _opened(temporary) as file:
                os.fsync(file)
            with _set_aside(replaced, temporary.parent):
                temporary.replace(target)
            flush_directory(directory)
    except OSError as error:
        raise OutputError(
            f"{target}: the finished file cannot be put in place ({error.strerror})"
        ) from error
    _remove_folder(temporary)


@contextmanager
def _set_aside(files: Iterable[Path], folder: Path) -> Iterator[None]:
    """Move files into a folder; after any exception, move them back."""
    moved: list[Path] = []
    try:
        for path in files:
            path.replace(folder / path.name)
            moved.append(path)
        yield
    except BaseException:
        for path in moved:
            (folder / path.name).replace(path)
        raise


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def flush_directory(descriptor: int) -> None:
    """Flush the entries of an open directory to the disk, if the file system supports it.

    Some network and FUSE file systems do not, and fail with EINVAL.

    Raises:
        OSError: the disk fails.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FLUSH:
            raise


def discard(temporary: Path) -> None:
    """Remove a temporary file, if it still exists, and the files beside it in its folder."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    _remove_folder(temporary)


def _remove_folder(temporary: Path) -> None:
    """Remove the folder that `create_beside` made for a file, if it did.

    It may be interrupted and called again.
    """
    if temporary in _LOCKS:
        shutil.rmtree(temporary.parent, ignore_errors=True)
        os.close(_LOCKS.pop(temporary))
