"""Load the refiner of a process once, limit concurrent calls of it, and check its output."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import lru_cache

import numpy as np

from geothresh.errors import ModelError
from geothresh.mosaic.protocols import Refiner, RefinerSource
from geothresh.types import Float32Array

_REMEMBERED = 4
_loading = threading.Lock()


def parallel_calls(refiner: Refiner) -> int:
    """Threads that may call a refiner at once: as it says itself, 1 if it says nothing."""
    return int(getattr(refiner, "parallel_calls", 1))


class GuardedRefiner:
    """A refiner with a limit on concurrent calls and a check of its output."""

    def __init__(self, refiner: Refiner) -> None:
        """Wrap a refiner; its ``parallel_calls`` is the limit, 1 where it has none."""
        self.refiner = refiner
        self.parallel_calls = parallel_calls(refiner)
        """Threads that may be in the refiner at once."""
        self._places = threading.Semaphore(self.parallel_calls)
        self._flat_lock = threading.Lock()
        self._flat: OrderedDict[tuple[bytes, int], Float32Array] = OrderedDict()

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, float32 (batch, [bands,] tile, tile), and give (batch, tile, tile).

        Raises:
            ModelError: The refiner gave another shape, or values that are not in [0, 1].
        """
        with self._places:
            refined = self.refiner(tiles)
        return self._checked(refined, tiles)

    def flat(self, value: Float32Array, tile: int) -> Float32Array:
        """The refined form, (tile, tile), of a tile that is ``value``, ([bands,] 1, 1), everywhere.

        Empty land and open water make many such tiles; one pass of the model does for all that
        are equal. The last few are remembered.

        Raises:
            ModelError: As for a call.
        """
        with self._flat_lock:
            key = (value.tobytes(), tile)
            refined = self._flat.pop(key, None)
            if refined is None:
                shape = (1, *value.shape[:-2], tile, tile)
                refined = self(np.full(shape, value, np.float32))[0]
                if len(self._flat) == _REMEMBERED:
                    self._flat.popitem(last=False)
            self._flat[key] = refined
            return refined

    def _checked(self, refined: Float32Array, tiles: Float32Array) -> Float32Array:
        name = self.refiner.name
        if refined.shape != (len(tiles), *tiles.shape[-2:]):
            raise ModelError(
                f"model {name!r}: gave an array of shape {refined.shape} for tiles of shape "
                f"{tiles.shape}; use a model that keeps the shape"
            )
        # NaN fails both comparisons, which is meant.
        if not (refined.min() >= 0 and refined.max() <= 1):
            raise ModelError(
                f"model {name!r}: gave values from {refined.min():g} to {refined.max():g} instead "
                "of 0 to 1; use a sound model file, or another precision"
            )
        return refined


@lru_cache(maxsize=1)
def _load(source: RefinerSource, cores: int | None) -> GuardedRefiner:
    return GuardedRefiner(source.load(cores=cores))


def load_refiner(refiner: Refiner | RefinerSource, *, cores: int | None = None) -> GuardedRefiner:
    """Load and cache the refiner of a source, or wrap the one that is given.

    Only the last source's refiner is kept: a second model does not stay beside the first.

    Args:
        refiner: The model, or where to load it from.
        cores: Processor cores that a loaded one may use; by default all that its library takes.
    """
    if callable(refiner):
        return GuardedRefiner(refiner)
    with _loading:  # lru_cache alone would let two threads load the same model
        return _load(refiner, cores)


def flat_value(tile: Float32Array) -> Float32Array | None:
    """The one value of a tile ([bands,] height, width), as ([bands,] 1, 1), or None if several."""
    value = tile[..., :1, :1]
    # Nearly all tiles are told apart by one row.
    if (tile[..., :1, :] == value).all() and (tile == value).all():
        return value.copy()
    return None
