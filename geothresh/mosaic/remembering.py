"""Remember refined tiles: where outputs are small, each tile is asked for by many of them.

A tile is known again by its pixels, not by its place, so that nobody has to know whether two
outputs see the same there.
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
"""Bytes of refined tiles that are remembered: 64 of the usual size."""


class TileMemory:
    """The last tiles that one refiner has refined; several threads may use it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Remember at most so many bytes of refined tiles."""
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._tiles: OrderedDict[bytes, Float32Array] = OrderedDict()
        self._asked: Refiner | RefinerSource | None = None
        self._remembering: RememberingRefiner | None = None

    def of(self, refiner: Refiner | RefinerSource) -> RememberingRefiner:
        """The same refiner, loaded, with this memory; what another one gave is forgotten."""
        if self._remembering is None or refiner is not self._asked:
            with self._lock:
                self._tiles.clear()
                self._bytes = 0
            self._asked, self._remembering = (
                refiner,
                RememberingRefiner(load_refiner(refiner), self),
            )
        return self._remembering

    def get(self, key: bytes) -> Float32Array | None:
        """The refined form of a tile, or None if it is not known."""
        with self._lock:
            refined = self._tiles.get(key)
            if refined is not None:
                self._tiles.move_to_end(key)
            return refined

    def add(self, key: bytes, refined: Float32Array) -> None:
        """Remember a refined tile, and forget those that were not asked for the longest."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = refined
            self._bytes += refined.nbytes
            while self._bytes > self._most:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes


class RememberingRefiner:
    """A refiner that is asked for new tiles alone: `geothresh.mosaic.Refiner`.

    It gives the same as the one inside, as long as that gives the same for a tile alone and in a
    batch, which the engine asks of each.
    """

    def __init__(self, guarded: GuardedRefiner, memory: TileMemory) -> None:
        """Wrap a refiner whose output is checked: nothing unsound is remembered."""
        inside = guarded.refiner
        self.patch, self.name, self.digest = inside.patch, inside.name, inside.digest
        self.parallel_calls, self.takes_views = guarded.parallel_calls, guarded.takes_views
        self._guarded, self._memory = guarded, memory

    def __call__(self, tiles: Float32Array, /) -> Float32Array:
        """Refine tiles, as `geothresh.mosaic.Refiner` says."""
        keys = [_key(tile) for tile in tiles]
        known = {key: tile for key in keys if (tile := self._memory.get(key)) is not None}
        new = {key: place for place, key in enumerate(keys) if key not in known}
        if new:
            places = list(new.values())
            made = self._guarded(tiles if len(places) == len(tiles) else tiles[places])
            for key, refined in zip(new, made, strict=True):
                # A copy, so that the array of a batch is not kept for one of its tiles.
                known[key] = refined.copy()
                self._memory.add(key, known[key])
        return np.stack([known[key] for key in keys])


def _key(tile: Float32Array) -> bytes:
    """What tells a tile from others of a run: its shape and its pixels."""
    digest = hashlib.sha256(repr(tile.shape).encode())
    digest.update(np.ascontiguousarray(tile).data)
    return digest.digest()
