"""Which squares of the scenes are trained on and which are kept to validate.

A scene is laid out in cells of 64 pixels, which are counted once, and in blocks of whole cells, of
which some are held out. Chips are cut where they touch no cell that is held out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.nn.scope import resampled_patch
from geothresh.options import Side
from geothresh.training.sources import Cut
from geothresh.types import BoolArray, Int64Array
from geothresh.windows import PixelWindow, RasterSize

CELL = 64
"""Side of a cell in pixels: how finely a scene is counted, and what blocks are made of."""

TILE = 512
"""Side at most of the tiles in which blocks are validated, and of what the network sees at once."""

FINE = 256
"""Side of the blocks where it is said what to validate on."""

_BLOCK = 2048
_N_BLOCKS = 12

# Squares smaller than the largest that are drawn to choose one of them.
_TRIES = 8

# Pixels of a strip of the survey, and of one where a row of blocks does not fit in GDAL's cache,
# so that every strip decodes its blocks anew.
_STRIP = 1 << 23
_STRIP_WIDE = 1 << 24
_CACHED_BLOCK_ROW = 24 << 20


class Reader(Protocol):
    """What a survey reads."""

    size: RasterSize

    def read(self, window: PixelWindow, side: Side = "train") -> Cut:
        """Confidence, truth and what counts in a window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a scene holds, by cells (R, C) of `CELL` pixels; those at the far border are smaller."""

    size: RasterSize
    valid: Int64Array
    """Pixels of each cell that count in training."""
    foreground: Int64Array
    """Foreground pixels among them."""
    held_valid: Int64Array
    """Pixels of each cell that count in validation, if it is validated on."""
    held_foreground: Int64Array
    digest: str
    """sha256 of all confidences, of the truth, and of what counts."""


def survey(
    scene: Reader,
    *,
    block_height: int,
    two_areas: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Read a scene once from top to bottom, so that broken data is found before the first epoch.

    Args:
        scene: to be read.
        block_height: rows of a block of its file.
        two_areas: what counts in validation is not what counts in training.
        progress: called with rows done and all rows.

    Raises:
        InputError: a block cannot be decoded.
    """
    size = scene.size
    counts: list[list[Int64Array]] = []
    hashed = hashlib.sha256(f"{size.height} {size.width} ".encode())
    for window in _strips(size, block_height):
        cut = scene.read(window)
        held = scene.read(window, "validation") if two_areas else cut
        hashed.update(cut.confidence.tobytes())
        row = []
        for one in (cut, held):
            valid = np.ones(one.truth.shape, bool) if one.valid is None else one.valid
            row += [_by_cells(valid), _by_cells(one.truth & valid)]
            hashed.update(np.packbits(valid).tobytes() + np.packbits(one.truth & valid).tobytes())
        counts.append(row)
        if progress is not None:
            progress(window.row_stop, size.height)
    parts: list[Int64Array] = [np.concatenate(part) for part in zip(*counts, strict=True)]
    return Survey(
        size=size,
        valid=parts[0],
        foreground=parts[1],
        held_valid=parts[2],
        held_foreground=parts[3],
        digest=hashed.hexdigest(),
    )


