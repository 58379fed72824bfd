"""Damage: bytes changed, put in, taken out; drawn from a generator alone."""

from __future__ import annotations

import numpy as np

MOST = 64
"""Bytes that are changed, put in or taken out."""
# Numbers that programs stumble over, little and big endian.
_NASTY = [
    value.to_bytes(size, order, signed=value < 0)
    for size in (1, 2, 4, 8)
    for value in (0, 1, -1, 2 ** (8 * size - 1) - 1, -(2 ** (8 * size - 1)))
    for order in ("little", "big")
]


def mutated(content: bytes, rng: np.random.Generator, *, head: int | None = None) -> bytes:
    """The content with 1 to 64 bytes of damage.

    Args:
        content: of a file.
        rng: the only source of chance.
        head: half of the damage is done to so many first bytes, where the structure is.
    """
    data = bytearray(content)
    left = int(rng.integers(1, MOST + 1)) if rng.random() < 0.5 else 1
    while left > 0 and data:
        end = len(data) if head is None or rng.random() < 0.5 else min(head, len(data))
        at = int(rng.integers(end))
        size = int(rng.integers(1, left + 1))
        what = rng.choice(["flip", "set", "nasty", "insert", "cut", "copy", "end"],
                          p=[0.4, 0.2, 0.2, 0.07, 0.07, 0.05, 0.01])  # fmt: skip
        if what == "flip":
            size = 1
            data[at] ^= 1 << int(rng.integers(8))
        elif what == "set":
            data[at : at + size] = rng.bytes(size)
        elif what == "nasty":
            value = _NASTY[int(rng.integers(len(_NASTY)))]
            size = len(value)
            data[at : at + size] = value
        elif what == "insert":
            data[at:at] = rng.bytes(size)
        elif what == "cut":
            del data[at : at + size]
        elif what == "copy":
            there = int(rng.integers(len(data)))
            data[at : at + size] = data[there : there + size]
        else:
            # The rest is lost, as by a broken transfer.
            del data[at:]
            left = 0
        left -= size
    return bytes(data)


# What shells, URLs, GDAL, SQLite and terminals take for more than a letter.
_LETTERS = [
    *"abc.-_ ;!#?%&*:|<>'\"`$~\\()[]{}=+,@^", "\n", "\t", "\x1b", "\u202e", "é", "路", "\udcff",
    "..", ".gpkg", ".tif", ".zip", ".tmp", "%2f", "VRT:", "GTIFF_DIR:1:", "x" * 60, "路" * 60,
]  # fmt: skip


def mutated_name(name: str, rng: np.random.Generator) -> str:
    """A name of a file with strange letters, none of which leads out of the directory."""
    letters = list(name)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(letters) + 1))
        what = rng.random()
        if what < 0.6:
            letters.insert(at, _LETTERS[int(rng.integers(len(_LETTERS)))])
        elif what < 0.8 and letters:
            del letters[min(at, len(letters) - 1)]
        else:
            letters[at : at + 1] = [_LETTERS[int(rng.integers(len(_LETTERS)))]]
    return "".join(letters)
