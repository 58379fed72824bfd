"""Confidence rasters: opened and checked once, then read window by window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp

from geothresh.errors import InputError, UsageError, warn
from geothresh.options import Reading
from geothresh.raster.checks import (
    MOST_PIXELS,
    check_size,
    choose_band,
    complete_blocks,
    mask_of,
    nodata_of_band,
    sound_georeference,
    warn_of_absent_blocks,
    warn_of_georeference,
    warn_of_pages,
)
from geothresh.raster.dataset import (
    BandSpec,
    BlockInventory,
    OpenBand,
    evenly_spread,
    open_raster,
    reopen,
)
from geothresh.raster.georeference import Georeference
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.scaling import (
    BandFacts,
    Scaling,
    decide_scaling,
    telling_values,
)
from geothresh.windows import PixelWindow

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# Text of a warning that is given after the sample is read, or at the end of the run.
INFINITIES = "holds infinite values, which are taken as missing data"
SAMPLE_PIXELS = 2**23
"""About how many pixels the scaling is decided from: a small raster is read whole, a large one by
blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec(BandSpec):
    """How a confidence raster is read. Picklable: any process can open the raster with it."""

    scaling: Scaling
    """How stored values become confidences."""

    def open(self) -> Scene:
        """Open the raster without deciding anything again.

        Raises:
            InputError: the file is gone, or has changed since it was first opened.
        """
        return reopen(self.source, lambda _, dataset: Scene(self, dataset))


class Scene(OpenBand):
    """An open confidence raster; several threads may read it."""

    def __init__(self, spec: SceneSpec, dataset: DatasetReader) -> None:
        super().__init__(spec, dataset)
        self.spec = spec

    def read(self, window: PixelWindow) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window that lies inside the raster.

        Returns:
            confidence: (height, width) float32 in [0, 1], 0 where there is no data.
            valid: (height, width) bool, True where there is data.

        Raises:
            InputError: a block cannot be decoded, or a value contradicts the scaling.
        """
        values, valid = self.stored(window)
        scaling = self.spec.scaling
        return scaling.confidences(values, valid, name=self.name, window=window), valid


def open_scene(
    scene: str | os.PathLike[str] | RasterSource | Any,
    reading: Reading = Reading(),
    *,
    most_pixels: int = MOST_PIXELS,
) -> Scene:
    """Open a confidence raster after checking all that can be checked without reading it whole.

    Args:
        scene: path, URL, open rasterio dataset (opened anew by its name), or `RasterSource`.
        reading: band, scale and nodata, and whether a VRT is accepted; its area is ignored. The
            band may be left out if there is only one (besides an alpha band).
        most_pixels: refuse larger rasters.

    Raises:
        InputError: the file is not a readable GeoTIFF, or its values are not confidences.
        UsageError: the band or the nodata value does not exist in this raster.
    """
    return open_raster(
        find_raster(scene, allow_vrt=reading.allow_vrt),
        lambda source, dataset: _examine(source, dataset, reading, most_pixels),
    )


def _examine(
    source: RasterSource,
    dataset: DatasetReader,
    reading: Reading,
    most_pixels: int,
) -> Scene:
    """Check and decide everything about an open dataset."""
    found = examined(source, dataset, reading, most_pixels)
    sample = found.sample(dataset, SAMPLE_PIXELS)
    scaling = decide_scaling(found.kind.facts(source.name, sample), reading.scale)
    return Scene(replace(found.spec, scaling=scaling), dataset)


@dataclass(frozen=True, slots=True, kw_only=True)
class BandKind:
    """How a band stores numbers; together with a sample of them, this decides the scaling."""

    dtype: str
    """Type of the stored numbers."""
    scale: float
    """The band's scale tag; 1 where there is none."""
    offset: float
    """The band's offset tag; 0 where there is none."""
    bits: int | None
    """The NBITS tag."""

    def facts(self, name: str, sample: NDArray[Any]) -> BandFacts:
        """The facts that decide the scaling of bands of this kind.

        Args:
            name: name of the raster or rasters, for messages.
            sample: stored values, see `Examined.sample`.
        """
        return BandFacts(
            name=name, dtype=np.dtype(self.dtype), scale=self.scale, offset=self.offset,
            bits=self.bits, sample=sample,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examined:
    """A raster whose metadata is checked; its scaling is not decided yet."""

    spec: SceneSpec
    """How it is read, with an undecided scaling."""
    box: Georeference
    """Its georeference."""
    kind: BandKind
    """How it stores numbers."""
    inventory: BlockInventory | None
    """Its blocks in the file; None if they are not known."""

    def sample(self, dataset: DatasetReader, pixels: int) -> NDArray[Any]:
        """Values of evenly spread blocks that decide the scaling (`telling_values`).

        Args:
            dataset: the open raster, which is not closed.
            pixels: about how many pixels to read; at least one block is read.
        """
        return _sample(Scene(self.spec, dataset), self.inventory, pixels)


def examined(
    source: RasterSource, dataset: DatasetReader, reading: Reading, most_pixels: int = MOST_PIXELS
) -> Examined:
    """Check everything about an open raster that can be checked without reading pixels.

    Raises the errors of `open_scene`, except those about values.
    """
    check_size(source, dataset, most_pixels)
    chosen = choose_band(source.name, dataset, reading.bidx, meaning="the confidence")
    _check_band(source.name, dataset, chosen)
    box = sound_georeference(source.name, dataset)
    warn_of_georeference(box)
    warn_of_pages(source.name, dataset)
    inventory = complete_blocks(source, dataset, chosen)
    warn_of_absent_blocks(source.name, dataset.nodata, inventory)
    mask_band, has_mask = mask_of(dataset, chosen)
    spec = SceneSpec(
        source=source,
        bidx=chosen,
        mask_band=mask_band,
        has_mask=has_mask,
        nodata=nodata_of_band(source.name, dataset, chosen, reading.nodata),
        scaling=Scaling(text="undecided"),
    )
    kind = BandKind(
        dtype=dataset.dtypes[chosen - 1], scale=float(dataset.scales[chosen - 1]),
        offset=float(dataset.offsets[chosen - 1]), bits=_bits(dataset, chosen),
    )  # fmt: skip
    return Examined(spec=spec, box=box, kind=kind, inventory=inventory)


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
        raise UsageError(f"{name}: band {bidx} is the alpha band; choose another with `bidx`")


def _bits(dataset: DatasetReader, bidx: int) -> int | None:
    bits = dataset.tags(bidx, ns="IMAGE_STRUCTURE").get("NBITS")
    return int(bits) if bits else None


def _sample(scene: Scene, inventory: BlockInventory | None, pixels: int) -> NDArray[Any]:
    """Valid stored values of all blocks of a small raster, or of evenly spread blocks."""
    layout = scene.layout
    # An absent block says nothing about the others.
    candidates = inventory.present if inventory is not None else None
    count = layout.count if candidates is None else len(candidates)
    block_pixels = layout.window(0).pixels
    chosen = evenly_spread(count, max(1, pixels // block_pixels))
    indices = chosen if candidates is None else candidates[chosen]
    parts = []
    for index in indices.tolist():
        values, valid = scene.stored(layout.window(index))
        parts.append(telling_values(values[valid]))
    if scene.infinities_seen:
        warn(f"{scene.name}: {INFINITIES}")
    return np.concatenate(parts) if parts else np.zeros(0, scene.dtype)
