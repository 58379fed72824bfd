"""Opening a confidence raster: everything about it is checked and decided once, here."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from geothresh.errors import GeothreshWarning, InputError, UsageError
from geothresh.raster.bands import alpha_band, choose_band, sound_grid
from geothresh.raster.blocks import BlockInventory, BlockLayout, evenly_spread
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, quiet_georeference, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.nodata import nodata_of_band
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.scaling import BandFacts, ScaleOption, Scaling, decide_scaling
from geothresh.raster.scene import INFINITIES, Scene, SceneSpec, open_dataset

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# A raster of more pixels than this is a mistake or an attack, not a scene.
MOST_PIXELS = 10**11
# GDAL decodes a block whole; one larger than this would not fit beside the network.
_LARGEST_BLOCK = 512 * 2**20
# Pixels that the scaling is decided from: all of a small raster, some blocks of a large one.
_SAMPLE_PIXELS = 2**23


def open_scene(
    scene: str | os.PathLike[str] | Any,
    *,
    bidx: int | None = None,
    nodata: float | None = None,
    scale: ScaleOption = "auto",
    allow_vrt: bool = False,
    most_pixels: int = MOST_PIXELS,
) -> Scene:
    """Open a confidence raster after checking all that can be checked without reading it whole.

    Args:
        scene: path, URL, or open rasterio dataset (opened anew by its name).
        bidx: band with the confidence, counted from 1; may be left out if there is only one
            (besides an alpha band).
        nodata: stored value that marks missing data, in place of the band's own.
        scale: "auto", "logit", or the number that stands for confidence 1.
        allow_vrt: accept a VRT.
        most_pixels: refuse larger rasters.

    Raises:
        InputError: the file is not a readable GeoTIFF, or its values are no confidences.
        UsageError: `bidx` or `nodata` does not exist in this raster.
    """
    source = find_raster(scene, allow_vrt=allow_vrt)
    dataset = open_dataset(source)
    try:
        # Questions about the metadata may make GDAL read, and complain.
        with gdal_environment(remote=source.remote), quiet_georeference():
            return _examine(source, dataset, bidx, nodata, scale, most_pixels)
    except RASTER_ERRORS as error:
        # GDAL may report a fault in the metadata at whichever question comes next.
        dataset.close()
        raise InputError(
            f"{source.name}: the metadata cannot be understood ({reason(error)}); "
            "write it again with gdal_translate"
        ) from error
    except BaseException:
        dataset.close()
        raise


def _examine(
    source: RasterSource,
    dataset: DatasetReader,
    bidx: int | None,
    nodata: float | None,
    scale: ScaleOption,
    most_pixels: int,
) -> Scene:
    """Check and decide everything about an open dataset."""
    _check_size(source, dataset, most_pixels)
    chosen = choose_band(source.name, dataset, bidx, meaning="the confidence")
    _check_band(source.name, dataset, chosen)
    _tell_georeference(source.name, sound_grid(source.name, dataset))
    layout = BlockLayout.of(dataset, chosen)
    inventory = _take_inventory(source, dataset, chosen, layout)
    flags = dataset.mask_flag_enums[chosen - 1]
    mask_band = alpha_band(dataset, chosen)
    undecided = SceneSpec(
        source=source,
        bidx=chosen,
        mask_band=mask_band,
        has_mask=MaskFlags.per_dataset in flags and mask_band is None,
        nodata=nodata_of_band(source.name, dataset, chosen, nodata),
        scaling=Scaling(text="undecided"),
    )
    sample = _sample(Scene(undecided, dataset), inventory)
    scaling = decide_scaling(_facts(source.name, dataset, chosen, sample), scale)
    return Scene(dataclasses.replace(undecided, scaling=scaling), dataset)


def _check_size(source: RasterSource, dataset: DatasetReader, most_pixels: int) -> None:
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


def _check_band(name: str, dataset: DatasetReader, bidx: int) -> None:
    if dataset.dtypes[bidx - 1].startswith("complex"):
        raise InputError(
            f"{name}: band {bidx} is {dataset.dtypes[bidx - 1]}; a confidence is a real number: "
            "write its real part or modulus to a new file"
        )
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    if structure.get("MINISWHITE") == "YES":
        raise InputError(
            f"{name}: the photometric interpretation is MINISWHITE, so that 0 may mean 1; "
            "write it again as MINISBLACK"
        )
    interpretation = dataset.colorinterp[bidx - 1]
    if interpretation == ColorInterp.palette and _bits(dataset, bidx) != 1:
        raise InputError(
            f"{name}: band {bidx} has a colour table, so that its values are classes and no "
            "confidences; give the raster that the classes came from"
        )
    if interpretation == ColorInterp.alpha:
        raise UsageError(f"{name}: band {bidx} is the alpha band; choose another with --bidx")


def _tell_georeference(name: str, grid: RasterGrid) -> None:
    if not grid.is_georeferenced:
        text = "no georeference; the outputs will have none either"
    elif not grid.has_transform:
        text = "georeferenced by control points or RPCs only, which are copied to the outputs"
    elif grid.crs is None:
        text = "no coordinate reference system; the outputs will have none either"
    else:
        return
    warnings.warn(f"{name}: {text}", GeothreshWarning, stacklevel=3)


def _bits(dataset: DatasetReader, bidx: int) -> int | None:
    bits = dataset.tags(bidx, ns="IMAGE_STRUCTURE").get("NBITS")
    return int(bits) if bits else None


def _take_inventory(
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


def _sample(scene: Scene, inventory: BlockInventory | None) -> NDArray[Any]:
    """Stored valid values of all blocks of a small raster, of evenly spread ones of a large one."""
    layout = scene.layout
    # An absent block says nothing about the others.
    candidates = inventory.present if inventory is not None else None
    count = layout.count if candidates is None else len(candidates)
    block_pixels = min(layout.block_height, layout.height) * min(layout.block_width, layout.width)
    places = evenly_spread(count, max(1, _SAMPLE_PIXELS // block_pixels))
    indices = places if candidates is None else candidates[places]
    parts = []
    for index in indices.tolist():
        values, valid = scene.stored(layout.window(index))
        # The extremes and the distinct small values decide; keep few numbers of many.
        kept = values[valid]
        parts.append(_distinct(kept) if kept.dtype == np.uint8 else _extremes(kept))
    if scene.infinities_seen:
        warnings.warn(f"{scene.name}: {INFINITIES}", GeothreshWarning, stacklevel=3)
    return np.concatenate(parts) if parts else np.zeros(0, scene.dtype)


def _distinct(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.flatnonzero(np.bincount(values, minlength=256)).astype(np.uint8)


def _extremes(values: NDArray[Any]) -> NDArray[Any]:
    """The least and greatest value, and the same without markers of missing data."""
    near = values[np.abs(values.astype(np.float64)) < 9000.0]
    ends = [part for part in (values, near) if part.size]
    return np.array([end for part in ends for end in (part.min(), part.max())], values.dtype)


def _facts(name: str, dataset: DatasetReader, bidx: int, sample: NDArray[Any]) -> BandFacts:
    return BandFacts(
        name=name,
        dtype=np.dtype(dataset.dtypes[bidx - 1]),
        scale=float(dataset.scales[bidx - 1]),
        offset=float(dataset.offsets[bidx - 1]),
        bits=_bits(dataset, bidx),
        sample=sample,
    )
