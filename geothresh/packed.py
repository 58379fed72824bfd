"""Compressed uint8 layers of a chunk, for the journal and for transfer between processes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The fastest, for what is packed is read once at most. Looking for runs of one byte alone takes a
# tenth less time than looking for any repetition, and packs a mask to half as much.
_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayer:
    """One layer, uint8 (height, width)."""

    height: int
    width: int
    data: bytes
    """A zlib stream; or the one byte that is everywhere, as in land without data."""

    @classmethod
    def of(cls, values: NDArray[np.uint8]) -> PackedLayer:
        """Pack a layer of at least one pixel; zlib leaves other threads running meanwhile."""
        height, width = values.shape
        first = values[0, 0]
        if (values == first).all():
            return cls(height=height, width=width, data=bytes([first]))
        packing = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)
        data = packing.compress(np.ascontiguousarray(values).data) + packing.flush()
        return cls(height=height, width=width, data=data)

    @property
    def is_flat(self) -> bool:
        """Whether the data is one byte for all pixels."""
        return len(self.data) == 1

    def unpack(self) -> NDArray[np.uint8]:
        """The layer again."""
        if self.is_flat:
            return np.full((self.height, self.width), self.data[0], np.uint8)
        values = np.frombuffer(zlib.decompress(self.data), np.uint8)
        return values.reshape(self.height, self.width)
