"""TIFF files as bytes: tags changed in a file, and files that no writer would write."""

from __future__ import annotations

import struct
from pathlib import Path

SHORT, LONG = 3, 4

# Tags of TIFF 6.0.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339


def entries(content: bytes) -> dict[int, int]:
    """Where the entries of the first directory of a little-endian classic TIFF lie, by tag."""
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    places = range(directory + 2, directory + 2 + 12 * count, 12)
    return {struct.unpack_from("<H", content, place)[0]: place for place in places}


def retag(path: Path, tag: int, value: int, *, count: int | None = None) -> Path:
    """Give a tag another value of the type LONG, and another count if asked."""
    content = bytearray(path.read_bytes())
    place = entries(content)[tag]
    struct.pack_into("<HI", content, place + 2, LONG, 1 if count is None else count)
    struct.pack_into("<I", content, place + 8, value)
    path.write_bytes(content)
    return path


def bare(path: Path, tags: dict[int, tuple[int, int]], data: bytes = b"") -> Path:
    """A classic TIFF of one directory with `tags` (type, value), then `data`."""
    body = struct.pack("<H", len(tags))
    for tag, (kind, value) in sorted(tags.items()):
        body += struct.pack("<HHI", tag, kind, 1)
        body += struct.pack("<I", value) if kind == LONG else struct.pack("<HH", value, 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 0) + data)
    return path


def one_strip(width: int, height: int, *, offset: int, size: int) -> dict[int, tuple[int, int]]:
    """Tags of an uncompressed grey picture in one strip."""
    return {
        WIDTH: (LONG, width),
        HEIGHT: (LONG, height),
        BITS: (SHORT, 8),
        COMPRESSION: (SHORT, 1),
        PHOTOMETRIC: (SHORT, 1),
        STRIP_OFFSETS: (LONG, offset),
        SAMPLES: (SHORT, 1),
        ROWS_PER_STRIP: (LONG, height),
        STRIP_BYTES: (LONG, size),
    }
