"""Read masks; one pass over the pixels finds which value is foreground.

GDAL's polygoniser says nothing when a read fails, and given anything but a mask it makes a polygon
of every pixel. So the band is read through once before: that finds damage, tells a mask from a
confidence raster, and counts the foreground that the polygons must cover.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError
from geothresh.files import create_beside, discard
from geothresh.raster.checks import (
    can_hold,
    check_size,
    choose_band,
    complete_blocks,
    mask_of,
    sound_georeference,
    warn_of_pages,
)
from geothresh.raster.dataset import (
    BandSpec,
    OpenBand,
    OpenRaster,
    open_dataset,
    open_raster,
    reopen,
)
from geothresh.raster.gdal import RASTER_ERRORS, filtered_warnings, gdal_environment, reason
from geothresh.raster.georeference import Georeference
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.scene import Scene
from geothresh.types import BoolArray
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Progress = Callable[[int, int], None]

# Pixels of a strip, some 20 bytes each while it is worked on. Small strips take little memory and
# read a block several times, which costs nothing while a row of blocks stays in GDAL's cache.
_STRIP_PIXELS = 1 << 21
_STRIP_PIXELS_WIDE = 1 << 24
_CACHED_BLOCK_ROW = 24 << 20

# Nodata by this project's convention, foreground by the habit of others.
_HIGH = 255

_CUT = "cut them with `threshold`, such as `threshold=0.5`"
_CUT_LABELS = (
    "cut them at a threshold first, to whole numbers: 1 foreground, 0 background, 255 no data"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpec(BandSpec):
    """What is known and decided about a mask; opens it again in any process."""

    value: int
    """The pixels of this value are the foreground."""
    foreground: int
    """Number of foreground pixels."""

    def open(self) -> Mask:
        """Open the mask without looking through it again.

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
    """Open a mask; it is read through once, to find out what is foreground in it.

    Foreground is 1. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is
    foreground, with a warning. 255 beside 1 is nodata, tagged or not.

    Args:
        mask: path, URL, or open rasterio dataset, or what `find_raster` made of one.
        bidx: the band, counted from 1; needed where there are several.
        allow_vrt: accept a VRT.
        progress: told (strips read, strips in all).

    Raises:
        InputError: the raster cannot be read, or is no mask.
        UsageError: the band does not exist.
    """
    return open_raster(
        find_raster(mask, allow_vrt=allow_vrt),
        lambda source, dataset: _examine(source, dataset, bidx, progress, advice=_CUT),
    )


