"""Read masks; a first pass over the pixels finds which value is foreground.

Before anything is made of a mask, the band is read once: that finds damage and rasters that are no
masks, and counts the foreground that polygons must cover.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError, warn
from geothresh.options import Progress
from geothresh.raster.checks import (
    can_hold,
    check_size,
    choose_band,
    complete_blocks,
    mask_of,
    sound_georeference,
    warn_of_pages,
)
from geothresh.raster.dataset import BandSpec, OpenBand, open_raster, reopen
from geothresh.raster.gdal import gdal_environment
from geothresh.raster.georeference import Georeference
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.types import BoolArray
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# Pixels of a strip, some 20 bytes each in memory. Small strips read a block several times, which
# costs nothing while a row of blocks is in GDAL's cache.
_STRIP_PIXELS = 1 << 21
_STRIP_PIXELS_WIDE = 1 << 24
_CACHED_BLOCK_ROW = 24 << 20

# Nodata in masks of geothresh, foreground in those of many other programs.
_HIGH = 255

_CUT = "cut them with `threshold`, such as `threshold=0.5`"
_CUT_LABELS = (
    "cut them at a threshold first, to whole numbers: 1 foreground, 0 background, 255 no data"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpec(BandSpec):
    """How a mask is read; picklable, and opens it again in any process."""

    value: int
    """The pixels of this value are the foreground."""
    foreground: int
    """Number of foreground pixels."""

    def open(self) -> Mask:
        """Open the mask without another pass over it.

        Raises:
            InputError: the file is gone, or has changed since it was first opened.
        """
        return reopen(self.source, lambda _, dataset: Mask(self, dataset))


class Mask(OpenBand):
    """An open mask whose foreground is known; several threads may read it."""

    def __init__(
        self, spec: MaskSpec, dataset: DatasetReader, *, box: Georeference | None = None
    ) -> None:
        super().__init__(spec, dataset, box=box)
        self.spec = spec

    def read(self, window: PixelWindow) -> tuple[BoolArray, BoolArray]:
        """Read a window that lies inside the raster.

        Returns:
            foreground: (height, width) bool; False where there is no data.
            valid: (height, width) bool, True where there is data.

        Raises:
            InputError: a block cannot be decoded.
        """
        values, valid = self.stored(window)
        if self.spec.value != _HIGH:
            valid &= values != _HIGH
        return (values == self.spec.value) & valid, valid

    def foreground(self, window: PixelWindow) -> BoolArray:
        """(height, width), True = foreground; errors as `read`."""
        return self.read(window)[0]

    def strips(self) -> list[PixelWindow]:
        """Windows of full width that cover the mask from top to bottom."""
        return strips(self.size, 512)


def open_mask(
    mask: str | os.PathLike[str] | RasterSource | Any,
    *,
    bidx: int | None = None,
    allow_vrt: bool = False,
    progress: Progress | None = None,
) -> Mask:
    """Open a mask; it is read once, to find which value is foreground.

    Foreground is 1. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is
    foreground, with a warning. 255 beside 1 is nodata, tagged or not.

    Args:
        mask: path, URL, or open rasterio dataset, or what `find_raster` made of one.
        bidx: the band, counted from 1; needed where there are several.
        allow_vrt: accept a VRT.
        progress: called with (strips read, strips in all).

    Raises:
        InputError: the raster cannot be read, or is no mask.
        UsageError: the band does not exist.
    """
    return open_raster(
        find_raster(mask, allow_vrt=allow_vrt),
        lambda source, dataset: _examine(source, dataset, bidx, progress, advice=_CUT),
    )


def open_labels(
    mask: str | os.PathLike[str] | RasterSource | Any, *, allow_vrt: bool | None = None
) -> Mask:
    """Open a mask that is the ground truth; see `open_mask`.

    0 is background, also in masks with a nodata value of 0, of which there are many: as nodata,
    there would be no false positives.

    Args:
        mask: path, URL or open dataset.
        allow_vrt: as for `find_raster`.

    Raises:
        InputError: the raster cannot be read, or is no mask.
    """
    return open_raster(
        find_raster(mask, allow_vrt=allow_vrt),
        lambda source, dataset: _examine(
            source, dataset, None, None, advice=_CUT_LABELS, zero_is_data=True
        ),
    )


def strips(size: RasterSize, block_height: int, *, cached: bool = False) -> list[PixelWindow]:
    """Windows of full width, top to bottom; of whole block rows where these are not too large.

    With `cached`, a row of blocks stays in the cache whatever its size (`BlockLayout.row_cache`).
    """
    cached = cached or size.width * block_height <= _CACHED_BLOCK_ROW
    rows = max(1, (_STRIP_PIXELS if cached else _STRIP_PIXELS_WIDE) // size.width)
    if rows > block_height:
        rows -= rows % block_height
    return list(RegularGrid(size=size, part_height=rows, part_width=size.width).windows())


def _examine(
    source: RasterSource,
    dataset: DatasetReader,
    bidx: int | None,
    progress: Progress | None,
    *,
    advice: str,
    zero_is_data: bool = False,
) -> Mask:
    """Check an open dataset, and find its foreground.

    With `zero_is_data`, a nodata value of 0 is ignored. `advice` is said of confidences.
    """
    mask = _checked(source, dataset, bidx, advice=advice, zero_is_data=zero_is_data)
    counted = _count_foreground(mask, progress, advice)
    value = decided_value(source.name, [counted])
    foreground = counted.highs if value == _HIGH else counted.ones
    return Mask(replace(mask.spec, value=value, foreground=foreground), dataset)


def _checked(
    source: RasterSource,
    dataset: DatasetReader,
    bidx: int | None,
    *,
    advice: str,
    zero_is_data: bool = False,
) -> Mask:
    """A mask whose metadata is checked; its foreground is not known yet."""
    check_size(source, dataset)
    sound_georeference(source.name, dataset)
    warn_of_pages(source.name, dataset)
    chosen = choose_band(source.name, dataset, bidx, meaning="the mask")
    _refuse_confidences(source.name, dataset, chosen, advice)
    complete_blocks(source, dataset, chosen)
    nodata = dataset.nodatavals[chosen - 1]
    if nodata is not None and not can_hold(np.dtype(dataset.dtypes[chosen - 1]), nodata):
        nodata = None
    if zero_is_data and nodata == 0:
        nodata = None
    mask_band, has_mask = mask_of(dataset, chosen)
    unknown = MaskSpec(
        source=source,
        bidx=chosen,
        mask_band=mask_band,
        has_mask=has_mask,
        nodata=nodata,
        value=1,
        foreground=0,
    )
    return Mask(unknown, dataset)


def _refuse_confidences(name: str, dataset: DatasetReader, bidx: int, advice: str) -> None:
    """Refuse a band that is no mask by its metadata; values are checked in the pass over them."""
    dtype = np.dtype(dataset.dtypes[bidx - 1])
    scale, offset = dataset.scales[bidx - 1], dataset.offsets[bidx - 1]
    if not np.issubdtype(dtype, np.integer):
        raise InputError(
            f"{name}: the band is {dtype}, and a mask is of whole numbers; "
            f"if these are confidences, {advice}"
        )
    if (scale, offset) != (1.0, 0.0):
        raise InputError(
            f"{name}: the band has a scale of {scale:.6g} and an offset of {offset:g}, as "
            f"confidences have and masks have not; {advice}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedMask:
    """A mask whose values are counted; its foreground value is not decided yet."""

    spec: MaskSpec
    box: Georeference
    ones: int
    """Pixels that are 1."""
    highs: int
    """Pixels that are 255 without being tagged as nodata."""


def count_mask(source: RasterSource, bidx: int | None) -> CountedMask:
    """Check a mask and read it through, as `open_mask` does, and close it."""

    def count(source: RasterSource, dataset: DatasetReader) -> CountedMask:
        with _checked(source, dataset, bidx, advice=_CUT) as mask:
            return _count_foreground(mask, None, _CUT)

    return open_raster(source, count)


def decided_value(name: str, masks: Sequence[CountedMask]) -> int:
    """Decide the foreground value of masks that belong together; warns where it may surprise.

    Args:
        name: of them, in warnings.
        masks: at least one.
    """
    ones, highs = sum(one.ones for one in masks), sum(one.highs for one in masks)
    tagged = masks[0].spec.nodata
    text = None
    if highs and not ones:
        text = "only 0 and 255 occur and 255 is not tagged as nodata: 255 is taken as foreground"
    elif highs:
        text = f"255 occurs beside 1 ({highs} pixels) and is taken as nodata without being tagged"
    elif not ones and tagged in (1, _HIGH):
        text = f"no pixel is foreground (1); {tagged:g} is tagged as nodata"
    if text:
        warn(f"{name}: {text}")
    return _HIGH if highs and not ones else 1


def _count_foreground(mask: Mask, progress: Progress | None, advice: str) -> CountedMask:
    """How many pixels are 1 and how many 255; InputError where one is neither, nor 0."""
    ones = highs = 0
    # A row of blocks stays in the cache while its strips are read.
    with gdal_environment(cache_bytes=mask.layout.row_cache(mask.dtype)):
        for window, values, valid in _stored(mask, progress):
            one = (values == 1) & valid
            # As Python integers: no int8 is 255.
            high = (values == _HIGH) & valid
            odd = (values != 0) & valid & ~one & ~high
            if odd.any():
                row, column = np.argwhere(odd)[0]
                raise InputError(
                    f"{mask.name}: the value {values[row, column]} at row {window.row + row}, "
                    f"column {column} is neither background (0) nor foreground (1) nor nodata "
                    f"(255); if these are confidences, {advice}"
                )
            ones += int(np.count_nonzero(one))
            highs += int(np.count_nonzero(high))
    return CountedMask(spec=mask.spec, box=mask.box, ones=ones, highs=highs)


def _stored(
    mask: Mask, progress: Progress | None
) -> Iterator[tuple[PixelWindow, NDArray[Any], NDArray[np.bool_]]]:
    """The stored values and validity of the band, strip by strip."""
    windows = strips(mask.size, mask.layout.part_height, cached=True)
    for done, window in enumerate(windows, start=1):
        yield window, *mask.stored(window)
        if progress:
            progress(done, len(windows))
