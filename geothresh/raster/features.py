"""Outline the regions of a mask, sum confidences over them, and rasterize polygons."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from geothresh.options import Progress
from geothresh.raster.gdal import filtered_warnings, gdal_environment
from geothresh.raster.mask import Mask, strips
from geothresh.raster.outlines import outlines
from geothresh.raster.regions import RegionSums, RegionTable
from geothresh.raster.rewriting import Confidences
from geothresh.raster.rings import Outlines
from geothresh.windows import PixelWindow


def mask_outlines(mask: Mask) -> Generator[Outlines, None, None]:
    """Outlines of the 4-connected regions of the foreground, whole across all blocks.

    Yields:
        Polygons, some at a time, in no particular order; see `geothresh.raster.outlines`.

    Raises:
        InputError: the mask cannot be read.
    """
    # A row of blocks stays in the cache while its strips are read.
    with gdal_environment(cache_bytes=mask.layout.row_cache(mask.dtype)):
        windows = strips(mask.size, mask.layout.part_height, cached=True)
        yield from outlines((mask.foreground(window) for window in windows), mask.size.width)


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
