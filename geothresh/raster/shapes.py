"""The outlines of a mask's foreground, straight from the band of a file, and means inside them.

GDAL's polygoniser reads the band row by row and closes each polygon across all blocks: there is no
seam, and no array of the whole raster.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import rasterio
from rasterio.features import shapes

from geothresh.errors import InputError
from geothresh.raster.blocks import BlockLayout
from geothresh.raster.components import RegionSums, RegionTable
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.masks import MaskBand, Progress
from geothresh.raster.sampling import open_foreground
from geothresh.raster.scene import Scene
from geothresh.raster.wording import in_own_words
from geothresh.windows import PixelWindow


def mask_shapes(band: MaskBand) -> Generator[Mapping[str, Any], None, None]:
    """The 4-connected regions of the foreground as GeoJSON polygons in pixels (column, row).

    Memory is that of all polygons, which GDAL makes before it gives the first.

    Raises:
        InputError: the band cannot be read.
    """
    with gdal_environment(), in_own_words():
        try:
            # Without its georeference the file gives the whole numbers of the pixel grid.
            with rasterio.open(band.location, driver="GTiff", GEOREF_SOURCES="NONE") as dataset:
                pixels = rasterio.band(dataset, band.bidx)
                # GDAL reads the band by rows of pixels.
                layout = BlockLayout.of(dataset, band.bidx)
                with gdal_environment(cache_bytes=layout.row_cache(np.dtype(pixels.dtype))):
                    for outline, value in shapes(pixels, mask=pixels, connectivity=4):
                        if value == band.value:
                            yield outline
        except RASTER_ERRORS as error:
            raise InputError(f"{band.name}: cannot be read ({reason(error)})") from error


def confidence_sums(
    band: MaskBand, scene: Scene, *, progress: Progress | None = None
) -> RegionTable:
    """Sums of a confidence raster over each 4-connected region of the foreground.

    Args:
        band: the mask.
        scene: the confidence, on the same grid (`geothresh.raster.sampling.open_confidence`).
        progress: told (strips read, strips in all).

    Raises:
        InputError: a raster cannot be read.
    """
    sums = RegionSums(band.grid.width)
    with open_foreground(band) as foreground:
        windows = band.strips()
        for done, window in enumerate(windows, start=1):
            mask = foreground(window)
            columns = np.flatnonzero(mask.any(axis=0))
            if columns.size:
                # Nothing left of the first foreground and right of the last is read.
                left, right = int(columns[0]), int(columns[-1]) + 1
                values, valid = scene.read(
                    PixelWindow.between(window.row, window.row_stop, left, right)
                )
                sums.add(mask, values, valid, left=left)
            else:
                sums.add(mask)
            if progress:
                progress(done, len(windows))
    return sums.finish()
