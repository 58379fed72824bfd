"""Examine many rasters: one of each kind with GDAL, those like it by comparing TIFF directories.

Two rasters are of one kind if their TIFF directories differ only in the georeference and in the
offsets of blocks (`geothresh.raster.tiff_directories`), and if neither has sidecar files. What GDAL
found about one is then true of the other. GDAL examines every file that is unusual.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geothresh.errors import InputError
from geothresh.machine import usable_cores
from geothresh.options import Reading
from geothresh.raster.checks import usable_nodata, warn_of_absent_blocks, warn_of_georeference
from geothresh.raster.dataset import BlockInventory, open_raster
from geothresh.raster.gdal import filtered_warnings, gdal_environment
from geothresh.raster.georeference import Georeference
from geothresh.raster.paths import RasterSource
from geothresh.raster.scene import Examined, SceneSpec, examined
from geothresh.raster.tiff_directories import Directories, read_directories

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# Files that a thread examines at a time, and the most threads; larger numbers gain nothing.
_BATCH, _MOST_THREADS = 32, 16
# Most kinds that are remembered. Files of more kinds have nothing in common.
_MOST_KINDS = 256
_TIFF = (".tif", ".tiff")
# Files that do not describe rasters, and sidecar files, which describe the raster with the same
# name up to the first full stop. A folder with any other file, such as the metadata of a satellite,
# is left to GDAL.
_HARMLESS = (".csv", ".geojson", ".gpkg", ".html", ".json", ".jsonl", ".md", ".qml", ".vrt")
_SIDE = (
    ".aux", ".aux.xml", ".msk", ".ovr", ".tab", ".tfw", ".tfwx", ".tifw", ".tiffw", ".tiffwx",
    ".wld",
)  # fmt: skip


def examine_each(
    sources: Sequence[RasterSource],
    reading: Reading,
    most_pixels: int,
    *,
    few: int = _BATCH,
) -> Iterator[Examined | InputError]:
    """Open rasters in threads, check everything but their pixels, and close them again.

    Args:
        sources: the rasters.
        reading: band, scale and nodata.
        most_pixels: refuse larger ones.
        few: in folders with at most this many of the rasters, GDAL examines each.

    Returns:
        For each raster, in the given order, what was found, or the error why it cannot be used.

    Raises:
        UsageError: see `open_scene`.
    """
    remote = any(source.remote for source in sources)
    at_once = 1 if remote else _BATCH
    batches = [sources[at : at + at_once] for at in range(0, len(sources), at_once)]
    # GDAL and PROJ take nine tenths of the time of an examination and release the GIL. Requests to
    # a store are spent waiting.
    cores = _MOST_THREADS if remote else usable_cores()
    threads = min(cores, _MOST_THREADS, len(batches))
    pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="geothresh-examine")
    examiner = _Examiner(reading, most_pixels, _Kinds(), _without_sidecars(sources, few))
    try:
        for batch in pool.map(examiner.examine_batch, batches):
            yield from batch
    finally:
        pool.shutdown(cancel_futures=True)


def _without_sidecars(sources: Sequence[RasterSource], few: int) -> frozenset[str]:
    """Find the local GeoTIFFs without sidecar files; gives their locations.

    A folder with at most `few` of them is skipped: listing it takes longer than examining them.
    """
    if "GDAL_PAM_PROXY_DIR" in os.environ:
        return frozenset()
    folders: dict[str, list[str]] = {}
    for source in sources:
        if not source.remote and source.driver == "GTiff":
            folder, _, name = source.location.rpartition("/")
            folders.setdefault(folder, []).append(name)
    found: list[str] = []
    for folder, names in folders.items():
        described = _described_stems(folder or "/") if len(names) > few else None
        if described is not None:
            found += (f"{folder}/{name}" for name in names if _stem(name) not in described)
    return frozenset(found)


def _described_stems(folder: str) -> set[str] | None:
    """Stems of the rasters in a folder that have sidecar files; None if any of them may have one.

    Raises nothing: GDAL reports what is wrong with a folder.
    """
    described: set[str] = set()
    try:
        listed = os.listdir(folder)
    except OSError:
        return None
    for name in listed:
        lower = name.lower()
        if lower.endswith((*_TIFF, *_HARMLESS)) or name.startswith("."):
            continue
        if lower.endswith(_SIDE):
            described.add(_stem(name))
        elif not Path(folder, name).is_dir():
            return None
    return described


def _stem(name: str) -> str:
    return name.partition(".")[0].lower()


@dataclass(frozen=True, slots=True)
class _Examiner:
    """Examines batches of rasters."""

    reading: Reading
    most_pixels: int
    kinds: _Kinds
    without_sidecars: frozenset[str]

    def examine_batch(self, sources: Sequence[RasterSource]) -> list[Examined | InputError]:
        """Examine a batch of rasters."""
        # The environment is entered once for the batch.
        with gdal_environment(), filtered_warnings():
            return [self._examine(source) for source in sources]

    def _examine(self, source: RasterSource) -> Examined | InputError:
        comparable = source.location in self.without_sidecars
        own = read_directories(source.location) if comparable else None
        known = None if own is None else self.kinds.examined(source, own, self.reading)
        if known is not None:
            return known
        found: list[Examined] = []

        def look(source: RasterSource, dataset: DatasetReader) -> DatasetReader:
            found.append(examined(source, dataset, self.reading, self.most_pixels))
            if own is not None:
                self.kinds.learn(found[0], own, dataset)
            return dataset

        try:
            open_raster(source, look).close()
        except InputError as error:
            return error
        return found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What GDAL found about the first raster of a kind; true of all rasters of that kind."""

    first: Examined
    blocks: BlockInventory
    tagged: float | None
    """The nodata tag of the band."""
    filled: float | None
    """The nodata tag of the first band: absent blocks read as this value."""
    shift: tuple[float, float]
    """Offset from the tie point of the file to the corner of the first pixel, in map units."""

    def box(self, name: str, own: Directories) -> Georeference | None:
        """The georeference of a raster of this kind; None if it has none or a faulty one."""
        if own.tie_point is None:
            return None
        first, (x, y), (right, down) = self.first.box, own.tie_point, self.shift
        a, b, _, d, e, _ = first.transform
        box = Georeference(
            size=first.size, transform=(a, b, x + right, d, e, y + down), crs=first.crs,
            name=name, area_or_point=first.area_or_point,
        )  # fmt: skip
        return box if box.has_transform and box.fault() is None else None

    def inventory(self, own: Directories, file_size: int) -> BlockInventory | None:
        """The blocks of a raster of this kind; None if one is faulty or lies beyond the file."""
        offsets, sizes = own.offsets, own.sizes
        examined = self.blocks.examined
        if len(offsets) != len(examined) or np.any((offsets > 0) != (sizes > 0)):
            return None
        ends = offsets + sizes
        if ends.max() > file_size:
            return None
        return BlockInventory(examined=examined, ends=ends)


