"""A scene in six files, and runs over many files with a small grid of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geothresh import Many, RefineManyResult, refine_many
from geothresh.windows import PixelWindow
from tests.support.fakes import Recognisable
from tests.support.flat import grouped
from tests.support.rasters import NORTH_UP, write_raster

TILES = {"tile_size": 64, "overlap": 32}


def scene_values(height: int, width: int) -> NDArray[np.float32]:
    rows, cols = np.mgrid[:height, :width]
    return (0.5 + 0.45 * np.sin(rows / 13.3) * np.cos(cols / 9.1)).astype(np.float32)


def write_part(path: Path, values: NDArray[Any], window: PixelWindow, **options: Any) -> Path:
    """A file with a window of an array, where it lies in it."""
    transform = NORTH_UP @ NORTH_UP.translation(window.col, window.row)
    return write_raster(path, values[window.slices()], transform=transform, **options)


def run(files: Sequence[Path | str], folder: Path | str, **options: Any) -> RefineManyResult:
    many = options.pop("many", Many())
    model = options.pop("model", None) or Recognisable()
    return refine_many(files, folder, model=model, many=many, **grouped(**TILES | options))


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        values: NDArray[Any] = dataset.read(1)
        return values


VALUES = scene_values(100, 300)
VALUES[40:60, 60:75] = np.nan
WINDOWS = {
    f"p{row}{col}": PixelWindow(row=row * 50, col=col * 100, height=50, width=100)
    for row in range(2)
    for col in range(3)
}


def write_tiles(folder: Path) -> Path:
    """Make a folder with six files of one scene."""
    folder.mkdir()
    for name, window in WINDOWS.items():
        write_part(folder / f"{name}.tif", VALUES, window)
    return folder
