"""Files of a work directory: strips of the output, and an append-only log.

They are written by Python, which raises an exception on a full disk. A strip file begins with a
magic word. Then follow, for each chunk of the strip from left to right, a header (window and number
of layers, little-endian) and the packed layers. A layer has the bits of a value, and then the
length of a zlib stream and the stream, or length 0 and the one value of all pixels. The log holds
one JSON object per line, each with a checksum. The CRC-32 of each strip file is in the log.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from geothresh.packed import PackedLayer
from geothresh.types import LayerArray
from geothresh.windows import PixelWindow

# Bytes before the JSON of a line: eight hexadecimal digits and a space.
_PREFIX = 9

_MAGIC = b"GTSTRIP3"
_HEADER = struct.Struct("<QQQQI")
_LAYER = struct.Struct("<BQ")
_READ_AT_ONCE = 2**20


class Log:
    """An append-only log file; each line begins with the CRC-32 of its text.

    A process that dies while it appends leaves an incomplete last line: reading stops before it,
    and the next line replaces it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file, and truncate it before the first damaged line.

        Raises:
            OSError: the file cannot be read or written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        content = self._file.readall()
        self.entries, length = _sound_entries(content)
        if length != len(content):
            self._file.truncate(length)
            os.fsync(self._file.fileno())
        self._file.seek(length)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append a line; when this returns, it is on the disk.

        Raises:
            OSError: the line cannot be written; an incomplete line is removed.
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
    """Read the entries of a log without changing it; another process may be writing to it.

    Raises:
        OSError: it cannot be read.
    """
    return _sound_entries(path.read_bytes())[0]


def _sound_entries(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The entries up to the first damaged line, and their length in bytes."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """One chunk of a strip."""

    window: PixelWindow
    """The pixels of the chunk in the raster."""
    layers: tuple[LayerArray, ...]
    """The values of each output there, (height, width) each."""


class StripFile:
    """Writer of a strip file, which gets its name only when it is committed."""

    def __init__(self, path: Path) -> None:
        """Create the file under a temporary name; a leftover of a dead process is replaced.

        Raises:
            OSError: the file cannot be created.
        """
        self.path = path
        self._temporary = path.with_suffix(".tmp")
        self._temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # Unbuffered, so that closing the file does not try again to write what has failed.
        self._file = os.fdopen(os.open(self._temporary, flags, 0o666), "wb", buffering=0)
        self.size = 0
        self.crc = 0
        self._write(_MAGIC)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def add(self, window: PixelWindow, layers: Sequence[PackedLayer]) -> None:
        """Append a chunk.

        Raises:
            OSError: the disk is full or fails.
        """
        numbers = (window.row, window.col, window.height, window.width, len(layers))
        self._write(_HEADER.pack(*numbers))
        for layer in layers:
            length = 0 if layer.is_flat else len(layer.data)
            self._write(_LAYER.pack(layer.item_bits, length))
            self._write(layer.data)

    def commit(self) -> None:
        """Flush the file to the disk and rename it.

        Raises:
            OSError: the disk is full or fails.
        """
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        """Remove the temporary file, unless it was committed."""
        try:
            self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)


def is_sound(path: Path, *, size: int, crc: int) -> bool:
    """Whether a strip file has the size and checksum that the journal says."""
    try:
        with _reading(path) as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            checksum = 0
            while data := file.read(_READ_AT_ONCE):
                checksum = zlib.crc32(data, checksum)
    except FileNotFoundError:
        return False
    return checksum == crc


def read_strip(path: Path) -> Iterator[StoredChunk]:
    """Read the chunks of a strip file, one at a time; check it with `is_sound` before."""
    with _reading(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path}: is no strip of this version")
        while header := file.read(_HEADER.size):
            row, col, height, width, count = _HEADER.unpack(header)
            layers = []
            for _ in range(count):
                item_bits, length = _LAYER.unpack(file.read(_LAYER.size))
                data = file.read(length or PackedLayer.flat_bytes(item_bits))
                packed = PackedLayer(height=height, width=width, data=data, item_bits=item_bits)
                layers.append(packed.unpack())
            window = PixelWindow(row=row, col=col, height=height, width=width)
            yield StoredChunk(window=window, layers=tuple(layers))


def _reading(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
