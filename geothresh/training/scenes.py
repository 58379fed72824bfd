"""Read scenes with labels: read windows, count valid pixels, and draw the positions of chips.

Nothing is read whole: confidences and label rasters stay in their files, and polygons are
rasterised window by window. Valid and foreground pixels are counted once, in bins of 64 pixels.
Chips are cut where they touch no bin that is held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import UsageError
from geothresh.options import Side
from geothresh.raster.features import burn
from geothresh.raster.georeference import Georeference
from geothresh.raster.mask import Mask, MaskSpec
from geothresh.raster.scene import Scene, SceneSpec
from geothresh.training.data import Cut, mixed, seen_side
from geothresh.training.handles import RecentFiles
from geothresh.training.options import BIN
from geothresh.types import BoolArray, Int64Array
from geothresh.vector.placing import PlacedShapes
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

# Chips are drawn again until one has a valid pixel, at most this often.
_DRAWS = 8

# For a square smaller than the largest, this many are drawn and one is chosen by its valid pixels.
_TRIES = 8

# Pixels of a strip of the survey. Strips are larger where a row of blocks does not fit in GDAL's
# cache and every strip decodes its blocks anew.
_STRIP = 1 << 23
_STRIP_WIDE = 1 << 24
_CACHED_BLOCK_ROW = 24 << 20


OpenFiles: TypeAlias = tuple[Scene, Mask | None]
"""The confidences of a scene, and its labels if they are a raster."""


class Reader(Protocol):
    """The interface of a scene that `survey` reads."""

    size: RasterSize

    def read(self, window: PixelWindow, side: Side = "train") -> Cut:
        """Read confidence, truth and validity in a window."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Counts of a scene by bins (R, C) of `BIN` pixels, smaller at the right and lower border."""

    size: RasterSize
    valid: Int64Array
    """Valid pixels of each bin, for training."""
    foreground: Int64Array
    """Foreground pixels among the valid pixels."""
    held_valid: Int64Array
    """Valid pixels of each bin, for validation, if it is held out."""
    held_foreground: Int64Array
    digest: str
    """SHA-256 of all confidences, of truth and validity."""

    @property
    def bins(self) -> RegularGrid:
        """The grid of bins."""
        return RegularGrid(size=self.size, part_height=BIN, part_width=BIN)


