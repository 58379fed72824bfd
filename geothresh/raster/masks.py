"""Opening a mask: what in it is foreground is found out once, by a look at every pixel.

GDAL's polygoniser says nothing when a read fails, and given anything but a mask it makes a polygon
of every pixel. So the band is read through once before: that finds damage, tells a mask from a
confidence raster, and counts the foreground that the polygons must cover.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError
from geothresh.files import create_beside, discard
from geothresh.options import ScaleOption
from geothresh.raster.bands import alpha_band, choose_band, sound_grid
from geothresh.raster.blocks import BlockInventory, BlockLayout
from geothresh.raster.examining import check_size, metadata_fault, tell_pages
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.nodata import can_hold
from geothresh.raster.opened import open_dataset
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.reading import open_scene
from geothresh.raster.scaling import Scaling
from geothresh.raster.scene import Scene, SceneSpec
from geothresh.raster.wording import in_own_words
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

_CUT = "cut them with --threshold, such as --threshold 0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskBand:
    """A band in which one value is the foreground, ready to be outlined."""

    name: str
    """What to call the mask in messages."""

    grid: RasterGrid
    """Where its pixels lie."""

    location: str
    """The GeoTIFF that holds the band: the user's, or a temporary one."""

    bidx: int
    """The band in `location`, counted from 1."""

    value: int
    """The pixels of this value are the foreground."""

    foreground: int
    """Number of foreground pixels."""

    def strips(self) -> list[PixelWindow]:
        """Windows of full width that cover the band from top to bottom."""
        return strips(RasterSize(height=self.grid.height, width=self.grid.width), 512)


@contextmanager
def open_mask(
    mask: Any,
    *,
    beside: Path,
    bidx: int | None = None,
    threshold: float | None = None,
    scale: ScaleOption = "auto",
    nodata: float | None = None,
    allow_vrt: bool = False,
    progress: Progress | None = None,
) -> Iterator[MaskBand]:
    """Find out what is foreground in a raster, and give the band to be outlined.

    Foreground is 1. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is
    foreground, with a warning. 255 beside 1 is nodata, tagged or not.

    Args:
        mask: path of the raster, or an open rasterio dataset.
        beside: a path in whose directory a temporary file may be put; it is removed at the end.
            There is one with a threshold, and for masks that are not uint8 or have a mask band.
        bidx: the band, counted from 1; needed where there are several.
        threshold: the raster holds confidences, foreground is where they are at least this.
        scale, nodata: how these are stored, as for `open_scene`.
        allow_vrt: accept a VRT.
        progress: told (strips read, strips in all).

    Raises:
        InputError: the raster cannot be read, or is no mask and there is no `threshold`.
        UsageError: the band does not exist, or `threshold` is not in [0, 1].
        OutputError: the temporary file cannot be written.
    """
    if threshold is not None:
        if not 0.0 <= threshold <= 1.0:
            raise UsageError(f"threshold {threshold:g} is not in [0, 1]; confidences are")
        with open_scene(mask, bidx=bidx, scale=scale, nodata=nodata, allow_vrt=allow_vrt) as scene:
            above = _above(scene, threshold, progress)
            with rewritten(scene.name, scene.grid, above, beside) as band:
                yield band
        return
    with open_classes(find_raster(mask, allow_vrt=allow_vrt), bidx) as scene:
        value, foreground = find_foreground(scene, progress)
        if _is_plain(scene):
            yield MaskBand(
                name=scene.name,
                grid=scene.grid,
                location=scene.spec.source.location,
                bidx=scene.spec.bidx,
                value=value,
                foreground=foreground,
            )
        else:
            with rewritten(scene.name, scene.grid, _equal(scene, value), beside) as band:
                yield band


