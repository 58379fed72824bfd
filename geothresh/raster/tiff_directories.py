"""Read the image file directories (IFDs) of a TIFF, byte for byte, to compare files without GDAL.

GDAL takes 1.5 ms to open a file and to answer all that is asked about it. Most of the answers are
the same for each of a hundred thousand files of one writer. Comparing the directories of two files
takes a fiftieth of that. Only positions are interpreted here. A file with anything unusual is
refused, and GDAL examines it.

Sources: TIFF 6.0 and the BigTIFF design for header, entries and types; GeoTIFF 1.1 for the tie
point.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from dataclasses import dataclass

import numpy as np

from geothresh.types import Int64Array

# Bytes of a value, by TIFF type number.
_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
    18: 8,
}  # fmt: skip
_INTEGERS = {3: "u2", 4: "u4", 16: "u8"}
# Tags of the offsets and byte counts of strips and of tiles.
_OFFSETS, _SIZES = (273, 324), (279, 325)
_TIE_POINT = 33922
# Tags of nested directories: SubIFDs, EXIF, GPS.
_NESTED = (330, 34665, 34853)
# Tags that may differ between files of one kind: the time of writing, and items of GDAL's metadata
# with neither domain nor role, which are statistics and the tags of the program that made the file.
_WRITTEN, _METADATA = 306, 42112
_ITEM = re.compile(rb'<Item name="(?!AREA_OR_POINT")[^"&]*"(?: sample="\d+")?>[^<]*</Item>\s*')
# Bytes that are read first; most bytes of a value; most directories. Files with more are unusual.
_HEAD, _MOST_BYTES, _MOST_DIRECTORIES = 8192, 1 << 22, 32
# Offsets from this one on are damaged.
_FARTHEST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """The content of a file's directories: a digest, and what may differ within a kind."""

    digest: bytes
    """Digest of everything but tie point, free metadata, and offsets and sizes of blocks."""
    tie_point: tuple[float, float] | None
    """Map coordinates of the tie point, which is the corner or the centre of the first pixel; None
    if the file is georeferenced in another way."""
    offsets: Int64Array
    """Offset of each block of the image in the file, in raster order; 0 = absent."""
    sizes: Int64Array
    """Bytes of each block."""


class _Unusual(Exception):
    """A file holds something that is not interpreted here."""


def read_directories(path: str) -> Directories | None:
    """Read the directories of a TIFF; None where they are unusual, damaged or cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # GDAL examines the file next, and reports what is wrong.
        return None
    try:
        return _Walk(file).directories()
    except (_Unusual, OSError):
        return None
    finally:
        os.close(file)


class _Walk:
    """Walks through the directories of an open file."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._head = os.pread(file, _HEAD, 0)
        self._order = {b"II": "<", b"MM": ">"}.get(self._head[:2], "")
        version = self._head[2:4]
        if not self._order or len(self._head) < 16:
            raise _Unusual
        self._big = version in (b"+\0", b"\0+")
        letter = "Q" if self._big else "I"
        self._number = struct.Struct(self._order + letter)
        self._count = struct.Struct(self._order + ("Q" if self._big else "H"))
        self._entry = struct.Struct(f"{self._order}HH{letter}{self._number.size}s")
        if not self._big and version not in (b"*\0", b"\0*"):
            raise _Unusual
        if self._big and struct.unpack_from(self._order + "HH", self._head, 4) != (8, 0):
            raise _Unusual
        self._tie_point: tuple[float, float] | None = None
        self._blocks: dict[int, tuple[int, bytes]] = {}

    def directories(self) -> Directories:
        """Read all directories."""
        digest = hashlib.blake2b(self._head[:4], digest_size=16)
        (at,) = self._number.unpack_from(self._head, 8 if self._big else 4)
        count = 0
        while at:
            if count == _MOST_DIRECTORIES:
                raise _Unusual
            at, content = self._directory(at, first=not count)
            digest.update(struct.pack("<Q", len(content)))
            digest.update(content)
            count += 1
        offsets, sizes = self._integers(_OFFSETS), self._integers(_SIZES)
        if len(offsets) != len(sizes):
            raise _Unusual
        return Directories(
            digest=digest.digest(), tie_point=self._tie_point, offsets=offsets, sizes=sizes
        )

    def _directory(self, at: int, *, first: bool) -> tuple[int, bytes]:
        """Read a directory: (offset of the next one or 0, its content for the digest)."""
        (count,) = self._count.unpack(self._read(at, self._count.size))
        size = self._entry.size
        entries = self._read(at + self._count.size, count * size + self._number.size)
        content = []
        inline = self._number.size
        for start in range(0, count * size, size):
            tag, kind, values, field = self._entry.unpack_from(entries, start)
            length = _BYTES.get(kind, 0) * values
            if not length or tag in _NESTED:
                raise _Unusual
            if length > inline:
                value = self._read(self._number.unpack(field)[0], length)
            else:
                value = field[:length]
            if tag in _OFFSETS or tag in _SIZES:
                # Offsets may have different integer types in files of one kind.
                content.append(struct.pack("<HQ", tag, values))
                if first:
                    self._keep(tag, kind, value)
            elif tag == _METADATA and kind == 2:
                content.append(struct.pack("<H", tag) + _ITEM.sub(b"", value))
            elif tag == _TIE_POINT and first:
                content.append(entries[start : start + size - inline] + self._tied(kind, value))
            elif tag != _WRITTEN:
                content.append(entries[start : start + size - inline] + value)
        (following,) = self._number.unpack_from(entries, count * size)
        return following, b"".join(content)

    def _keep(self, tag: int, kind: int, value: bytes) -> None:
        if tag in self._blocks:
            raise _Unusual
        self._blocks[tag] = kind, value

    def _tied(self, kind: int, value: bytes) -> bytes:
        """Keep the map coordinates of a tie point of the first pixel; gives the other bytes."""
        if kind == 12 and len(value) == 48:
            column, row, _, x, y, _ = struct.unpack(self._order + "6d", value)
            if column == row == 0:
                if self._tie_point is not None:
                    raise _Unusual
                self._tie_point = x, y
                return value[:24] + value[40:]
        return value

    def _integers(self, tags: tuple[int, int]) -> Int64Array:
        """The integers of whichever of two tags the file has."""
        present = [self._blocks[tag] for tag in tags if tag in self._blocks]
        if len(present) != 1 or present[0][0] not in _INTEGERS:
            raise _Unusual
        kind, value = present[0]
        numbers = np.frombuffer(value, self._order + _INTEGERS[kind])
        if numbers.size and numbers.max() >= _FARTHEST:
            raise _Unusual
        return numbers.astype(np.int64)

    def _read(self, at: int, size: int) -> bytes:
        if at + size <= len(self._head):
            return self._head[at : at + size]
        if size > _MOST_BYTES or at >= _FARTHEST:
            raise _Unusual
        content = os.pread(self._file, size, at)
        if len(content) < size:
            raise _Unusual
        return content