def open_labels(mask: str | os.PathLike[str] | RasterSource | Any) -> Mask:
    """Open a mask that is the ground truth; see `open_mask`.

    0 is background in it, also in the many masks that are tagged with a nodata value of 0: without
    it there would be no false positive.

    Raises:
        InputError: the raster cannot be read, or is no mask.
    """
    return open_raster(
        find_raster(mask),
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
    """Check an open dataset, and look through it for its foreground.

    With `zero_is_data`, a nodata value of 0 counts for nothing. `advice` is for confidences.
    """
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
    value, foreground = _find_foreground(Mask(unknown, dataset), progress, advice)
    return Mask(replace(unknown, value=value, foreground=foreground), dataset)


def _refuse_confidences(name: str, dataset: DatasetReader, bidx: int, advice: str) -> None:
    """What the header tells; the values are looked at in the scan."""
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


def _find_foreground(mask: Mask, progress: Progress | None, advice: str) -> tuple[int, int]:
    """The value that is foreground, and the number of its pixels."""
    # The blocks stay for the strips of one row of them, and no longer.
    with gdal_environment(cache_bytes=mask.layout.row_cache(mask.dtype)):
        ones, highs = _count_foreground(mask, progress, advice)
    text = None
    if highs and not ones:
        text = "only 0 and 255 occur and 255 is not tagged as nodata: 255 is taken as foreground"
    elif highs:
        text = f"255 occurs beside 1 ({highs} pixels) and is taken as nodata without being tagged"
    elif not ones and mask.spec.nodata in (1, _HIGH):
        text = f"no pixel is foreground (1); {mask.spec.nodata:g} is tagged as nodata"
    if text:
        warnings.warn(f"{mask.name}: {text}", GeothreshWarning, stacklevel=4)
    return (_HIGH, highs) if highs and not ones else (1, ones)


def _count_foreground(mask: Mask, progress: Progress | None, advice: str) -> tuple[int, int]:
    """How many pixels are 1 and how many 255; InputError where one is neither, nor 0."""
    ones = highs = 0
    for window, values, valid in _stored(mask, progress, cached=True):
        one = (values == 1) & valid
        # Compared as Python compares: no int8 is 255.
        high = (values == _HIGH) & valid
        odd = (values != 0) & valid & ~one & ~high
        if odd.any():
            row, column = np.argwhere(odd)[0]
            raise InputError(
                f"{mask.name}: the value {values[row, column]} at row {window.row + row}, column "
                f"{column} is neither background (0) nor foreground (1) nor nodata (255); "
                f"if these are confidences, {advice}"
            )
        ones += int(np.count_nonzero(one))
        highs += int(np.count_nonzero(high))
    return ones, highs


def _is_plain(mask: Mask) -> bool:
    """Whether GDAL's polygoniser can work on the file as it is: the value alone tells all."""
    spec = mask.spec
    return (
        spec.source.driver == "GTiff"
        and mask.dtype == np.uint8
        and spec.mask_band is None
        and not spec.has_mask
        and spec.nodata != 1
    )


def _stored(
    mask: Mask, progress: Progress | None, *, cached: bool = False
) -> Iterator[tuple[PixelWindow, NDArray[Any], NDArray[np.bool_]]]:
    """The whole band as it is stored, and what of it is valid, from top to bottom."""
    windows = strips(mask.size, mask.layout.part_height, cached=cached)
    for done, window in enumerate(windows, start=1):
        yield window, *mask.stored(window)
        if progress:
            progress(done, len(windows))


@contextmanager
def plain_mask(mask: Mask, *, beside: Path) -> Iterator[Mask]:
    """The mask itself where GDAL's polygoniser can work on it, or else a temporary copy.

    Args:
        mask: open; of other types than uint8, or with a mask band, it is copied.
        beside: a path in whose directory the copy is put, which lives as long as the block.

    Raises:
        OutputError: the copy cannot be written.
    """
    if _is_plain(mask):
        yield mask
        return
    windows = strips(mask.size, mask.layout.part_height)
    parts = ((window, mask.foreground(window)) for window in windows)
    with rewritten(mask, parts, beside) as copy:
        yield copy


@contextmanager
def cut_scene(
    scene: Scene, threshold: float, *, beside: Path, progress: Progress | None = None
) -> Iterator[Mask]:
    """Threshold a scene into a temporary mask.

    Args:
        scene: the confidences, open.
        threshold: in [0, 1].
        beside: a path in whose directory the mask is put, which lives as long as the block.
        progress: told (strips read, strips in all).

    Raises:
        InputError: the scene cannot be read.
        UsageError: the threshold is not in [0, 1].
        OutputError: the mask cannot be written.
    """
    if not 0.0 <= threshold <= 1.0:
        raise UsageError(f"threshold {threshold:g} is not in [0, 1]; confidences are")
    windows = strips(scene.size, scene.layout.part_height)

    def above() -> Iterator[tuple[PixelWindow, BoolArray]]:
        for done, window in enumerate(windows, start=1):
            confidence, valid = scene.read(window)
            # In float32, as the confidences are: 0.7 is to be at least 0.7.
            yield window, (confidence >= np.float32(threshold)) & valid
            if progress:
                progress(done, len(windows))

    with rewritten(scene, above(), beside) as mask:
        yield mask


@contextmanager
def rewritten(
    raster: OpenRaster, parts: Iterable[tuple[PixelWindow, BoolArray]], beside: Path
) -> Iterator[Mask]:
    """Write a temporary mask, which lives as long as the block.

    Args:
        raster: on whose grid it is, and by whose name it goes in messages.
        parts: windows that cover it, True = foreground.
        beside: a path in whose directory the file is put.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = create_beside(beside)
    try:
        foreground = _write_temporary(temporary, raster.size, parts, beside)
        spec = MaskSpec(
            source=replace(find_raster(temporary), name=raster.name),
            bidx=1,
            mask_band=None,
            has_mask=False,
            nodata=None,
            value=1,
            foreground=foreground,
        )
        with Mask(spec, open_dataset(spec.source), box=raster.box) as mask:
            yield mask
    finally:
        discard(temporary)


def _write_temporary(
    path: Path, size: RasterSize, parts: Iterable[tuple[PixelWindow, BoolArray]], beside: Path
) -> int:
    """Write the parts and return how many pixels are True.

    A disk that is full goes unnoticed at close; the count tells, once the polygons are there.
    """
    foreground = 0
    # Fast to write and read, and small: a mask shrinks a hundred times.
    creation = {"compress": "deflate", "zlevel": 1, "tiled": True, "sparse_ok": True}
    blocks = {"blockxsize": 512, "blockysize": 512, "bigtiff": "IF_SAFER"}
    extent = {"height": size.height, "width": size.width, "count": 1, "dtype": "uint8"}
    with gdal_environment(), filtered_warnings():
        try:
            with rasterio.open(path, "w", driver="GTiff", **extent, **creation, **blocks) as file:
                for window, part in parts:
                    foreground += int(np.count_nonzero(part))
                    file.write(part.view(np.uint8), 1, window=window.ranges)
        except RASTER_ERRORS as error:
            raise OutputError(
                f"{beside}: a temporary mask cannot be written beside it ({reason(error)}); "
                "is the disk full?"
            ) from error
    return foreground
