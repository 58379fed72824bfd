"""Cache refined tiles: a tile at the border of small outputs is needed by several of them.

A tile is identified by its pixels, not by its position, because two outputs may see other pixels at
the same position.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np

from geothresh.mosaic.protocols import Refiner, RefinerSource
from geothresh.mosaic.refining import GuardedRefiner, load_refiner
from geothresh.types import Float32Array

MOST_BYTES = 64 * 2**20
"""Bytes of refined tiles that are kept: 64 tiles of the usual size."""


class TileMemory:
    """Cache of the last tiles that one refiner has refined; several threads may use it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Keep at most `most_bytes` bytes of refined tiles."""
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._tiles: OrderedDict[bytes, Float32Array] = OrderedDict()
        self._refiner: Refiner | RefinerSource | None = None
        self._remembering: RememberingRefiner | None = None

    def of(self, refiner: Refiner | RefinerSource) -> RememberingRefiner:
        """Load a refiner and let it use this cache; tiles of another refiner are dropped."""
        if self._remembering is None or refiner is not self._refiner:
            with self._lock:
                self._tiles.clear()
                self._bytes = 0
            self._refiner, self._remembering = (
                refiner,
                RememberingRefiner(load_refiner(refiner), self),
            )
        return self._remembering

    def get(self, key: bytes) -> Float32Array | None:
        """The refined tile of a key, or None if it is not in the cache."""
        with self._lock:
            refined = self._tiles.get(key)
            if refined is not None:
                self._tiles.move_to_end(key)
            return refined

    def add(self, key: bytes, refined: Float32Array) -> None:
        """Keep a refined tile, and drop the least recently used ones."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = refined
            self._bytes += refined.nbytes
            while self._bytes > self._most:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes


class RememberingRefiner:
    """A refiner (`geothresh.mosaic.Refiner`) that refines only tiles that are not in a cache.

    It gives the same as the refiner inside, if that gives the same for a tile alone and in a batch,
    as the engine requires of each refiner.
    """

    def __init__(self, guarded: GuardedRefiner, memory: TileMemory) -> None:
        """Wrap a refiner whose output is checked, so that invalid tiles are not kept."""
        inside = guarded.refiner
        self.patch, self.name, self.digest = inside.patch, inside.name, inside.digest
        self.parallel_calls, self.takes_views = guarded.parallel_calls, guarded.takes_views
        self._guarded, self._memory = guarded, memory

    def __call__(self, tiles: Float32Array, /) -> Float32Array:
        """Refine tiles, see `geothresh.mosaic.Refiner`."""
        keys = [_key(tile) for tile in tiles]
        known = {key: tile for key in keys if (tile := self._memory.get(key)) is not None}
        new = {key: index for index, key in enumerate(keys) if key not in known}
        if new:
            indices = list(new.values())
            batch = self._guarded(tiles if len(indices) == len(tiles) else tiles[indices])
            for key, refined in zip(new, batch, strict=True):
                # A copy, so that the array of a batch is not kept for one of its tiles.
                known[key] = refined.copy()
                self._memory.add(key, known[key])
        return np.stack([known[key] for key in keys])


def _key(tile: Float32Array) -> bytes:
    """Key of a tile: a digest of its shape and pixels."""
    digest = hashlib.sha256(repr(tile.shape).encode())
    digest.update(np.ascontiguousarray(tile).data)
    return digest.digest()