class _Kinds:
    """The kinds of rasters that GDAL has examined so far; several threads may use them."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Kind] = {}

    def examined(self, source: RasterSource, own: Directories, reading: Reading) -> Examined | None:
        """The facts of a raster of a known kind; None if its kind is not known.

        Gives the same warnings as GDAL's examination of it would.
        """
        kind = self._known.get(own.digest)
        if kind is None or source.file_size is None:
            return None
        box, inventory = kind.box(source.name, own), kind.inventory(own, source.file_size)
        if box is None or inventory is None:
            return None
        warn_of_georeference(box)
        warn_of_absent_blocks(source.name, kind.filled, inventory)
        first = kind.first
        dtype = np.dtype(first.kind.dtype)
        like = first.spec
        spec = SceneSpec(
            source=source, bidx=like.bidx, mask_band=like.mask_band, has_mask=like.has_mask,
            nodata=usable_nodata(source.name, dtype, kind.tagged, reading.nodata),
            scaling=like.scaling,
        )  # fmt: skip
        return Examined(spec=spec, box=box, kind=first.kind, inventory=inventory)

    def learn(self, found: Examined, own: Directories, dataset: DatasetReader) -> None:
        """Remember the kind of an open raster, if comparison gives the same facts as GDAL."""
        blocks, box, source = found.inventory, found.box, found.spec.source
        if blocks is None or own.tie_point is None or source.file_size is None:
            return
        if len(self._known) >= _MOST_KINDS or len(dataset.subdatasets) > 1:
            return
        a, _, _, _, e, _ = box.transform
        bidx = found.spec.bidx
        kind = _Kind(
            first=found, blocks=blocks, tagged=dataset.nodatavals[bidx - 1],
            filled=dataset.nodata,
            shift=(-0.5 * a, -0.5 * e) if box.area_or_point == "Point" else (0.0, 0.0),
        )  # fmt: skip
        own_box, inventory = kind.box(box.name, own), kind.inventory(own, source.file_size)
        same_blocks = inventory is not None and np.array_equal(inventory.ends, blocks.ends)
        same = own_box == box and same_blocks
        if same:
            self._known[own.digest] = replace(kind, first=replace(found, inventory=None))
