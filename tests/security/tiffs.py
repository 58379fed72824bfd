"""TIFF files by the byte: what no library would write."""

from __future__ import annotations

import struct
from pathlib import Path

Entry = tuple[int, int, list[float]]

SHORT, LONG, DOUBLE = 3, 4, 12
_CODES = {SHORT: ("H", 2), LONG: ("I", 4), DOUBLE: ("d", 8)}


def image(width: int, height: int, *, bands: int = 1, bits: int = 8) -> list[Entry]:
    """The entries of a directory that say what is in a grey image, with a place on the map."""
    entries: list[Entry] = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [bits] * bands),
        (259, SHORT, [1]),
        (262, SHORT, [1]),
        (277, SHORT, [bands]),
        (284, SHORT, [1]),
        (33550, DOUBLE, [1.0, 1.0, 0.0]),
        (33922, DOUBLE, [0.0, 0.0, 0.0, 5e5, 5e6, 0.0]),
    ]
    return entries + ([(338, SHORT, [0] * (bands - 1))] if bands > 1 else [])


def mask(width: int, height: int) -> list[Entry]:
    """The same for the mask of one bit that comes after an image."""
    return [
        (254, LONG, [4]),
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [1]),
        (259, SHORT, [1]),
        (262, SHORT, [4]),
        (277, SHORT, [1]),
        (284, SHORT, [1]),
    ]


def tiles(side: int, offset: int = 0, size: int = 0) -> list[Entry]:
    """One tile, by default one that the file does not hold."""
    return [(322, LONG, [side]), (323, LONG, [side]), (324, LONG, [offset]), (325, LONG, [size])]


def strips(rows: int, count: int = 1) -> list[Entry]:
    """Strips that the file does not hold."""
    return [(278, LONG, [rows]), (273, LONG, [0] * count), (279, LONG, [0] * count)]


def write(path: Path, *directories: list[Entry]) -> Path:
    """Write a TIFF of some directories and no pixels."""
    content = b"II*\0\x08\0\0\0"
    for number, entries in enumerate(directories, 1):
        start = len(content)
        far_at, far, near = start + 2 + 12 * len(entries) + 4, b"", b""
        for tag, kind, values in sorted(entries):
            code, _ = _CODES[kind]
            data = struct.pack(f"<{len(values)}{code}", *values)
            if len(data) > 4:
                data, far = struct.pack("<I", far_at + len(far)), far + data
            near += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
        after = far_at + len(far) if number < len(directories) else 0
        content += struct.pack("<H", len(entries)) + near + struct.pack("<I", after) + far
    path.write_bytes(content)
    return path