def survey(
    scene: Reader,
    *,
    block_height: int,
    two_areas: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Read a scene once and count it by bins; damaged data is found before the first epoch.

    Args:
        scene: the scene.
        block_height: number of rows of a block of its file.
        two_areas: whether validation has another area of interest than training.
        progress: called with (rows done, rows in all).

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
        for part in (cut, held):
            valid = np.ones(part.truth.shape, bool) if part.valid is None else part.valid
            row += [_by_bins(valid), _by_bins(part.truth & valid)]
            hashed.update(np.packbits(valid).tobytes() + np.packbits(part.truth & valid).tobytes())
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
    rows = max(BIN, (_STRIP if cached else _STRIP_WIDE) // size.width // BIN * BIN)
    return RegularGrid(size=size, part_height=rows, part_width=size.width).windows()


def _by_bins(mask: BoolArray) -> Int64Array:
    rows, cols = (np.arange(0, side, BIN) for side in mask.shape)
    # Sums of 64 pixels of a row fit in a byte.
    narrow = np.add.reduceat(mask.view(np.uint8), cols, axis=1)
    return np.asarray(np.add.reduceat(narrow.astype(np.int64), rows, axis=0))


class NoRoomError(UsageError):
    """No chip fits in a scene beside the blocks that are held out."""


class ChipPlaces:
    """Draws chip windows in one scene, away from held-out blocks."""

    def __init__(self, survey: Survey, held: BoolArray, side: int) -> None:
        """Find the positions at which chips may lie.

        Args:
            survey: survey of the scene.
            held: (R, C) bins that no chip may touch.
            side: side of the largest square that will be drawn, in pixels.

        Raises:
            NoRoomError: no such square fits, or none has a valid pixel.
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
        possible = weight > 0
        if not possible.any():
            raise NoRoomError(
                f"no chip of {side} pixels (`chip_size` times `zoom`) fits into "
                f"{survey.size.width} x {survey.size.height} pixels, of which {int(held.sum())} "
                f"squares of {BIN} pixels are held out to validate on"
            )
        self._row, self._col = row[possible], col[possible]
        self._cumulative = np.cumsum(weight[possible], dtype=np.float64)

    def draw(self, side: int, rng: np.random.Generator) -> PixelWindow:
        """Draw a square that touches no held-out bin, with a probability by its valid pixels.

        Args:
            side: side of the square, at most that of the largest.
            rng: the only source of randomness.

        Returns:
            The window, cut to the raster if that is smaller.

        Raises:
            ValueError: the square is larger than the largest.
        """
        if side > self.side:
            raise ValueError(f"a square of {side} pixels is wider than the largest, {self.side}")
        share = rng.random() * self._cumulative[-1]
        number = int(np.searchsorted(self._cumulative, share, "right")) % len(self._row)
        row, col = int(self._row[number]), int(self._col[number])
        # Positions lie on bins. A square is moved in its bin if it then touches no held-out bin.
        moved_row = min(row + int(rng.integers(BIN)), max(self.size.height - self.side, 0))
        moved_col = min(col + int(rng.integers(BIN)), max(self.size.width - self.side, 0))
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
        """Possible starts, at which the square begins or ends at the border of a bin."""
        last = max(length - self.side, 0)
        begin = np.arange(0, last + 1, BIN)
        end = np.arange(BIN, length + 1, BIN) - self.side
        return np.unique(np.concatenate([begin, end[end >= 0], [last]]))

    def _sums(
        self, summed: Int64Array, row: Int64Array, col: Int64Array, side: int | None = None
    ) -> Int64Array:
        """Sum over the bins that squares at these positions touch, from an integral image."""
        side = side or self.side
        top, left = row // BIN, col // BIN
        bottom = np.minimum(-(-(row + side) // BIN), summed.shape[0] - 1)
        right = np.minimum(-(-(col + side) // BIN), summed.shape[1] - 1)
        inside = summed[bottom, right] - summed[top, right] - summed[bottom, left]
        return np.asarray(inside + summed[top, left])


def _summed(bins: NDArray[np.generic]) -> Int64Array:
    """Integral image of bins: sums above and left of each corner, (R + 1, C + 1)."""
    return np.pad(np.asarray(bins, np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))


class LabelledScene:
    """A confidence raster with its labels, which can be sent to other processes."""

    def __init__(
        self,
        spec: SceneSpec,
        *,
        box: Georeference,
        block_height: int,
        dataset: str,
        labels: PlacedShapes | MaskSpec,
        aoi: PlacedShapes | None = None,
        validation_aoi: PlacedShapes | None = None,
        files: RecentFiles[OpenFiles] | None = None,
    ) -> None:
        """Describe a scene; nothing is opened yet.

        Args:
            spec: the confidences.
            box: georeference of the confidences.
            block_height: number of rows of a block of their file.
            dataset: name of the labels.
            labels: foreground as polygons, or as a mask on the same grid.
            aoi: polygons in which the labels are complete; None = everywhere.
            validation_aoi: such polygons for validation; None = those of `aoi`.
            files: open files, which the scenes of a training share; None = its own.
        """
        self.spec = spec
        self.box = box
        self.size = box.size
        self.block_height = block_height
        self.dataset = dataset
        self.labels = labels
        self.aoi = aoi
        self.validation_aoi = validation_aoi
        self._files: RecentFiles[OpenFiles] = RecentFiles() if files is None else files
        self._key = object()

    @property
    def name(self) -> str:
        """Stem of the file's name."""
        return Path(self.spec.source.name).stem

    @property
    def mask(self) -> str | None:
        """Path of the labels if they are a raster: scenes that share it show the same ground."""
        if not isinstance(self.labels, MaskSpec):
            return None
        return str(Path(self.labels.source.name).resolve())

    def read(self, window: PixelWindow, side: Side = "train") -> Cut:
        """Read a window inside the raster, valid in the area of interest of `side`.

        Raises:
            InputError: a block cannot be decoded, or the file has changed.
        """
        scene, mask = self._files.get(self._key, self._open)
        confidence, data = scene.read(window)
        valid = data.copy()
        if mask is not None:
            truth, known = mask.read(window)
            valid &= known
        else:
            truth = self.burnt(self.labels, window)
        area = self.validation_aoi if side == "validation" and self.validation_aoi else self.aoi
        if area is not None:
            valid &= self.burnt(area, window)
        return Cut(confidence, truth, data, valid)

    @staticmethod
    def burnt(shapes: PlacedShapes | MaskSpec, window: PixelWindow) -> BoolArray:
        """Rasterize shapes in a window, True = inside."""
        if isinstance(shapes, MaskSpec):
            raise TypeError("a mask is read, not burnt")
        return burn(shapes.touching(window), window)

    def _open(self) -> OpenFiles:
        mask = self.labels.open() if isinstance(self.labels, MaskSpec) else None
        return self.spec.open(), mask


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSource:
    """Source of chips from one scene, none of which touches a held-out block."""

    scene: LabelledScene
    places: ChipPlaces
    n_chips: int
    """Area for training divided by the area of a chip."""
    others: Sequence[LabelledScene] = ()
    """Maps of the same ground by other base networks, on the same grid."""
    factor: float = 1.0
    """Pixels of the network per pixel of the scene."""

    @property
    def dataset(self) -> str:
        """Name of the labels."""
        return self.scene.dataset

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        """Cut a random square, more often where there are more valid pixels.

        Raises:
            InputError: a block cannot be decoded, or the file has changed.
        """
        for _ in range(_DRAWS):
            window = self.places.draw(side, rng)
            cut = self.scene.read(window)
            if cut.valid is not None and cut.valid.any():
                break
        if self.others and rng.random() < mix:
            other = self.others[int(rng.integers(len(self.others)))].read(window)
            share = np.float32(rng.random())
            confidence = mixed(cut.confidence, other.confidence, share)
            data, valid = _both(cut.data, other.data), _both(cut.valid, other.valid)
            cut = Cut(confidence, cut.truth, data, valid)
        return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneTile:
    """A held-out window of a scene, as a `ValidationMap`.

    The window is read with its surroundings, up to the size that the network reads at once. The
    network reads the surroundings, as in `refine`, but they are not scored.
    """

    scene: LabelledScene
    window: PixelWindow
    patch: int
    """Side of the network's patch, in its pixels."""
    factor: float = 1.0
    """Pixels of the network per pixel of the scene."""

    @property
    def dataset(self) -> str:
        """Name of the labels."""
        return self.scene.dataset

    @property
    def source(self) -> str:
        """Name of the scene."""
        return self.scene.name

    def read(self) -> Cut:
        """Read the window and its surroundings; only the window is valid."""
        size, window = self.scene.size, self.window
        seen = seen_side(self.patch, self.factor)
        row, height = _widened(window.row, window.height, size.height, seen)
        col, width = _widened(window.col, window.width, size.width, seen)
        outer = PixelWindow(row=row, col=col, height=height, width=width)
        cut = self.scene.read(outer, "validation")
        scored = np.zeros(cut.truth.shape, np.bool_)
        scored[window.within(outer)] = True
        return cut._replace(valid=scored if cut.valid is None else scored & cut.valid)


def _widened(start: int, length: int, extent: int, seen: int) -> tuple[int, int]:
    """Start and length of a side, lengthened to `seen` as far as the raster allows."""
    longer = min(max(length, seen), extent)
    return min(max(start - (longer - length) // 2, 0), extent - longer), longer


def _both(one: BoolArray | None, other: BoolArray | None) -> BoolArray | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other
