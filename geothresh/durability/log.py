"""Append-only log: JSON objects, one a line, each with a checksum."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Eight hexadecimal digits and a space before the JSON.
_PREFIX = 9


class Log:
    """A log file that is appended to; each line stands behind the CRC-32 of its text.

    A process that dies while it appends leaves a torn last line: reading ends before it, and the
    next line takes its place.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file, and cut off what does not prove itself.

        Raises:
            OSError: it cannot be read or written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        content = self._file.readall()
        self.entries, length = _proven(content)
        if length != len(content):
            self._file.truncate(length)
            os.fsync(self._file.fileno())
        self._file.seek(length)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line; when this returns, it is on the disk.

        Raises:
            OSError: it cannot be written; what was written of it is taken back.
        """
        text = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        start = self._file.tell()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise
        self.entries.append(dict(entry))

    def truncate(self, count: int) -> None:
        """Keep the first `count` lines.

        Raises:
            OSError: the file cannot be written.
        """
        self._file.seek(0)
        length = sum(map(len, self._file.readall().splitlines(keepends=True)[:count]))
        self._file.truncate(length)
        os.fsync(self._file.fileno())
        self._file.seek(length)
        del self.entries[count:]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a file that another process may be writing to; nothing is changed.

    Raises:
        OSError: it cannot be read.
    """
    return _proven(path.read_bytes())[0]


def _proven(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The entries up to the first line that is torn or damaged, and the bytes that they take."""
    entries: list[dict[str, Any]] = []
    length = 0
    for line in content.splitlines(keepends=True):
        text = line[_PREFIX:-1]
        if line != b"%08x %s\n" % (zlib.crc32(text), text):
            break
        entry = json.loads(text)
        if not isinstance(entry, dict):
            break
        entries.append(entry)
        length += len(line)
    return entries, length
