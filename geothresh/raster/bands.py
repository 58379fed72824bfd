"""What rasters of all kinds have in common when they are opened: the choice of the bands, their
alpha band, and a grid that makes sense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasterio.enums import ColorInterp

from geothresh.errors import InputError, UsageError
from geothresh.raster.gdal import RASTER_ERRORS, reason
from geothresh.raster.grid import RasterGrid

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


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


def colour_bands(name: str, dataset: DatasetReader) -> tuple[int, int, int]:
    """Red, green and blue, counted from 1: those that the file says, or else the first three of
    three, or of four of which the last is alpha.

    Raises:
        InputError: it cannot be told which they are, or they are not in 8 bits.
    """
    meanings = list(dataset.colorinterp)
    if all(meanings.count(colour) == 1 for colour in _COLOURS):
        red, green, blue = (meanings.index(colour) + 1 for colour in _COLOURS)
    elif len(meanings) == 3 or (len(meanings) == 4 and meanings[3] == ColorInterp.alpha):
        red, green, blue = 1, 2, 3
    else:
        raise InputError(
            f"{name}: holds {len(meanings)} bands and does not say which are red, green and blue; "
            "pick three with gdal_translate -b 1 -b 2 -b 3"
        )
    types = {dataset.dtypes[band - 1] for band in (red, green, blue)}
    if types != {"uint8"}:
        raise InputError(
            f"{name}: is of type {', '.join(sorted(types))}; base networks read 8 bits: stretch it "
            "with gdal_translate -ot Byte -scale"
        )
    return red, green, blue


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
