"""Scenes with labels: windows of confidence, truth and what of it counts, for any process.

Nothing is read whole: the confidences stay in their file, the labels in theirs or as polygons that
are burnt window by window.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geothresh.options import Side
from geothresh.raster.features import burn
from geothresh.raster.georeference import Georeference
from geothresh.raster.mask import Mask, MaskSpec
from geothresh.raster.scene import Scene, SceneSpec
from geothresh.training.blocks import ChipPlaces, seen_side
from geothresh.training.sources import Cut, mixed
from geothresh.types import BoolArray
from geothresh.vector.placing import PlacedShapes
from geothresh.windows import PixelWindow

# A square that is smaller than the one it is taken from is drawn this often at most until there
# is something in it that counts.
_DRAWS = 8


class LabelledScene:
    """A confidence raster with its labels; may be sent to other processes.

    Files are opened anew in every process, a forked one too: a file handle that two of them share
    would be moved by one while the other reads.
    """

    def __init__(
        self,
        spec: SceneSpec,
        *,
        box: Georeference,
        dataset: str,
        labels: PlacedShapes | MaskSpec,
        aoi: PlacedShapes | None = None,
        validation_aoi: PlacedShapes | None = None,
    ) -> None:
        """Hold what opens the scene.

        Args:
            spec: of the confidences.
            box: where they lie.
            dataset: name of the labels.
            labels: where the foreground is: polygons, or a mask on the same grid.
            aoi: where the labels are complete; None = wherever there is data.
            validation_aoi: the same for what is validated on; None = as `aoi`.
        """
        self.spec = spec
        self.box = box
        self.size = box.size
        self.dataset = dataset
        self.labels = labels
        self.aoi = aoi
        self.validation_aoi = validation_aoi
        self._process: int | None = None
        self._scene: Scene | None = None
        self._mask: Mask | None = None

    @property
    def name(self) -> str:
        """Stem of the file's name."""
        return Path(self.spec.source.name).stem

    def read(self, window: PixelWindow, side: Side = "train") -> Cut:
        """A window that lies inside the raster; `side` says whose area of interest counts.

        Raises:
            InputError: a block cannot be decoded, or the file has changed.
        """
        scene, mask = self._open()
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
        """Where shapes lie in a window."""
        if isinstance(shapes, MaskSpec):
            raise TypeError("a mask is read, not burnt")
        return burn(shapes.touching(window), window)

    def _open(self) -> tuple[Scene, Mask | None]:
        if self._scene is None or self._process != os.getpid():
            self._scene = self.spec.open()
            self._mask = self.labels.open() if isinstance(self.labels, MaskSpec) else None
            self._process = os.getpid()
        return self._scene, self._mask

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None, "_scene": None, "_mask": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSource:
    """Chips of one scene, none of which touches what is validated on."""

    scene: LabelledScene
    places: ChipPlaces
    n_chips: int
    """Area that is trained on over the area of a chip."""
    others: Sequence[LabelledScene] = ()
    """The same ground by other base networks, on the same grid."""
    factor: float = 1.0
    """Pixels of the network along one of the scene."""

    @property
    def dataset(self) -> str:
        """Name of the labels."""
        return self.scene.dataset

    def cut(self, side: int, rng: np.random.Generator, *, mix: float) -> Cut:
        """A square at random, more often where more of it counts.

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
    """A window of a scene that is validated on.

    It is read with as much around it as the network takes in at once: that is seen, as `refine`
    would see it, but not scored.
    """

    scene: LabelledScene
    window: PixelWindow
    patch: int
    """Side of the network's patch, in its pixels."""
    factor: float = 1.0
    """Pixels of the network along one of the scene."""

    @property
    def dataset(self) -> str:
        """Name of the labels."""
        return self.scene.dataset

    @property
    def source(self) -> str:
        """Name of the scene."""
        return self.scene.name

    def read(self) -> Cut:
        """Confidence, truth and what counts in the window and around it."""
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
    """Start and length of a side made as long as what is seen, as far as the raster goes."""
    longer = min(max(length, seen), extent)
    return min(max(start - (longer - length) // 2, 0), extent - longer), longer


def _both(one: BoolArray | None, other: BoolArray | None) -> BoolArray | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other
