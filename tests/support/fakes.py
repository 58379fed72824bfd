"""Refiners without a network. All give the same for a tile alone and in a batch."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass

import numpy as np

from geothresh.errors import ModelError
from geothresh.types import Float32Array


class IdentityRefiner:
    """Gives back what it gets; counts, and fails when two threads call it at once."""

    name = "identity"
    digest = ""

    def __init__(self, patch: int = 16) -> None:
        self.patch = patch
        self.batches: list[int] = []
        self._busy = threading.Lock()

    @property
    def tiles(self) -> int:
        """Tiles refined so far."""
        return sum(self.batches)

    def __call__(self, tiles: Float32Array) -> Float32Array:
        if not self._busy.acquire(blocking=False):
            raise AssertionError("two threads called the refiner at once")
        try:
            assert tiles.dtype == np.float32
            assert tiles.shape[1] == tiles.shape[2]
            assert tiles.shape[1] % self.patch == 0
            assert np.isfinite(tiles).all()
            self.batches.append(len(tiles))
            return self.refine(tiles)
        finally:
            self._busy.release()

    def refine(self, tiles: Float32Array) -> Float32Array:
        """What the refiner does to tiles."""
        return tiles.copy()


class UnevenRefiner(IdentityRefiner):
    """Nonlinear, different at every place of the tile and aware of the whole tile.

    Overlapping tiles disagree everywhere, so that any slip in the blending shows.
    """

    name = "uneven"

    def refine(self, tiles: Float32Array) -> Float32Array:
        side = tiles.shape[-1]
        place = np.arange(side * side, dtype=np.float32).reshape(side, side)
        refined = np.empty_like(tiles)
        for tile, out in zip(tiles, refined, strict=True):
            phase = float(tile.astype(np.float64).sum())
            out[...] = 0.5 + 0.5 * np.sin(7.1 * tile + 0.37 * place + phase)
        return np.clip(refined, 0, 1)


class FrameRefiner(IdentityRefiner):
    """1 in the outermost frame of a tile and 0 inside: shows with what weight frames come out."""

    name = "frame"

    def refine(self, tiles: Float32Array) -> Float32Array:
        refined = np.ones_like(tiles)
        refined[:, 1:-1, 1:-1] = 0
        return refined


class FailingRefiner(IdentityRefiner):
    """Raises ModelError at the third call."""

    name = "failing"

    def refine(self, tiles: Float32Array) -> Float32Array:
        if len(self.batches) >= 3:
            raise ModelError("failing: 3 calls; use another model")
        return tiles.copy()


class NanRefiner(IdentityRefiner):
    """Gives one NaN in each tile."""

    name = "nan"

    def refine(self, tiles: Float32Array) -> Float32Array:
        refined = tiles.copy()
        refined[:, 3, 5] = np.nan
        return refined


class SlowRefiner(IdentityRefiner):
    """Takes a tenth of a second for each tile."""

    name = "slow"
    digest = "510e"

    def refine(self, tiles: Float32Array) -> Float32Array:
        time.sleep(0.1 * len(tiles))
        return tiles.copy()


class CoresRefiner(IdentityRefiner):
    """Gives a hundredth everywhere for each core that it was loaded for."""

    name = "cores"

    def __init__(self, patch: int = 16, cores: int = 0) -> None:
        super().__init__(patch)
        self.cores = cores

    def refine(self, tiles: Float32Array) -> Float32Array:
        return np.full_like(tiles, self.cores / 100)


class DyingRefiner(IdentityRefiner):
    """Kills its own process, as the kernel does where memory runs out."""

    name = "dying"

    def refine(self, tiles: Float32Array) -> Float32Array:
        os.kill(os.getpid(), signal.SIGKILL)
        return tiles


class DeadlyRefiner(IdentityRefiner):
    """Kills its own process where a tile holds 0.75."""

    name = "deadly"
    digest = "dead"

    def refine(self, tiles: Float32Array) -> Float32Array:
        if (tiles == 0.75).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return tiles.copy()


_KINDS = {
    kind.name: kind
    for kind in (
        IdentityRefiner,
        UnevenRefiner,
        FrameRefiner,
        FailingRefiner,
        NanRefiner,
        DyingRefiner,
        DeadlyRefiner,
        SlowRefiner,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSource:
    """Loads a fake by its name, in any process."""

    kind: str
    """Name of the fake."""
    patch: int = 16
    """Its patch in pixels."""

    def load(self, *, cores: int | None = None) -> IdentityRefiner:
        """Make the fake."""
        if self.kind == CoresRefiner.name:
            return CoresRefiner(self.patch, cores or 0)
        return _KINDS[self.kind](self.patch)


class Recognisable(UnevenRefiner):
    """A refiner with a digest, which stops the run at its n-th call."""

    digest = "d1ce"

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at

    def refine(self, tiles: Float32Array) -> Float32Array:
        if self.stop_at is not None and len(self.batches) > self.stop_at:
            raise KeyboardInterrupt
        return np.float32(0.9) * tiles + np.float32(0.1) * super().refine(tiles)
