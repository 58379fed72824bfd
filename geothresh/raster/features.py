"""Polygonize a mask, sum confidences over its regions, and rasterize polygons.

GDAL's polygoniser reads the band row by row and closes each polygon across all blocks: without
seams, and without an array of the whole raster.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine

from geothresh.errors import InputError
from geothresh.options import Progress
from geothresh.raster.dataset import open_dataset
from geothresh.raster.gdal import RASTER_ERRORS, filtered_warnings, gdal_environment, reason
from geothresh.raster.mask import Mask
from geothresh.raster.regions import RegionSums, RegionTable
from geothresh.raster.rewriting import Confidences
from geothresh.windows import PixelWindow


def mask_shapes(mask: Mask) -> Generator[Mapping[str, Any], None, None]:
    """Polygonize the foreground: its 4-connected regions as GeoJSON, in pixels (column, row).

    Memory is that of all polygons: GDAL makes them all before it returns the first.

    Raises:
        InputError: the mask cannot be read.
    """
    spec = mask.spec
    with gdal_environment(**spec.source.access), filtered_warnings():
        try:
            # Without its georeference the file gives the whole numbers of the pixel grid.
            with open_dataset(spec.source, GEOREF_SOURCES="NONE") as dataset:
                band = rasterio.band(dataset, spec.bidx)
                # GDAL reads the band by rows of pixels.
                with gdal_environment(cache_bytes=mask.layout.row_cache(mask.dtype)):
                    for outline, value in shapes(band, mask=band, connectivity=4):
                        if value == spec.value:
                            yield outline
        except RASTER_ERRORS as error:
            raise InputError(f"{mask.name}: cannot be read ({reason(error)})") from error


def confidence_sums(
    mask: Mask, scene: Confidences, *, progress: Progress | None = None
) -> RegionTable:
    """Sums of a confidence raster over each 4-connected region of the foreground.

    Args:
        mask: open.
        scene: the confidence, on the same grid.
        progress: called with (strips read, strips in all).

    Raises:
        InputError: a raster cannot be read.
    """
    sums = RegionSums(mask.size.width)
    windows = mask.strips()
    for done, window in enumerate(windows, start=1):
        foreground = mask.foreground(window)
        columns = np.flatnonzero(foreground.any(axis=0))
        if columns.size:
            # Only columns from the first to the last foreground pixel are read.
            left, right = int(columns[0]), int(columns[-1]) + 1
            values, valid = scene.read(
                PixelWindow.between(window.row, window.row_stop, left, right)
            )
            sums.add(foreground, values, valid, left=left)
        else:
            sums.add(foreground)
        if progress:
            progress(done, len(windows))
    return sums.finish()


def burn(shapes: Sequence[Any] | NDArray[np.object_], window: PixelWindow) -> NDArray[np.bool_]:
    """Rasterize polygons in a window: the pixels whose centres lie inside.

    Args:
        shapes: polygons with a ``__geo_interface__``, in pixels of the raster: x = column and
            y = row, whole numbers on the outer corners.
        window: the part of the raster that is asked for.

    Returns:
        (height, width), True = inside.
    """
    if not len(shapes):
        return np.zeros((window.height, window.width), np.bool_)
    with gdal_environment(), filtered_warnings():
        burnt = rasterize(
            shapes,
            out_shape=(window.height, window.width),
            transform=Affine.translation(window.col, window.row),
            dtype="uint8",
        )
    return np.asarray(burnt != 0)
