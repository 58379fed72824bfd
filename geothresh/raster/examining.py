"""Looking at any raster before it is read: its size, its blocks, its georeference."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from geothresh.errors import GeothreshWarning, InputError
from geothresh.raster.blocks import BlockInventory, BlockLayout
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, quiet_georeference, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.opened import open_dataset
from geothresh.raster.paths import RasterSource

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# A raster of more pixels than this is a mistake or an attack, not a scene.
MOST_PIXELS = 10**11
# GDAL decodes a block whole; one larger than this would not fit beside the network.
_LARGEST_BLOCK = 512 * 2**20

Examined = TypeVar("Examined")


def open_examined(
    source: RasterSource, examine: Callable[[RasterSource, DatasetReader], Examined]
) -> Examined:
    """Open a raster and give what `examine` makes of it, which takes the dataset over.

    Raises:
        InputError: it cannot be opened, or GDAL reports a fault in its metadata.
    """
    dataset = open_dataset(source)
    try:
        # Questions about the metadata may make GDAL read, and complain.
        with gdal_environment(remote=source.remote), quiet_georeference():
            return examine(source, dataset)
    except RASTER_ERRORS as error:
        # GDAL may report a fault in the metadata at whichever question comes next.
        dataset.close()
        raise metadata_fault(source, error) from error
    except BaseException:
        dataset.close()
        raise


def metadata_fault(source: RasterSource, error: BaseException) -> InputError:
    """What to say of metadata that GDAL does not understand, and what to do about it."""
    side = f"{source.location}.aux.xml"
    if not source.remote and os.path.exists(side):
        advice = f"remove or mend {os.path.basename(side)} beside it, or write both again"
    else:
        advice = "write it again with gdal_translate"
    return InputError(
        f"{source.name}: the metadata cannot be understood ({reason(error)}); {advice}"
    )


def check_size(
    source: RasterSource, dataset: DatasetReader, most_pixels: int = MOST_PIXELS
) -> None:
    """Raise InputError for a raster that is empty, or too large, or has too large blocks."""
    height, width = int(dataset.height), int(dataset.width)
    if height < 1 or width < 1:
        raise InputError(f"{source.name}: {width} x {height} pixels; there is nothing in it")
    if height * width > most_pixels:
        raise InputError(
            f"{source.name}: {width} x {height} pixels, more than the {most_pixels:g} that are "
            "accepted; cut the scene into parts"
        )
    for (block_height, block_width), dtype in zip(
        dataset.block_shapes[:1], dataset.dtypes[:1], strict=True
    ):
        block_bytes = int(block_height) * int(block_width) * np.dtype(dtype).itemsize
        if block_bytes > _LARGEST_BLOCK:
            raise InputError(
                f"{source.name}: one block of {block_width} x {block_height} pixels takes "
                f"{block_bytes / 2**20:.0f} MiB, more than 512; rewrite it with gdal_translate "
                "-co TILED=YES"
            )


def tell_georeference(name: str, grid: RasterGrid) -> None:
    """Warn of what the outputs will lack because the input does."""
    if not grid.is_georeferenced:
        text = "no georeference; the outputs will have none either"
    elif not grid.has_transform:
        text = "georeferenced by control points or RPCs only, which are copied to the outputs"
    elif grid.crs is None:
        text = "no coordinate reference system; the outputs will have none either"
    else:
        return
    warnings.warn(f"{name}: {text}", GeothreshWarning, stacklevel=4)


def tell_pages(name: str, dataset: DatasetReader) -> None:
    """Warn of further pages, which are not read; overviews and masks are none."""
    pages = len(dataset.subdatasets)
    if pages > 1:
        warnings.warn(
            f"{name}: holds {pages} pages; the first is read, the others come into a file of "
            "their own with gdal_translate GTIFF_DIR:2:FILE",
            GeothreshWarning,
            stacklevel=4,
        )


def take_inventory(
    source: RasterSource, dataset: DatasetReader, bidx: int, layout: BlockLayout
) -> BlockInventory | None:
    """Find a file cut short, or abandoned by its writer; None where blocks cannot be told."""
    if source.driver != "GTiff" or source.file_size is None:
        return None
    inventory = BlockInventory.of(dataset, bidx, layout)
    beyond = inventory.first_beyond(source.file_size)
    if beyond is not None:
        raise InputError(
            f"{source.name}: {layout.describe(beyond)} lies beyond the end of the file, which has "
            f"{source.file_size} bytes; it was cut short: copy it again"
        )
    if inventory.one_strip:
        return None
    absent = inventory.absent_count
    if absent:
        meaning = "zeros" if dataset.nodata is None else "nodata"
        warnings.warn(
            f"{source.name}: {absent} of {len(inventory.examined)} blocks are missing in the file "
            f"and read as {meaning}; if it was not written so, its writer was interrupted",
            GeothreshWarning,
            stacklevel=3,
        )
    return inventory