def strips(size: RasterSize, block_height: int, *, cached: bool = False) -> list[PixelWindow]:
    """Windows of full width, top to bottom; of whole block rows where these are not too large.

    With `cached`, a row of blocks stays in the cache whatever its size (`BlockLayout.row_cache`).
    """
    cached = cached or size.width * block_height <= _CACHED_BLOCK_ROW
    rows = max(1, (_STRIP_PIXELS if cached else _STRIP_PIXELS_WIDE) // size.width)
    if rows > block_height:
        rows -= rows % block_height
    return list(RegularGrid(size=size, part_height=rows, part_width=size.width).windows())


@contextmanager
def open_classes(
    source: RasterSource, bidx: int | None, *, zero_is_data: bool = False, advice: str = _CUT
) -> Iterator[Scene]:
    """The raster of whole numbers, to be read as it is stored.

    With `zero_is_data`, a nodata value of 0 counts for nothing. `advice` is for confidences.
    """
    dataset = open_dataset(source)
    with dataset:
        try:
            # Questions about the metadata may make GDAL read, and complain.
            with gdal_environment(**source.access), in_own_words():
                scene = _examine(source, dataset, bidx, zero_is_data, advice)
        except RASTER_ERRORS as error:
            raise metadata_fault(source, error) from error
        yield scene


def _examine(
    source: RasterSource,
    dataset: DatasetReader,
    bidx: int | None,
    zero_is_data: bool,
    advice: str,
) -> Scene:
    check_size(source, dataset)
    sound_grid(source.name, dataset)
    tell_pages(source.name, dataset)
    chosen = choose_band(source.name, dataset, bidx, meaning="the mask")
    _refuse_confidences(source.name, dataset, chosen, advice)
    _check_blocks(source, dataset, chosen)
    nodata = dataset.nodatavals[chosen - 1]
    if nodata is not None and not can_hold(np.dtype(dataset.dtypes[chosen - 1]), nodata):
        nodata = None
    if zero_is_data and nodata == 0:
        nodata = None
    flags = dataset.mask_flag_enums[chosen - 1]
    mask_band = alpha_band(dataset, chosen)
    spec = SceneSpec(
        source=source,
        bidx=chosen,
        mask_band=mask_band,
        has_mask=MaskFlags.per_dataset in flags and mask_band is None,
        nodata=nodata,
        scaling=Scaling(text="none: the numbers are classes"),
    )
    return Scene(spec, dataset)


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


def _check_blocks(source: RasterSource, dataset: DatasetReader, bidx: int) -> None:
    """Find a file cut short before GDAL does, which reads what is missing as zeros."""
    if source.driver != "GTiff" or source.file_size is None:
        return
    layout = BlockLayout.of(dataset, bidx)
    beyond = BlockInventory.of(dataset, bidx, layout).first_beyond(source.file_size)
    if beyond is not None:
        raise InputError(
            f"{source.name}: {layout.describe(beyond)} ends beyond the {source.file_size} bytes "
            "of the file, which was cut short: copy it again"
        )


def find_foreground(
    scene: Scene, progress: Progress | None, *, advice: str = _CUT
) -> tuple[int, int]:
    """The value that is foreground, and the number of its pixels."""
    # The blocks stay for the strips of one row of them, and no longer.
    with gdal_environment(cache_bytes=scene.layout.row_cache(scene.dtype)):
        ones, highs = _count_foreground(scene, progress, advice)
    text = None
    if highs and not ones:
        text = "only 0 and 255 occur and 255 is not tagged as nodata: 255 is taken as foreground"
    elif highs:
        text = f"255 occurs beside 1 ({highs} pixels) and is taken as nodata without being tagged"
    elif not ones and scene.spec.nodata in (1, _HIGH):
        text = f"no pixel is foreground (1); {scene.spec.nodata:g} is tagged as nodata"
    if text:
        warnings.warn(f"{scene.name}: {text}", GeothreshWarning, stacklevel=5)
    return (_HIGH, highs) if highs and not ones else (1, ones)


def _count_foreground(scene: Scene, progress: Progress | None, advice: str) -> tuple[int, int]:
    """How many pixels are 1 and how many 255; InputError where one is neither, nor 0."""
    ones = highs = 0
    for window, values, valid in _stored(scene, progress, cached=True):
        one = (values == 1) & valid
        # Compared as Python compares: no int8 is 255.
        high = (values == _HIGH) & valid
        odd = (values != 0) & valid & ~one & ~high
        if odd.any():
            row, column = np.argwhere(odd)[0]
            raise InputError(
                f"{scene.name}: the value {values[row, column]} at row {window.row + row}, column "
                f"{column} is neither background (0) nor foreground (1) nor nodata (255); "
                f"if these are confidences, {advice}"
            )
        ones += int(np.count_nonzero(one))
        highs += int(np.count_nonzero(high))
    return ones, highs


def _is_plain(scene: Scene) -> bool:
    """Whether GDAL's polygoniser can work on the file as it is: the value alone tells all."""
    spec = scene.spec
    return (
        spec.source.driver == "GTiff"
        and scene.dtype == np.uint8
        and spec.mask_band is None
        and not spec.has_mask
        and spec.nodata != 1
    )


def _stored(
    scene: Scene, progress: Progress | None, *, cached: bool = False
) -> Iterator[tuple[PixelWindow, NDArray[Any], NDArray[np.bool_]]]:
    """The whole band as it is stored, and what of it is valid, from top to bottom."""
    windows = strips(scene.size, scene.layout.part_height, cached=cached)
    for done, window in enumerate(windows, start=1):
        yield window, *scene.stored(window)
        if progress:
            progress(done, len(windows))


def _equal(scene: Scene, value: int) -> Iterator[tuple[PixelWindow, NDArray[np.bool_]]]:
    for window, values, valid in _stored(scene, None):
        yield window, (values == value) & valid


def _above(
    scene: Scene, threshold: float, progress: Progress | None
) -> Iterator[tuple[PixelWindow, NDArray[np.bool_]]]:
    windows = strips(scene.size, scene.layout.part_height)
    for done, window in enumerate(windows, start=1):
        confidence, valid = scene.read(window)
        # In float32, as the confidences are: 0.7 is to be at least 0.7.
        yield window, (confidence >= np.float32(threshold)) & valid
        if progress:
            progress(done, len(windows))


@contextmanager
def rewritten(
    name: str,
    grid: RasterGrid,
    parts: Iterable[tuple[PixelWindow, NDArray[np.bool_]]],
    beside: Path,
) -> Iterator[MaskBand]:
    """The parts as a temporary file of zeros and ones, which lives as long as the block.

    Args:
        name: what to call the mask in messages.
        grid: where its pixels lie.
        parts: windows that cover it, True = foreground.
        beside: a path in whose directory the file is put.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = create_beside(beside)
    try:
        foreground = _write_temporary(temporary, grid, parts, beside)
        yield MaskBand(
            name=name,
            grid=grid,
            location=str(temporary),
            bidx=1,
            value=1,
            foreground=foreground,
        )
    finally:
        discard(temporary)


def _write_temporary(
    path: Path,
    grid: RasterGrid,
    parts: Iterable[tuple[PixelWindow, NDArray[np.bool_]]],
    beside: Path,
) -> int:
    """Write the parts and return how many pixels are True.

    A disk that is full goes unnoticed at close; the count tells, once the polygons are there.
    """
    foreground = 0
    # Fast to write and read, and small: a mask shrinks a hundred times.
    creation = {"compress": "deflate", "zlevel": 1, "tiled": True, "sparse_ok": True}
    blocks = {"blockxsize": 512, "blockysize": 512, "bigtiff": "IF_SAFER"}
    size = {"height": grid.height, "width": grid.width, "count": 1, "dtype": "uint8"}
    with gdal_environment(), in_own_words():
        try:
            with rasterio.open(path, "w", driver="GTiff", **size, **creation, **blocks) as dataset:
                for window, part in parts:
                    foreground += int(np.count_nonzero(part))
                    dataset.write(part.view(np.uint8), 1, window=window.ranges)
        except RASTER_ERRORS as error:
            raise OutputError(
                f"{beside}: a temporary mask cannot be written beside it ({reason(error)}); "
                "is the disk full?"
            ) from error
    return foreground
