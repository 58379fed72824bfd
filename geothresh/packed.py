"""Compressed layers of a chunk, for the journal and for transfer between processes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from geothresh.types import LayerArray

# The fastest level, because packed data is read at most once. Searching only for runs of one byte
# (Z_RLE) takes a tenth less time than searching for any repetition, and packs a mask to half the
# size.
_LEVEL = 1
# Values are compared as these types, by their bits, so that NaN equals NaN.
_COMPARED = {8: np.uint8, 32: np.uint32}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayer:
    """One layer (height, width), uint8 or float32."""

    height: int
    width: int
    data: bytes
    """A zlib stream; or the one value of all pixels, as in areas without data."""
    item_bits: int = 8
    """Bits of a value in the stream: 32 for float32, 8 for uint8, or 1 for uint8 of 0 and 1."""

    @classmethod
    def of(cls, values: LayerArray) -> PackedLayer:
        """Pack a layer of at least one pixel; zlib releases the GIL meanwhile."""
        height, width = values.shape
        item_bits = 8 * values.dtype.itemsize
        stored = np.ascontiguousarray(values).view(_COMPARED[item_bits])
        first = stored[0, 0]
        if (stored == first).all():
            data = first.tobytes()
        else:
            if item_bits == 8 and stored.max() == 1:
                # A mask without nodata: an eighth of the bytes is packed in a fifth of the time.
                stored, item_bits = np.packbits(stored), 1
            packing = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)
            data = packing.compress(stored.data) + packing.flush()
        return cls(height=height, width=width, data=data, item_bits=item_bits)

    @property
    def is_flat(self) -> bool:
        """Whether the data is one value for all pixels."""
        return len(self.data) == self.flat_bytes(self.item_bits)

    @staticmethod
    def flat_bytes(item_bits: int) -> int:
        """Length of the data of a flat layer; a zlib stream is longer."""
        return max(1, item_bits // 8)

    def unpack(self) -> LayerArray:
        """Unpack the layer."""
        dtype: Any = np.float32 if self.item_bits == 32 else np.uint8
        shape = self.height, self.width
        if self.is_flat:
            return np.full(shape, np.frombuffer(self.data, dtype)[0], dtype)
        stored: Any = np.frombuffer(zlib.decompress(self.data), dtype)
        if self.item_bits == 1:
            stored = np.unpackbits(stored, count=self.height * self.width)
        values: LayerArray = stored.reshape(shape)
        return values