def _strips(size: RasterSize, block_height: int) -> Iterator[PixelWindow]:
    cached = size.width * block_height <= _CACHED_BLOCK_ROW
    rows = max(CELL, (_STRIP if cached else _STRIP_WIDE) // size.width // CELL * CELL)
    for row in range(0, size.height, rows):
        yield PixelWindow(row=row, col=0, height=min(rows, size.height - row), width=size.width)


def _by_cells(mask: BoolArray) -> Int64Array:
    rows, cols = (np.arange(0, side, CELL) for side in mask.shape)
    # Row by row in bytes, which hold 64.
    narrow = np.add.reduceat(mask.view(np.uint8), cols, axis=1)
    return np.asarray(np.add.reduceat(narrow.astype(np.int64), rows, axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """A scene cut into blocks of nearly equal size, along whole cells."""

    rows: tuple[int, ...]
    """Edges: the first is 0, the last the height."""
    cols: tuple[int, ...]

    @classmethod
    def of(cls, size: RasterSize, side: int) -> BlockGrid:
        """Blocks of about `side` pixels."""
        return cls(
            rows=edges(0, size.height, max(1, round(size.height / side))),
            cols=edges(0, size.width, max(1, round(size.width / side))),
        )

    def blocks(self) -> dict[str, PixelWindow]:
        """Windows by name: ``r0c2`` is the third of the first row."""
        return {
            f"r{r}c{c}": PixelWindow(row=top, col=left, height=bottom - top, width=right - left)
            for r, (top, bottom) in enumerate(zip(self.rows, self.rows[1:], strict=False))
            for c, (left, right) in enumerate(zip(self.cols, self.cols[1:], strict=False))
        }


def block_side(surveys: Iterable[Survey], least: int) -> int:
    """Side of the blocks where none is asked for.

    2048 pixels, or less so that about twelve make up what counts, but never less than `least`.
    """
    pixels = sum(int(one.valid.sum()) for one in surveys)
    return max(least, min(_BLOCK, math.isqrt(pixels // _N_BLOCKS)))


def edges(start: int, stop: int, n: int) -> tuple[int, ...]:
    """Cut a side into n nearly equal parts, or fewer, at multiples of `CELL`."""
    inner = {round((start + (stop - start) * k / n) / CELL) * CELL for k in range(1, n)}
    return (start, *sorted(edge for edge in inner if start < edge < stop), stop)


def tiles(block: PixelWindow) -> list[PixelWindow]:
    """A block in tiles of at most `TILE` pixels a side."""
    rows, cols = (
        edges(start, start + side, -(-side // TILE))
        for start, side in ((block.row, block.height), (block.col, block.width))
    )
    return [
        PixelWindow(row=top, col=left, height=bottom - top, width=right - left)
        for top, bottom in zip(rows, rows[1:], strict=False)
        for left, right in zip(cols, cols[1:], strict=False)
    ]


def seen_side(patch: int, factor: float) -> int:
    """Side, in pixels of the map, of what a network takes in at once in validation.

    That is `TILE` pixels of its own.

    Args:
        patch: side of the network's patch.
        factor: pixels of the network along one of the map.
    """
    return TILE // patch * resampled_patch(patch, factor)


def cells_of(window: PixelWindow) -> tuple[slice, slice]:
    """The cells that a window touches."""
    return (
        slice(window.row // CELL, -(-window.row_stop // CELL)),
        slice(window.col // CELL, -(-window.col_stop // CELL)),
    )


class ChipPlaces:
    """Where chips of one scene may be cut."""

    def __init__(self, survey: Survey, held: BoolArray, side: int) -> None:
        """Find where chips may lie.

        Args:
            survey: of the scene.
            held: (R, C) cells that no chip may touch.
            side: of the largest square that will be drawn, in pixels.

        Raises:
            UsageError: no such square fits, or nothing counts where one does.
        """
        self.size = survey.size
        self.side = side
        self._held = _summed(held)
        self._valid = _summed(survey.valid)
        rows, cols = (self._starts(length) for length in (self.size.height, self.size.width))
        row, col = (part.ravel() for part in np.meshgrid(rows, cols, indexing="ij"))
        weight = np.where(
            self._sums(self._held, row, col) > 0, 0, self._sums(self._valid, row, col)
        )
        there = weight > 0
        if not there.any():
            raise UsageError(
                f"no chip of {side} pixels fits beside the {int(held.sum())} cells of {CELL} "
                "pixels that are held out to validate; lower `chip_size` (times `zoom`) or "
                "`validation_fraction`, or change `block_size`"
            )
        self._row, self._col = row[there], col[there]
        self._cumulative = np.cumsum(weight[there], dtype=np.float64)

    def draw(self, side: int, rng: np.random.Generator) -> PixelWindow:
        """A square at random that touches nothing held out, the likelier the more of it counts.

        Args:
            side: of the square, at most that of the largest.
            rng: the only source of chance.

        Returns:
            The window, cut to the raster where that is smaller.

        Raises:
            ValueError: the square is larger than the largest.
        """
        if side > self.side:
            raise ValueError(f"a square of {side} pixels is wider than the largest, {self.side}")
        share = rng.random() * self._cumulative[-1]
        number = int(np.searchsorted(self._cumulative, share, "right")) % len(self._row)
        row, col = int(self._row[number]), int(self._col[number])
        # Places are known by cells: between them, as far as nothing held out comes near.
        moved_row = min(row + int(rng.integers(CELL)), max(self.size.height - self.side, 0))
        moved_col = min(col + int(rng.integers(CELL)), max(self.size.width - self.side, 0))
        at = np.array([moved_row]), np.array([moved_col])
        if not self._sums(self._held, *at)[0] and self._sums(self._valid, *at)[0]:
            row, col = moved_row, moved_col
        height, width = min(self.side, self.size.height), min(self.side, self.size.width)
        if side < self.side:
            rows = row + rng.integers(max(height - side, 0) + 1, size=_TRIES)
            cols = col + rng.integers(max(width - side, 0) + 1, size=_TRIES)
            weight = np.cumsum(self._sums(self._valid, rows, cols, side), dtype=np.float64)
            chosen = int(np.searchsorted(weight, rng.random() * weight[-1], "right"))
            row, col = int(rows[chosen % _TRIES]), int(cols[chosen % _TRIES])
        return PixelWindow(row=row, col=col, height=min(side, height), width=min(side, width))

    def _starts(self, length: int) -> Int64Array:
        """Every cell, and what ends where a cell ends: blocks end there."""
        last = max(length - self.side, 0)
        begin = np.arange(0, last + 1, CELL)
        end = np.arange(CELL, length + 1, CELL) - self.side
        return np.unique(np.concatenate([begin, end[end >= 0], [last]]))

    def _sums(
        self, summed: Int64Array, row: Int64Array, col: Int64Array, side: int | None = None
    ) -> Int64Array:
        """Over the cells that the squares at these places touch."""
        side = side or self.side
        top, left = row // CELL, col // CELL
        bottom = np.minimum(-(-(row + side) // CELL), summed.shape[0] - 1)
        right = np.minimum(-(-(col + side) // CELL), summed.shape[1] - 1)
        inside = summed[bottom, right] - summed[top, right] - summed[bottom, left]
        return np.asarray(inside + summed[top, left])


def _summed(cells: NDArray[np.generic]) -> Int64Array:
    """Sums over all cells above and left of each corner (R + 1, C + 1)."""
    return np.pad(np.asarray(cells, np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
