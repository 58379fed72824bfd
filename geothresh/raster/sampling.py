"""Windows of a mask, and of a confidence raster on its grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.options import ScaleOption
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.masks import MaskBand
from geothresh.raster.reading import open_scene
from geothresh.raster.scene import Scene
from geothresh.raster.wording import in_own_words
from geothresh.windows import PixelWindow


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
            try:
                values = dataset.read(band.bidx, window=window.ranges)
            except RASTER_ERRORS as error:
                raise InputError(
                    f"{band.name}: {window.text} cannot be read ({reason(error)})"
                ) from error
            foreground: NDArray[np.bool_] = values == band.value
            return foreground

        yield read


@contextmanager
def open_confidence(
    band: MaskBand,
    confidence: Any,
    *,
    bidx: int | None = None,
    scale: ScaleOption = "auto",
    nodata: float | None = None,
    allow_vrt: bool = False,
) -> Iterator[Scene]:
    """Open a confidence raster that lies on the grid of a mask.

    Raises:
        InputError: the raster cannot be read, or lies on another grid than the mask.
    """
    with open_scene(
        confidence, bidx=bidx, scale=scale, nodata=nodata, allow_vrt=allow_vrt
    ) as scene:
        scene.grid.require_same(scene.name, band.grid, band.name)
        yield scene
