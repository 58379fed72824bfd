"""Windows of a mask, and of a confidence raster on its grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window

from geothresh.errors import InputError
from geothresh.raster.blocks import span
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.masks import MaskBand
from geothresh.raster.reading import open_scene
from geothresh.raster.scene import Scene
from geothresh.raster.wording import in_own_words
from geothresh.windows import PixelWindow

# Share of a pixel by which the corners of two grids may differ and still be the same.
_SAME_CORNER = 0.01


@contextmanager
def open_foreground(band: MaskBand) -> Iterator[Callable[[PixelWindow], NDArray[np.bool_]]]:
    """Give a function that reads a window of the mask: (h, w), True = foreground.

    It raises InputError where the window cannot be read.
    """
    with (
        gdal_environment(),
        in_own_words(),
        rasterio.open(band.location, driver="GTiff") as dataset,
    ):

        def read(window: PixelWindow) -> NDArray[np.bool_]:
            place = Window(window.col, window.row, window.width, window.height)
            try:
                values = dataset.read(band.bidx, window=place)
            except RASTER_ERRORS as error:
                raise InputError(
                    f"{band.name}: {span(window)} cannot be read ({reason(error)})"
                ) from error
            foreground: NDArray[np.bool_] = values == band.value
            return foreground

        yield read


@contextmanager
def open_confidence(
    band: MaskBand, confidence: Any, *, bidx: int | None = None, allow_vrt: bool = False
) -> Iterator[Scene]:
    """Open a confidence raster that lies on the grid of a mask.

    Raises:
        InputError: the raster cannot be read, or lies on another grid than the mask.
    """
    with open_scene(confidence, bidx=bidx, allow_vrt=allow_vrt) as scene:
        require_same_grid(band.name, band.grid, scene.name, scene.grid)
        yield scene


def require_same_grid(name: str, grid: RasterGrid, other_name: str, other: RasterGrid) -> None:
    """Raise InputError, with the numbers of both, unless two rasters share their pixels.

    Corners may differ by a hundredth of a pixel. What one of the two lacks, a transform or a CRS,
    is not compared.
    """

    def refuse(what: str, one: object, two: object) -> None:
        raise InputError(
            f"{other_name}: its {what} {two} is not the {what} {one} of {name}; "
            "give a raster on the mask's own grid"
        )

    if (grid.height, grid.width) != (other.height, other.width):
        refuse("size", f"{grid.width} x {grid.height}", f"{other.width} x {other.height}")
    if grid.crs is not None and other.crs is not None and grid.crs != other.crs:
        refuse("CRS", grid.crs.to_string(), other.crs.to_string())
    if grid.has_transform and other.has_transform:
        # As matrices: the operator that multiplies transforms depends on the version of affine.
        in_other = _matrix(~other.transform) @ _matrix(grid.transform)
        corners = [(x, y, 1) for x in (0, grid.width) for y in (0, grid.height)]
        moved = [in_other @ corner - corner for corner in corners]
        if np.abs(moved).max() > _SAME_CORNER:
            refuse("transform", tuple(grid.transform)[:6], tuple(other.transform)[:6])


def _matrix(transform: Affine) -> NDArray[np.float64]:
    return np.array(tuple(transform), np.float64).reshape(3, 3)
