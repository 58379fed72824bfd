"""Examine many rasters: a few of each kind by GDAL, those that are like them by comparison.

A raster is like another if their directories say the same but for where pixels lie on the ground
and where blocks lie in the file (`geothresh.raster.tiff_directories`), and nothing beside it says
more. What GDAL has found of the one is then true of the other. Whatever is odd is left to GDAL.
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

# Files that a thread examines in one go, and threads that do so: more gain nothing.
_BATCH, _MOST_THREADS = 32, 16
# Kinds that are remembered: files of many more are alike in nothing.
_MOST_KINDS = 256
_TIFF = (".tif", ".tiff")
# What in a folder tells nothing of rasters, and what tells of the raster of its name alone, up to
# the first full stop. With anything else, such as the metadata of a satellite, GDAL is asked.
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
    """Open rasters, check all but their pixels, and close them again, some at a time in threads.

    Args:
        sources: the rasters.
        reading: band, scale and nodata.
        most_pixels: refuse larger ones.
        few: of folders with at most so many of them GDAL examines each.

    Returns:
        In their order, what was found of each, or why it cannot be used.

    Raises:
        UsageError: as of `open_scene`.
    """
    remote = any(source.remote for source in sources)
    at_once = 1 if remote else _BATCH
    batches = [sources[at : at + at_once] for at in range(0, len(sources), at_once)]
    # Of what GDAL examines nine tenths of the time are its own and PROJ's, which let other threads
    # go on. Who asks a store waits for it.
    cores = _MOST_THREADS if remote else usable_cores()
    threads = min(cores, _MOST_THREADS, len(batches))
    pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="geothresh-examine")
    look = _Look(reading, most_pixels, _Kinds(), _alone(sources, few))
    try:
        for batch in pool.map(look.at_few, batches):
            yield from batch
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(sources: Sequence[RasterSource], few: int) -> frozenset[str]:
    """The locations of local GeoTIFFs of which no other file tells anything.

    To list a folder takes longer than to examine a few files of it.
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
        told = _told_of(folder or "/") if len(names) > few else None
        if told is not None:
            found += (f"{folder}/{name}" for name in names if _stem(name) not in told)
    return frozenset(found)


def _told_of(folder: str) -> set[str] | None:
    """The stems of rasters of which other files in a folder tell something; None = perhaps of all.

    Raises nothing: GDAL says what is wrong with a folder.
    """
    told: set[str] = set()
    try:
        there = os.listdir(folder)
    except OSError:
        return None
    for name in there:
        lower = name.lower()
        if lower.endswith((*_TIFF, *_HARMLESS)) or name.startswith("."):
            continue
        if lower.endswith(_SIDE):
            told.add(_stem(name))
        elif not Path(folder, name).is_dir():
            return None
    return told


def _stem(name: str) -> str:
    return name.partition(".")[0].lower()


@dataclass(frozen=True, slots=True)
class _Look:
    """Examines rasters, some at a time."""

    reading: Reading
    most_pixels: int
    kinds: _Kinds
    alone: frozenset[str]

    def at_few(self, sources: Sequence[RasterSource]) -> list[Examined | InputError]:
        """Examine some."""
        # Once for all, rather than for each.
        with gdal_environment(), filtered_warnings():
            return [self._at(source) for source in sources]

    def _at(self, source: RasterSource) -> Examined | InputError:
        own = read_directories(source.location) if source.location in self.alone else None
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
    """What was found of one raster, and is true of all that are like it."""

    first: Examined
    blocks: BlockInventory
    tagged: float | None
    """The nodata value of the band, as it is tagged."""
    filled: float | None
    """That of the first band, as which absent blocks read."""
    shift: tuple[float, float]
    """From the place that the file tells to the corner of the first pixel."""

    def box(self, name: str, own: Directories) -> Georeference | None:
        """Where a raster lies; None where it does not say so, or not soundly."""
        if own.place is None:
            return None
        first, (x, y), (right, down) = self.first.box, own.place, self.shift
        a, b, _, d, e, _ = first.transform
        box = Georeference(
            size=first.size, transform=(a, b, x + right, d, e, y + down), crs=first.crs,
            name=name, area_or_point=first.area_or_point,
        )  # fmt: skip
        return box if box.has_transform and box.fault() is None else None

    def inventory(self, own: Directories, file_size: int) -> BlockInventory | None:
        """The blocks of a raster; None where one is odd, or not inside the file."""
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
        """What is true of a raster like one that is known; None where there is none.

        It warns as of that one.
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
        """Keep what was found of an open raster, if as much can be told by comparison."""
        blocks, box, source = found.inventory, found.box, found.spec.source
        if blocks is None or own.place is None or source.file_size is None:
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
        told, there = kind.box(box.name, own), kind.inventory(own, source.file_size)
        same = told == box and there is not None and np.array_equal(there.ends, blocks.ends)
        if same:
            self._known[own.digest] = replace(kind, first=replace(found, inventory=None))
