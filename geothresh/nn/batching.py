"""Batched inference that halves the batch when memory runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from geothresh.errors import ModelError, UsageError
from geothresh.options import BatchSize
from geothresh.types import Float32Array

if TYPE_CHECKING:
    import torch

GPU_BATCH = 16
"""Tiles of a batch on a GPU, where they fit."""


class Batches:
    """Batch size of one network on one device; it is halved when memory runs out.

    Any number of threads may run at once.
    """

    def __init__(self, batch_size: BatchSize, device: torch.device) -> None:
        """Take a number of at least 1, or "auto": 1 on a CPU, 16 on a GPU.

        Raises:
            UsageError: the number is below 1.
        """
        if isinstance(batch_size, int) and batch_size < 1:
            raise UsageError(f"batch size {batch_size}: say auto or a number of at least 1")
        # On a CPU a larger batch only costs memory; a GPU needs one to be busy.
        default = 1 if device.type == "cpu" else GPU_BATCH
        self.device = device
        self.size = batch_size if isinstance(batch_size, int) else default
        self._halving = threading.Lock()

    def run(
        self, forward: Callable[[Float32Array], Float32Array], tiles: Float32Array
    ) -> Float32Array:
        """Call `forward` on tiles (B, ..., T, T) batch by batch, halving those that do not fit.

        Returns:
            (B, T, T), what `forward` gave.

        Raises:
            ModelError: not even one tile fits in memory.
        """
        refined = np.empty((len(tiles), *tiles.shape[-2:]), np.float32)
        start = 0
        while start < len(tiles):
            size = self.size
            stop = min(start + size, len(tiles))
            try:
                refined[start:stop] = forward(tiles[start:stop])
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                self._halve(size, tiles.shape[-1], error)
            else:
                start = stop
        return refined

    def _halve(self, size: int, tile: int, error: Exception) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise ModelError(
                f"one tile of {tile} x {tile} does not fit in the memory of {self.device}; "
                "take a smaller `tile_size` or `device=cpu`"
            ) from error
        with self._halving:
            # Another thread may have found the same.
            self.size = min(self.size, size // 2)


def _out_of_memory(error: Exception) -> bool:
    import torch

    # Failures to allocate on a CPU (of Linux and macOS, of Windows), in oneDNN and on Metal are
    # plain RuntimeErrors, told apart by their text alone.
    texts = (
        "can't allocate memory",
        "not enough memory",
        "out of memory",
        "could not create a primitive",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in texts
    )
