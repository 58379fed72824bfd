"""Images of any size: red, green and blue in 8 bits, read window by window."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geothresh.raster.checks import (
    check_size,
    colour_bands,
    complete_blocks,
    mask_of,
    possible_nodata,
    sound_georeference,
    warn_of_absent_blocks,
    warn_of_georeference,
    warn_of_pages,
)
from geothresh.raster.dataset import OpenRaster, open_raster, read_with_mask, reopen
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.windows import PixelWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

_DTYPE = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How an image is read. Picklable: any process can open the image with it."""

    source: RasterSource
    """The file."""
    bands: tuple[int, int, int]
    """Red, green and blue, counted from 1."""
    mask_band: int | None
    """The band whose zeros mark missing data (alpha), counted from 1."""
    has_mask: bool
    """Whether there is a mask, inside the file or in NAME.msk."""
    nodata: tuple[int | None, int | None, int | None]
    """Nodata of each band; a pixel is missing where all three bands hold theirs."""
    fill: tuple[float, float, float]
    """Red, green and blue in [0, 1] that pixels without data get."""

    def open(self) -> ImageScene:
        """Open the image without deciding anything again.

        Raises:
            InputError: the file is gone, or has changed since it was first opened.
        """
        return reopen(self.source, lambda _, dataset: ImageScene(self, dataset))


class ImageScene(OpenRaster):
    """An open image; several threads may read it."""

    def __init__(self, spec: ImageSpec, dataset: DatasetReader) -> None:
        super().__init__(spec.source, dataset, spec.bands[0])
        self.spec = spec

    def read(self, window: PixelWindow) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window that lies inside the raster.

        Returns:
            values: (3, height, width) float32 in [0, 1]; `fill` where there is no data.
            valid: (height, width) bool, True where there is data.

        Raises:
            InputError: a block cannot be decoded.
        """
        spec = self.spec
        stored, mask = self._decoded(
            window,
            lambda dataset, part: read_with_mask(
                dataset, part, spec.bands, mask_band=spec.mask_band, has_mask=spec.has_mask
            ),
        )
        valid = np.ones(stored.shape[1:], np.bool_) if mask is None else mask != 0
        if None not in spec.nodata:
            # A black roof may be 0 in one band: data is missing only where all three are nodata.
            marks = np.array(spec.nodata, np.uint8)[:, None, None]
            valid &= ~(stored == marks).all(axis=0)
        values = stored.astype(np.float32)
        values /= np.float32(255)
        if not valid.all():
            values[:, ~valid] = np.array(spec.fill, np.float32)[:, None]
        return values, valid


def open_image(
    scene: str | os.PathLike[str] | RasterSource | Any,
    *,
    nodata: float | None = None,
    allow_vrt: bool = False,
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> ImageScene:
    """Open an image after checking all that can be checked without reading it whole.

    The bands are those that the file says are red, green and blue, or else the first three of
    three, or of four of which the last is alpha.

    Args:
        scene: path, URL, or open rasterio dataset (opened anew by its name).
        nodata: stored value that marks missing data where all bands hold it; it replaces the
            nodata tag of the file.
        allow_vrt: accept a VRT.
        fill: red, green and blue in [0, 1] that pixels without data get.

    Raises:
        InputError: the file is not a readable GeoTIFF, or not an image in 8 bits.
        UsageError: `nodata` does not exist in this raster.
    """
    return open_raster(
        find_raster(scene, allow_vrt=allow_vrt),
        lambda source, dataset: _examine(source, dataset, nodata, fill),
    )


def _examine(
    source: RasterSource,
    dataset: DatasetReader,
    nodata: float | None,
    fill: tuple[float, float, float],
) -> ImageScene:
    check_size(source, dataset)
    bands = colour_bands(source.name, dataset)
    warn_of_georeference(sound_georeference(source.name, dataset))
    warn_of_pages(source.name, dataset)
    inventory = complete_blocks(source, dataset, bands[0])
    warn_of_absent_blocks(source.name, dataset.nodata, inventory)
    mask_band, has_mask = mask_of(dataset, bands[0])
    spec = ImageSpec(
        source=source,
        bands=bands,
        mask_band=mask_band,
        has_mask=has_mask,
        nodata=_nodata(source.name, dataset, bands, nodata),
        fill=fill,
    )
    return ImageScene(spec, dataset)


def _nodata(
    name: str, dataset: DatasetReader, bands: tuple[int, int, int], forced: float | None
) -> tuple[int | None, int | None, int | None]:
    tags = [dataset.nodatavals[band - 1] for band in bands]
    # Bands mostly share a tag, which is warned of once.
    usable = {
        tag: _whole(possible_nodata(name, _DTYPE, tag, forced)) for tag in dict.fromkeys(tags)
    }
    red, green, blue = (usable[tag] for tag in tags)
    return red, green, blue


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
