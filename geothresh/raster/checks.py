"""Checks of an open raster before its pixels are read: band, nodata, size, blocks, georeference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp, Interleaving, MaskFlags

from geothresh.errors import InputError, UsageError, number_of, warn
from geothresh.files import is_file
from geothresh.raster.dataset import BlockInventory, BlockLayout, open_dataset
from geothresh.raster.gdal import RASTER_ERRORS, reason
from geothresh.raster.georeference import Georeference
from geothresh.raster.paths import RasterSource, find_raster

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)

# A raster with more pixels is a mistake or an attack.
MOST_PIXELS = 10**11
# GDAL decodes whole blocks; a larger one would not fit in memory beside the network.
_LARGEST_BLOCK = 512 * 2**20
# Side of a tile: a narrower raster needs as many tiles as one of this width.
_LEAST_SIDE = 512
# Most directories of a TIFF with a mask: image, mask, and overviews of both, halved each time.
_MOST_DIRECTORIES = 128


def choose_band(name: str, dataset: DatasetReader, bidx: int | None, *, meaning: str) -> int:
    """The band to read, counted from 1: `bidx`, or the only band besides alpha.

    Args:
        name: name of the raster, for messages.
        dataset: the open raster.
        bidx: the band asked for.
        meaning: what the band holds, for messages: "the confidence", "the mask".

    Raises:
        UsageError: the band asked for does not exist.
        InputError: `bidx` is None and the raster has several bands, or none.
    """
    count = dataset.count
    if bidx is not None:
        if not 1 <= bidx <= count:
            raise UsageError(f"{name}: band {bidx} does not exist; choose `bidx` from 1 to {count}")
        return bidx
    if count == 1 or (count == 2 and dataset.colorinterp[1] == ColorInterp.alpha):
        return 1
    if count == 0:
        raise InputError(f"{name}: holds no band; give a GeoTIFF with one")
    raise InputError(f"{name}: holds {count} bands; say with `bidx` which one is {meaning}")


def colour_bands(name: str, dataset: DatasetReader) -> tuple[int, int, int]:
    """The red, green and blue bands, counted from 1.

    They are found by colour interpretation; without it, a raster of three bands, or of four with
    alpha last, has them in this order.

    Raises:
        InputError: there are fewer than three bands, they cannot be determined, or are not uint8.
    """
    meanings = list(dataset.colorinterp)
    if len(meanings) < 3:
        raise InputError(
            f"{name}: holds {number_of(len(meanings), 'band')}; an image needs three (red, green "
            "and blue): give the image itself, or join bands with gdal_merge.py -separate"
        )
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


def mask_of(dataset: DatasetReader, bidx: int) -> tuple[int | None, bool]:
    """Find what marks missing pixels: (alpha band from 1 or None, whether the band has a mask).

    The second is False where there is an alpha band.
    """
    alpha = [
        band
        for band, meaning in enumerate(dataset.colorinterp, 1)
        if meaning == ColorInterp.alpha and band != bidx
    ]
    if alpha:
        return alpha[0], False
    return None, MaskFlags.per_dataset in dataset.mask_flag_enums[bidx - 1]


def nodata_of_band(
    name: str, dataset: DatasetReader, bidx: int, forced: float | None
) -> float | None:
    """The stored value that marks missing data in band `bidx`; None if there is none.

    Args:
        forced: the user's value, which replaces that of the file.

    Raises:
        UsageError: `forced` cannot occur in a band of this type.
    """
    dtype = np.dtype(dataset.dtypes[bidx - 1])
    return usable_nodata(name, dtype, dataset.nodatavals[bidx - 1], forced)


def usable_nodata(
    name: str, dtype: np.dtype[Any], tagged: float | None, forced: float | None
) -> float | None:
    """The stored value that marks missing confidences; None if no pixel can have it.

    See `possible_nodata`; a tag of 0, which is a confidence too, is warned of.
    """
    nodata = possible_nodata(name, dtype, tagged, forced)
    if forced is None and nodata == 0:
        warn(
            f"{name}: nodata is 0, so that pixels of confidence 0 count as missing; "
            "use `nodata=V` if they do not"
        )
    return nodata


def possible_nodata(
    name: str, dtype: np.dtype[Any], tagged: float | None, forced: float | None
) -> float | None:
    """The stored value that marks missing data; None if no pixel can have it.

    Args:
        name: name of the raster, for messages.
        dtype: type of its values.
        tagged: the nodata tag of the raster.
        forced: the user's value, which replaces the tag.

    Raises:
        UsageError: `forced` cannot occur in a raster of this type.
    """
    if forced is not None:
        if not can_hold(dtype, forced):
            raise UsageError(
                f"{name}: no {dtype} value is {forced:g}; choose another value for `nodata`"
            )
        return forced
    if tagged is None:
        return None
    if not can_hold(dtype, tagged):
        warn(f"{name}: the nodata value {tagged:g} cannot occur in a {dtype} band and is ignored")
        return None
    return float(tagged)


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a pixel of this type can equal `value`."""
    if np.issubdtype(dtype, np.floating):
        return True
    if not math.isfinite(value) or value != math.floor(value):
        return False
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def check_size(
    source: RasterSource, dataset: DatasetReader, most_pixels: int = MOST_PIXELS
) -> None:
    """Raise InputError for a raster that is empty, or too large, or has too large blocks."""
    height, width = int(dataset.height), int(dataset.width)
    if height < 1 or width < 1:
        raise InputError(f"{source.name}: {width} x {height} pixels; there is nothing in it")
    # A raster of one row needs as many tiles as one that is a tile high.
    if max(height, _LEAST_SIDE) * max(width, _LEAST_SIDE) > most_pixels:
        narrow = "" if min(height, width) >= _LEAST_SIDE else f", {_LEAST_SIDE} a side at least,"
        raise InputError(
            f"{source.name}: {width} x {height} pixels{narrow} are more than the {most_pixels:g} "
            "that are accepted; cut the scene into parts"
        )
    check_block(source.name, dataset)
    _check_mask_blocks(source, dataset)


