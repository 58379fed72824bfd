"""Weights with which overlapping tiles are blended.

The weight of a tile is the outer product of one profile per axis. Along each axis the profiles
of all tiles that cover a pixel are divided by their sum, which depends on the grid alone: the
weights of every pixel add up to one before any pixel is read, and no frame has weight zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.options import Blend

BLENDS: Final[tuple[Blend, ...]] = get_args(Blend)

_GAUSSIAN_SIGMA = 1 / 8
"""Standard deviation over the tile's side; the profile falls to 3e-4 at the tile's edge."""


def blend_profile(kind: Blend, tile: int, overlap: int) -> NDArray[np.float32]:
    """Weight of one inner tile along one axis, before division by the sum over tiles.

    Args:
        kind: Which profile. ``hann``, ``gaussian`` and ``linear`` fall from the tile's centre to
            its edge and are positive everywhere; ``crop`` is 1 on the ``tile - overlap`` pixels
            in the middle and 0 outside.
        tile: Side of the tile in pixels.
        overlap: Pixels shared with the next tile; only ``crop`` depends on it.

    Returns:
        float32 of shape (tile,), in [0, 1].

    Raises:
        UsageError: ``kind`` is none of the four.
    """
    return _profile(kind, tile, overlap).astype(np.float32)


def _profile(kind: Blend, tile: int, overlap: int) -> NDArray[np.float64]:
    # Pixel centres: half a pixel in from both edges, so the outermost weight is never zero.
    centre = np.arange(tile, dtype=np.float64) + 0.5
    if kind == "hann":
        return np.sin(np.pi * centre / tile) ** 2
    if kind == "gaussian":
        return np.exp(-0.5 * ((centre / tile - 0.5) / _GAUSSIAN_SIGMA) ** 2)
    if kind == "linear":
        return np.minimum(centre, tile - centre) / (tile / 2)
    if kind == "crop":
        margin = overlap // 2
        profile = np.zeros(tile)
        profile[margin : margin + tile - overlap] = 1.0
        return profile
    raise UsageError(f"blend {kind!r}: choose one of {', '.join(BLENDS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisWeights:
    """Normalised weights of all tiles along one axis; at every pixel they add up to one.

    Tiles far enough from both ends have the same weights and share one row of ``table``.
    """

    table: NDArray[np.float32]
    """Shape (distinct, tile), in [0, 1], read-only."""
    count: int
    """Number of tiles along the axis."""

    @classmethod
    def build(cls, kind: Blend, *, tile: int, overlap: int, count: int) -> AxisWeights:
        """Weights for ``count`` tiles of side ``tile`` (pixels), ``tile - overlap`` apart.

        Raises:
            UsageError: ``kind`` is none of the four.
        """
        # A tile meets `reach` others on each side: 2 * reach + 1 tiles hold every distinct case.
        stride = tile - overlap
        reach = -(-tile // stride) - 1
        distinct = min(count, 2 * reach + 1)
        profiles = np.tile(_profile(kind, tile, overlap), (distinct, 1))
        if kind == "crop":
            # Nobody else covers the outer margins of the outermost tiles.
            margin = overlap // 2
            profiles[0, :margin] = 1.0
            profiles[-1, margin:] = 1.0
        total = np.zeros((distinct - 1) * stride + tile)
        for k in range(distinct):
            total[k * stride : k * stride + tile] += profiles[k]
        for k in range(distinct):
            profiles[k] /= total[k * stride : k * stride + tile]
        table = profiles.astype(np.float32)
        table.setflags(write=False)
        return cls(table=table, count=count)

    def case(self, index: int) -> int:
        """Row of ``table`` that holds the weights of tile ``index``, 0 <= index < count."""
        distinct = len(self.table)
        return max(min(index, distinct // 2), index - (self.count - distinct))

    def of(self, index: int) -> NDArray[np.float32]:
        """Weights of tile ``index``: float32 of shape (tile,)."""
        weights: NDArray[np.float32] = self.table[self.case(index)]
        return weights
