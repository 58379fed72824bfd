"""Remove small regions of a mask and fill its small holes, in a mask of any size.

Regions are put together from the runs of strips, as in `geothresh.raster.regions`: a first pass
over the strips finds how large each is, a second one takes away the small ones. In memory are one
strip, and a few numbers for each piece of a region in a strip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from geothresh.raster.mask import Mask, rewritten
from geothresh.raster.regions import join_groups, runs_of, sums_of, touching
from geothresh.types import BoolArray, Int64Array
from geothresh.windows import PixelWindow

#: A mask from top to bottom, in strips of full width; may be gone through several times.
Strips = Callable[[], Iterator[tuple[PixelWindow, BoolArray]]]


def sieved(strips: Strips, *, regions: int, holes: int, diagonal: bool) -> Strips:
    """A mask without its small regions, and then without its small holes.

    Args:
        strips: the mask.
        regions: foreground regions of fewer pixels become background.
        holes: background regions of fewer pixels that do not touch the border of the raster become
            foreground.
        diagonal: whether foreground pixels that share a corner alone are one region, and so do not
            let background through; else they are two, and background does get through.

    Returns:
        The sieved mask, to be gone through as the mask itself.
    """
    if regions > 1:
        strips = partial(_without_small, strips, regions, diagonal=diagonal)
    if holes > 1:
        background = partial(_inverted, strips)
        kept = partial(_without_small, background, holes, diagonal=not diagonal, border=True)
        strips = partial(_inverted, kept)
    return strips


@contextmanager
def sieved_mask(
    mask: Mask, *, regions: int, holes: int, diagonal: bool, beside: Path
) -> Iterator[Mask]:
    """A mask sieved, in a temporary file that lives as long as the block; see `sieved`.

    Args:
        mask: open; where nothing is to be sieved it is given back itself.
        regions, holes: pixels, 0 or 1 leave all.
        diagonal: see `sieved`.
        beside: a path in whose directory the file is put.

    Raises:
        InputError: the mask cannot be read.
        OutputError: the file cannot be written.
    """
    if max(regions, holes) <= 1:
        yield mask
        return

    def strips() -> Iterator[tuple[PixelWindow, BoolArray]]:
        for window in mask.strips():
            yield window, mask.foreground(window)

    parts = sieved(strips, regions=regions, holes=holes, diagonal=diagonal)
    with rewritten(mask, parts(), beside) as clean:
        yield clean


def _inverted(strips: Strips) -> Iterator[tuple[PixelWindow, BoolArray]]:
    for window, mask in strips():
        yield window, ~mask


def _without_small(
    strips: Strips, least: int, *, diagonal: bool, border: bool = False
) -> Iterator[tuple[PixelWindow, BoolArray]]:
    """The mask without regions of fewer than `least` pixels.

    With `border`, those that touch the border of the raster stay.
    """
    pieces = _Pieces(diagonal)
    for window, mask in strips():
        pieces.add(window, mask)
    stays = pieces.stays(least, border)
    first = 0
    for window, mask in strips():
        start, end, piece = _pieces_of(mask, diagonal)
        gone = ~stays[first + piece]
        first += int(piece.max(initial=-1)) + 1
        if gone.any():
            # Runs lie on one line of rows of width + 1: they begin and end there.
            change = np.zeros(window.height * (window.width + 1) + 1, np.int8)
            change[start[gone]] = 1
            change[end[gone]] -= 1
            away = np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)
            mask = mask & ~away.reshape(window.height, -1)[:, : window.width]
        yield window, mask


def _pieces_of(mask: BoolArray, diagonal: bool) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Start and end of each run of a strip, and the piece that it belongs to, from 0."""
    start, end = runs_of(mask)
    pitch = mask.shape[1] + 1
    more = int(diagonal)
    upper, lower = touching(start, end, start - pitch - more, end - pitch + more)
    return start, end, join_groups(start.size, upper, lower)[1]


class _Pieces:
    """Collects strips, tells which of their pieces belong to large regions."""

    def __init__(self, diagonal: bool) -> None:
        self._diagonal = diagonal
        self._count = 0
        self._pixels: list[Int64Array] = []
        self._at_border: list[BoolArray] = []
        self._joins: list[Int64Array] = []
        none = np.empty(0, np.int64)
        self._above = (none, none, none)

    def add(self, window: PixelWindow, mask: BoolArray) -> None:
        start, end, piece = _pieces_of(mask, self._diagonal)
        count = int(piece.max(initial=-1)) + 1
        pitch = window.width + 1
        row, col = np.divmod(start, pitch)
        at_border = np.zeros(count, np.bool_)
        sides = (col == 0) | (end - row * pitch == window.width)
        at_border[piece[sides | (row + window.row == 0)]] = True
        self._pixels.append(sums_of(piece, end - start, count))
        self._at_border.append(at_border)
        piece = piece + self._count
        self._count += count

        above_start, above_end, above_piece = self._above
        head = int(np.searchsorted(start, pitch))
        more = int(self._diagonal)
        upper, lower = touching(above_start, above_end, start[:head] - more, end[:head] + more)
        self._joins.append(np.stack([above_piece[upper], piece[lower]]))
        tail, below = int(np.searchsorted(start, (window.height - 1) * pitch)), window.height - 1
        self._above = (start[tail:] - below * pitch, end[tail:] - below * pitch, piece[tail:])

    def stays(self, least: int, border: bool) -> BoolArray:
        """Of each piece, in the order in which they came."""
        if not self._count:
            return np.empty(0, np.bool_)
        at_border = np.concatenate(self._at_border)
        # What lies in the last row of all.
        at_border[self._above[2]] = True
        upper, lower = np.concatenate(self._joins, axis=1)
        count, region = join_groups(self._count, upper, lower)
        large = sums_of(region, np.concatenate(self._pixels), count) >= least
        if border:
            large[region[at_border]] = True
        return np.asarray(large[region], np.bool_)
