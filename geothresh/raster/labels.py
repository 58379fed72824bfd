"""The ground truth of one raster, read window by window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.raster.masks import find_foreground, open_classes
from geothresh.raster.paths import find_raster
from geothresh.raster.scene import Scene, SceneSpec
from geothresh.windows import PixelWindow

_FOREGROUND, _HIGH = 1, 255
_CUT = "cut them at a threshold first, to whole numbers: 1 foreground, 0 background, 255 no data"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsSpec:
    """What is known about a mask; opens it again in any process."""

    scene: SceneSpec
    """The file."""
    value: int
    """What stands for foreground in it."""

    def open(self) -> Labels:
        """Open the mask without looking through it again.

        Raises:
            InputError: the file is gone, or has changed since it was first opened.
        """
        return Labels(self.scene.open(), self.value)


class Labels:
    """An open mask whose foreground value is known."""

    def __init__(self, scene: Scene, value: int) -> None:
        self.name = scene.name
        self.spec = LabelsSpec(scene=scene.spec, value=value)
        self._scene = scene
        self._value = value

    def read(self, window: PixelWindow) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Read a window that lies inside the raster.

        Returns:
            truth: (height, width) bool, True = foreground; False where there is no data.
            valid: (height, width) bool, True where there is data.

        Raises:
            InputError: a block cannot be decoded.
        """
        values, valid = self._scene.stored(window)
        if self._value == _FOREGROUND:
            valid = valid & (values != _HIGH)
        return (values == self._value) & valid, valid

    def require_grid_of(self, scene: Scene) -> None:
        """Raise InputError unless the mask lies on the pixels of `scene`."""
        self._scene.grid.require_same(self.name, scene.grid, scene.name)


@contextmanager
def open_labels(mask: Any, *, bidx: int | None = None) -> Iterator[Labels]:
    """Open a mask raster; it is read through once, to find out what is foreground in it.

    Foreground is 1, or 255 where only 0 and 255 occur; 255 beside 1 is nodata. 0 is background,
    also in the many masks that are tagged with a nodata value of 0: without it there would be no
    false positive.

    Args:
        mask: path of the raster, or an open rasterio dataset.
        bidx: the band, counted from 1; needed where there are several.

    Raises:
        InputError: the raster cannot be read, or is no mask.
        UsageError: the band does not exist.
    """
    with open_classes(find_raster(mask), bidx, zero_is_data=True, advice=_CUT) as scene:
        value, _ = find_foreground(scene, None, advice=_CUT)
        yield Labels(scene, value)
