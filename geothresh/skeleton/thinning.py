"""Thin a mask to lines one pixel wide, block by block, with the result of the whole array.

The rule is that of Guo and Hall, *Parallel thinning with two-subiteration algorithms* (CACM 32,
1989), algorithm A1, which `skimage.morphology.thin` follows too. Each half of an iteration removes
all outline pixels that are neither ends of lines nor connect two parts.

Half an iteration depends on neighbours at a distance of one pixel. So after k iterations, pixels at
least 2 k from the border of a window are the same as in the whole array. Blocks are read with a
halo of `HALO` pixels, and thinned by at most `HALO / 2` iterations. If that is not enough, as for
shapes wider than about `HALO` pixels, the blocks are stored, and thinned further in more passes
until nothing changes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from geothresh.options import Progress
from geothresh.types import BoolArray
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

#: Reads a window of a mask, which lies inside the raster: True = foreground.
ReadMask = Callable[[PixelWindow], BoolArray]

#: Pixels around a block that are read with it.
HALO = 64
#: Side of a block in pixels, at least `HALO`: the halo lies in the neighbouring blocks.
BLOCK = 2048


def thin(mask: BoolArray, *, iterations: int | None = None) -> tuple[BoolArray, BoolArray]:
    """Thin an array; all pixels outside of it count as background.

    Args:
        mask: (H, W), True = foreground.
        iterations: at most this many; None = until nothing changes.

    Returns:
        A new, thinned array (H, W), and the pixels (H, W) that the last iteration removed: none if
        thinning is complete.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    flat = padded.ravel()
    pitch = padded.shape[1]
    around = np.array([-pitch, 1 - pitch, 1, 1 + pitch, pitch, pitch - 1, -1, -1 - pitch])
    pixels = np.flatnonzero(flat)
    last = pixels
    done = 0
    while last.size and (iterations is None or done < iterations):
        taken = []
        for removed in _REMOVED:
            code = np.zeros(pixels.size, np.uint8)
            for bit, offset in enumerate(around):
                code |= flat[pixels + offset] << np.uint8(bit)
            gone = removed[code]
            taken.append(pixels[gone])
            flat[taken[-1]] = 0
            pixels = pixels[~gone]
        done += 1
        last = np.concatenate(taken)
    changed = np.zeros(padded.shape, np.bool_)
    changed.ravel()[last] = True
    return padded[1:-1, 1:-1].astype(np.bool_), changed[1:-1, 1:-1]


def _rules() -> tuple[BoolArray, BoolArray]:
    """(256,) each: whether a pixel with these neighbours is removed in the first and second half.

    Bit k is the neighbour k of p2 ... p9 of the paper: north, then clockwise.
    """
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    p2, p3, p4, p5, p6, p7, p8, p9 = bits.T.astype(bool)
    # `parts` is C of the paper, the number of parts that meet at the pixel. `least` is N of the
    # paper: neighbours are counted in pairs, in two ways, and the lesser count is used.
    parts = sum(
        (~a & (b | c)).astype(int)
        for a, b, c in ((p2, p3, p4), (p4, p5, p6), (p6, p7, p8), (p8, p9, p2))
    )
    first = sum((a | b).astype(int) for a, b in ((p9, p2), (p3, p4), (p5, p6), (p7, p8)))
    second = sum((a | b).astype(int) for a, b in ((p2, p3), (p4, p5), (p6, p7), (p8, p9)))
    least = np.minimum(first, second)
    outline = (parts == 1) & (least >= 2) & (least <= 3)
    return outline & ~((p2 | p3 | ~p5) & p4), outline & ~((p6 | p7 | ~p9) & p8)


_REMOVED = _rules()


@dataclass(slots=True)
class BlockedMask:
    """A mask in memory, in compressed blocks; a skeleton needs little memory."""

    grid: RegularGrid
    """The grid of the blocks."""
    _packed: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def empty(cls, size: RasterSize, side: int) -> BlockedMask:
        """Make a mask of background, in blocks of `side` pixels."""
        return cls(RegularGrid(size=size, part_height=side, part_width=side))

    def put(self, block: int, values: BoolArray) -> None:
        """Store the pixels of a block."""
        if values.any():
            self._packed[block] = zlib.compress(np.packbits(values).tobytes(), 1)
        else:
            self._packed.pop(block, None)

    def read(self, window: PixelWindow) -> BoolArray:
        """Read a window inside the raster; False in blocks that were not stored."""
        result = np.zeros((window.height, window.width), np.bool_)
        for index in self.grid.touching(window):
            block = self.grid.window(index)
            common = window.intersection(block)
            if index in self._packed and common is not None:
                result[common.within(window)] = self._unpacked(index, block)[common.within(block)]
        return result

    def copy(self) -> BlockedMask:
        """Copy the mask; storing blocks in the copy does not change the original."""
        return BlockedMask(self.grid, dict(self._packed))

    def _unpacked(self, index: int, block: PixelWindow) -> BoolArray:
        packed = np.frombuffer(zlib.decompress(self._packed[index]), np.uint8)
        bits = np.unpackbits(packed, count=block.pixels)
        return bits.reshape(block.height, block.width).view(np.bool_)


def thin_blocks(
    read: ReadMask,
    size: RasterSize,
    *,
    side: int = BLOCK,
    halo: int = HALO,
    progress: Progress | None = None,
) -> BlockedMask:
    """Thin a mask of any size; the result is that of `thin` over the whole array, bit by bit.

    Args:
        read: reads a window of the mask.
        size: size of the mask.
        side: side of a block in pixels, at least `halo`.
        halo: pixels around a block, at least 2.
        progress: called with (blocks done, blocks in all), in each pass.
    """
    state = BlockedMask.empty(size, side)
    grid = state.grid
    waiting = list(range(grid.count))
    first = True
    while waiting:
        after = state.copy()
        unsettled = []
        for done, block in enumerate(waiting, start=1):
            window = grid.window(block)
            outer = window.grown(halo, size)
            before = read(outer) if first else state.read(outer)
            if before.any():
                thinned, changed = thin(before, iterations=halo // 2)
                after.put(block, thinned[window.within(outer)])
                # Only changes inside the block count, as those near the border of the halo may
                # differ from those of the whole array.
                if changed[window.within(outer)].any():
                    unsettled.append(window)
            if progress:
                progress(done, len(waiting))
        state, first = after, False
        # Further changes are at most `halo` pixels away from blocks that still change, that is, in
        # these blocks and their neighbours.
        waiting = sorted(
            {near for window in unsettled for near in grid.touching(window.grown(1, size))}
        )
    return state