def check_block(name: str, dataset: DatasetReader) -> None:
    """Raise InputError if a block is too large: GDAL decodes whole blocks."""
    block_height, block_width = dataset.block_shapes[0]
    n_bytes = int(block_height) * int(block_width) * np.dtype(dataset.dtypes[0]).itemsize
    together = ""
    if dataset.interleaving == Interleaving.pixel:
        n_bytes *= dataset.count
        together = f" of {dataset.count} bands"
    if n_bytes > _LARGEST_BLOCK:
        raise InputError(
            f"{name}: one block of {block_width} x {block_height} pixels{together} takes "
            f"{n_bytes / 2**20:.0f} MiB, more than {_LARGEST_BLOCK // 2**20}; rewrite it with "
            "gdal_translate -co TILED=YES -co INTERLEAVE=BAND"
        )


def _check_mask_blocks(source: RasterSource, dataset: DatasetReader) -> None:
    """Check the blocks of the mask, which is a file NAME.msk or a directory of the TIFF.

    Masks of one bit are decoded to one byte a pixel.
    """
    if source.driver != "GTiff" or MaskFlags.per_dataset not in dataset.mask_flag_enums[0]:
        return
    beside = source.location + ".msk"
    if not source.remote and is_file(beside):
        with open_dataset(find_raster(beside)) as mask:
            check_block(beside, mask)
        return
    if source.remote:
        return
    for number in range(2, _MOST_DIRECTORIES):
        directory = replace(source, location=f"GTIFF_DIR:{number}:{source.location}")
        try:
            opened = open_dataset(directory)
        except InputError:
            # There are no more directories.
            return
        with opened:
            check_block(source.name, opened)


def sound_georeference(name: str, dataset: DatasetReader) -> Georeference:
    """Read and check the georeference of a raster.

    Raises:
        InputError: the CRS cannot be understood, or the transform maps pixels to no area.
    """
    try:
        box = Georeference.of(dataset, name)
    except (*RASTER_ERRORS, ValueError) as error:
        raise InputError(
            f"{name}: the georeference cannot be understood ({reason(error)}); "
            "set it anew with gdal_edit.py -a_srs"
        ) from error
    fault = box.fault()
    if fault:
        raise InputError(f"{name}: {fault}; set it anew with gdal_edit.py -a_ullr")
    return box


def warn_of_georeference(box: Georeference) -> None:
    """Warn of a georeference that the outputs will lack because the input does."""
    if not box.is_georeferenced:
        text = "no georeference; the outputs will have none either"
    elif not box.has_transform:
        text = "georeferenced by control points or RPCs only, which are copied to the outputs"
    elif box.crs is None:
        text = "no coordinate reference system; the outputs will have none either"
    else:
        return
    warn(f"{box.name}: {text}")


def warn_of_pages(name: str, dataset: DatasetReader) -> None:
    """Warn of further pages of a TIFF, which are not read; overviews and masks do not count."""
    pages = len(dataset.subdatasets)
    if pages > 1:
        warn(
            f"{name}: holds {pages} pages; the first is read, the others come into a file of "
            "their own with gdal_translate GTIFF_DIR:2:FILE"
        )


def complete_blocks(
    source: RasterSource, dataset: DatasetReader, bidx: int
) -> BlockInventory | None:
    """The blocks of a band, checked to lie inside the file; None where that is unknown.

    Raises:
        InputError: the file was cut short, or blocks have no offset. GDAL would read such blocks
            as zeros, or from the file's header.
    """
    if source.driver != "GTiff" or source.file_size is None:
        return None
    layout = BlockLayout.of(dataset, bidx)
    inventory = BlockInventory.of(dataset, bidx, layout)
    if inventory.without_offset:
        # Whether GDAL reports the fault depends on the next call.
        raise InputError(
            f"{source.name}: the metadata cannot be understood ({inventory.without_offset} blocks "
            "have a size and no place in the file); write it again with gdal_translate"
        )
    beyond = inventory.first_beyond(source.file_size)
    if beyond is not None:
        raise InputError(
            f"{source.name}: {layout.describe(beyond)} lies beyond the end of the file, which has "
            f"{source.file_size} bytes; it was cut short: copy it again"
        )
    return None if inventory.one_strip else inventory


def warn_of_absent_blocks(
    name: str, nodata: float | None, inventory: BlockInventory | None
) -> None:
    """Warn of blocks that are not in the file: its writer may have been interrupted."""
    if inventory is None or not inventory.absent_count:
        return
    meaning = "zeros" if nodata is None else "nodata"
    warn(
        f"{name}: {inventory.absent_count} of {len(inventory.examined)} blocks are missing in the "
        f"file and read as {meaning}; if it was not written so, its writer was interrupted"
    )
