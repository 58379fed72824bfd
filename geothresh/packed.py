"""Compressed layers of a chunk, for the journal and for transfer between processes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from geothresh.types import LayerArray

# The fastest, for what is packed is read once at most. Looking for runs of one byte alone takes a
# tenth less time than looking for any repetition, and packs a mask to half as much.
_LEVEL = 1
# Values are compared as these, so that NaN is like NaN.
_BITS = {1: np.uint8, 4: np.uint32}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayer:
    """One layer (height, width), uint8 or float32."""

    height: int
    width: int
    data: bytes
    """A zlib stream; or the one value that is everywhere, as in land without data."""
    item_bytes: int = 1
    """Of a value: 1 for uint8, 4 for float32."""

    @classmethod
    def of(cls, values: LayerArray) -> PackedLayer:
        """Pack a layer of at least one pixel; zlib leaves other threads running meanwhile."""
        height, width = values.shape
        item_bytes = values.dtype.itemsize
        bits = np.ascontiguousarray(values).view(_BITS[item_bytes])
        first = bits[0, 0]
        if (bits == first).all():
            data = first.tobytes()
        else:
            packing = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)
            data = packing.compress(bits.data) + packing.flush()
        return cls(height=height, width=width, data=data, item_bytes=item_bytes)

    @property
    def is_flat(self) -> bool:
        """Whether the data is one value for all pixels."""
        return len(self.data) == self.item_bytes

    def unpack(self) -> LayerArray:
        """The layer again."""
        dtype: Any = np.uint8 if self.item_bytes == 1 else np.float32
        shape = self.height, self.width
        values: LayerArray
        if self.is_flat:
            values = np.full(shape, np.frombuffer(self.data, dtype)[0], dtype)
        else:
            values = np.frombuffer(zlib.decompress(self.data), dtype).reshape(shape)
        return values
