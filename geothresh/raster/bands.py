"""What a confidence raster and a mask have in common when they are opened: the choice of the band,
its alpha band, and a grid that makes sense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasterio.enums import ColorInterp

from geothresh.errors import InputError, UsageError
from geothresh.raster.gdal import RASTER_ERRORS, reason
from geothresh.raster.grid import RasterGrid

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


def choose_band(name: str, dataset: DatasetReader, bidx: int | None, *, meaning: str) -> int:
    """The band to read, counted from 1: the one asked for, or the only one beside an alpha band.

    Args:
        name: of the raster, for messages.
        dataset: the open raster.
        bidx: the band asked for.
        meaning: what the band holds, for messages: "the confidence", "the mask".

    Raises:
        UsageError: the band asked for does not exist.
        InputError: none was asked for and there are several, or none at all.
    """
    count = dataset.count
    if bidx is not None:
        if not 1 <= bidx <= count:
            raise UsageError(f"{name}: band {bidx} does not exist; choose --bidx from 1 to {count}")
        return bidx
    if count == 1 or (count == 2 and dataset.colorinterp[1] == ColorInterp.alpha):
        return 1
    if count == 0:
        raise InputError(f"{name}: holds no band; give a GeoTIFF with one")
    raise InputError(f"{name}: holds {count} bands; say with --bidx which one is {meaning}")


def alpha_band(dataset: DatasetReader, bidx: int) -> int | None:
    """The alpha band beside band ``bidx``, if there is one."""
    bands = [
        band
        for band, meaning in enumerate(dataset.colorinterp, 1)
        if meaning == ColorInterp.alpha and band != bidx
    ]
    return bands[0] if bands else None


def sound_grid(name: str, dataset: DatasetReader) -> RasterGrid:
    """The raster's grid.

    Raises:
        InputError: the CRS cannot be understood, or the transform maps pixels to no area.
    """
    try:
        grid = RasterGrid.of(dataset)
    except (*RASTER_ERRORS, ValueError) as error:
        raise InputError(
            f"{name}: the georeference cannot be understood ({reason(error)}); "
            "set it anew with gdal_edit.py -a_srs"
        ) from error
    fault = grid.fault()
    if fault:
        raise InputError(f"{name}: {fault}; set it anew with gdal_edit.py -a_ullr")
    return grid
