"""Read many rasters as one surface, across their borders.

A part of a surface is the area of one output: a file, or a piece of one. Its pixels come from its
own file first. Pixels around it, and pixels missing in it, come from the other files, in the order
in which they were given.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from rasterio.crs import CRS

from geothresh.errors import GeothreshWarning, InputError, number_of, warn
from geothresh.options import Reading
from geothresh.raster.dataset import evenly_spread, open_raster, require_unchanged
from geothresh.raster.gdal import gdal_environment
from geothresh.raster.georeference import Georeference
from geothresh.raster.grids import Placement
from geothresh.raster.mask import Mask, MaskSpec
from geothresh.raster.scaling import Scaling, decide_scaling
from geothresh.raster.scene import SAMPLE_PIXELS, BandKind, Examined, Scene, SceneSpec
from geothresh.types import BoolArray, Float32Array
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Number of evenly spread files from which the scaling is decided.
_SAMPLED_FILES = 64
# Most files open at once in a process: a tile of 512 pixels may touch a thousand tiny files.
_MOST_OPEN = 64


def decide_together(
    files: Sequence[Examined],
    reading: Reading,
    *,
    on_bad: Callable[[Examined, InputError], None] | None = None,
) -> dict[Examined, SceneSpec]:
    """Decide how the values of files become confidences, once for all of one type and scale tags.

    So a file that holds only 0 and 1 is read like the other files, whose values go up to 255. The
    sample is limited to evenly spread blocks of evenly spread files.

    Args:
        files: the examined files.
        reading: its scale replaces the decision, if one is given.
        on_bad: called with a damaged file, which is then left out of the result.

    Returns:
        How each file is read.

    Raises:
        InputError: the values are not confidences, or a file is damaged and `on_bad` is None.
        UsageError: see `decide_scaling`.
    """
    kinds: dict[BandKind, list[Examined]] = {}
    for file in files:
        kinds.setdefault(file.kind, []).append(file)
    decided: dict[Examined, SceneSpec] = {}
    for kind, alike in kinds.items():
        samples, bad = [], set()
        sampled = evenly_spread(len(alike), _SAMPLED_FILES).tolist()
        for file in (alike[index] for index in sampled):
            try:
                samples.append(_sample(file, SAMPLE_PIXELS // len(sampled)))
            except InputError as error:
                if on_bad is None:
                    raise
                on_bad(file, error)
                bad.add(id(file))
        left = [file for file in alike if id(file) not in bad]
        if left:
            scaling = _decide(kind, left, samples, reading)
            decided |= {file: replace(file.spec, scaling=scaling) for file in left}
    return decided


def decide_each(
    files: Sequence[Examined], reading: Reading, *, on_bad: Callable[[Examined, InputError], None]
) -> dict[Examined, SceneSpec]:
    """Decide how each file is read from its own values alone.

    Args:
        files: the examined files.
        reading: as in `decide_together`.
        on_bad: called with a file that is damaged or holds no confidences, which is then left out.

    Returns:
        How each file is read.

    Raises:
        UsageError: see `decide_scaling`.
    """
    decided: dict[Examined, SceneSpec] = {}
    for file in files:
        try:
            decided |= decide_together([file], reading)
        except InputError as error:
            on_bad(file, error)
    return decided


def _sample(file: Examined, pixels: int) -> NDArray[Any]:
    with open_raster(file.spec.source, lambda _, dataset: dataset) as dataset:
        return file.sample(dataset, pixels)


def _decide(
    kind: BandKind, files: Sequence[Examined], samples: Sequence[NDArray[Any]], reading: Reading
) -> Scaling:
    name = files[0].spec.source.name
    if len(files) > 1:
        name = f"{name} and {len(files) - 1} other files of {kind.dtype}"
    values = np.concatenate(samples) if samples else np.zeros(0, kind.dtype)
    return decide_scaling(kind.facts(name, values), reading.scale)


def crs_normaliser() -> Callable[[str | None], str | None]:
    """A function that maps equal CRSs with different WKT to the same WKT."""
    first: dict[str, str] = {}

    def normalised(wkt: str | None) -> str | None:
        if wkt is None or wkt in first:
            return None if wkt is None else first[wkt]
        with gdal_environment():
            crs = CRS.from_wkt(wkt)
            known = (other for other in set(first.values()) if CRS.from_wkt(other) == crs)
            first[wkt] = next(known, wkt)
        return first[wkt]

    return normalised


@contextmanager
def merged_warnings(files: Sequence[str]) -> Iterator[None]:
    """Merge equal warnings about many files into one, with the name of the first file.

    Messages about a file begin with its name and a colon; others are given as they are, once.

    Args:
        files: names of the files, in the order in which warnings are given.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        # An error may follow from what was warned of.
        _give_merged(caught, files)


def _give_merged(caught: Sequence[warnings.WarningMessage], files: Sequence[str]) -> None:
    texts: list[tuple[str, str]] = []
    for warning in caught:
        if issubclass(warning.category, GeothreshWarning):
            name, colon, text = str(warning.message).partition(": ")
            texts.append((name, text) if colon else ("", name))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    order = {name: index for index, name in enumerate(files)} if texts else {}
    same: dict[str, list[str]] = {}
    for name, text in sorted(texts, key=lambda named: order.get(named[0], -1)):
        same.setdefault(text, []).append(name)
    for text, names in same.items():
        others = f" (and {number_of(len(names) - 1, 'other file')})" if len(names) > 1 else ""
        warn(f"{names[0]}{others}: {text}" if names[0] else text)


Spec = SceneSpec | MaskSpec
"""How a file is read: as confidences, or as a mask."""
OneSpec = TypeVar("OneSpec", bound=Spec)


class OpenScenes:
    """A cache of open scenes and masks of this process; several threads may use it."""

    def __init__(self, most: int = _MOST_OPEN) -> None:
        """Keep at most `most` files open, not counting those that are being read."""
        self._most = most
        self._lock = threading.Lock()
        self._open: OrderedDict[Spec, Scene | Mask] = OrderedDict()
        self._readers: dict[Spec, int] = {}
        self._infinite: set[Spec] = set()

    @contextmanager
    def scene(self, spec: Spec) -> Iterator[Scene | Mask]:
        """Give an open scene or mask, which stays open during this block.

        Raises:
            InputError: see `SceneSpec.open`.
        """
        with self._lock:
            scene = self._open.get(spec)
            if scene is None:
                scene = self._open[spec] = spec.open()
            self._open.move_to_end(spec)
            self._readers[spec] = self._readers.get(spec, 0) + 1
        try:
            yield scene
        finally:
            with self._lock:
                self._readers[spec] -= 1
                if not self._readers[spec]:
                    del self._readers[spec]
                if scene.infinities_seen:
                    self._infinite.add(spec)
                self._close_unused()

    def _close_unused(self) -> None:
        for spec in list(self._open):
            if len(self._open) <= self._most:
                return
            if spec not in self._readers:
                self._open.pop(spec).close()

    def infinite(self, spec: Spec) -> bool:
        """Whether infinite values were seen in a scene."""
        return spec in self._infinite

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def __enter__(self) -> OpenScenes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedScene(Generic[OneSpec]):
    """A raster, and where it lies on a surface."""

    spec: OneSpec
    """How the raster is read."""
    window: PixelWindow
    """Its pixels, counted from the first pixel of the surface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfacePart:
    """A part of a surface, and the files that are read for it; small and picklable."""

    size: RasterSize
    """Size of the whole surface."""
    window: PixelWindow
    """The pixels of the part on the surface."""
    own: PlacedScene[SceneSpec]
    """The file that the part belongs to."""
    others: tuple[PlacedScene[SceneSpec], ...] = field(default=())
    """Other files that the tiles of the part touch, in order of precedence."""

    def open(self, scenes: OpenScenes) -> PartReader:
        """Open a reader of the part; files are opened when they are needed.

        Raises:
            InputError: the file is gone, or has changed since it was examined.
        """
        return PartReader(self, scenes)


class PartReader:
    """Reads a surface for one of its parts: only pixels of the part are valid.

    Pixels outside the part are read but not refined. Several threads may use it.
    """

    def __init__(self, part: SurfacePart, scenes: OpenScenes) -> None:
        self._part = part
        self._scenes = scenes
        self.spec = part.own.spec
        self.name = part.own.spec.source.name
        self.size = part.size
        with scenes.scene(self.spec) as scene:
            self.box = _box_of(scene.box, part.window.seen_from(part.own.window))

    @property
    def infinities_seen(self) -> bool:
        """Whether the part's own file held infinite values where it was read."""
        return self._scenes.infinite(self.spec)

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read a window of the surface, see `geothresh.mosaic.RasterReader.read`.

        Raises:
            InputError: a block cannot be decoded, or a value contradicts the scaling.
        """
        part = self._part
        confidence, own = _joined(window, (part.own,), self._scenes)
        valid = own
        inside = part.window.intersection(window)
        if inside != window:
            valid = np.zeros_like(own)
            if inside is not None:
                valid[inside.within(window)] = own[inside.within(window)]
        if not own.all():
            around, _ = _joined(window, part.others, self._scenes, known=own)
            np.copyto(confidence, around, where=~own)
        return confidence, valid

    def require_unchanged(self) -> None:
        """Raise InputError if a file's size or time differ from when it was first opened."""
        for placed in (self._part.own, *self._part.others):
            require_unchanged(placed.spec.source)


def _joined(
    window: PixelWindow,
    placed: Sequence[PlacedScene[OneSpec]],
    scenes: OpenScenes,
    *,
    known: BoolArray | None = None,
) -> tuple[Float32Array, BoolArray]:
    """Confidence and validity of a window; each pixel comes from the first scene with data there.

    Args:
        window: a window of the surface.
        placed: the scenes, in order of precedence.
        scenes: opens the scenes.
        known: True where nothing needs to be read.
    """
    shape = window.height, window.width
    confidence, valid = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    wanted = np.ones(shape, np.bool_) if known is None else ~known
    for raster in placed:
        common = raster.window.intersection(window)
        if common is None:
            continue
        part = common.within(window)
        if not wanted[part].any():
            continue
        with scenes.scene(raster.spec) as scene:
            values, has_data = scene.read(common.seen_from(raster.window))
        taken = has_data & wanted[part]
        np.copyto(confidence[part], values, where=taken)
        valid[part] |= taken
        wanted[part] &= ~taken
    return confidence, valid


def _box_of(whole: Georeference, window: PixelWindow) -> Georeference:
    """The georeference of a window of a raster; unchanged for the whole raster."""
    if window == whole.size.window():
        return whole
    if whole.gcps or whole.rpcs is not None:
        raise InputError(
            f"{whole.name}: is georeferenced by control points or RPCs, which a piece of it cannot "
            "carry; leave out `piece`"
        )
    moved = whole.transform
    if whole.has_transform:
        moved = whole.transform_at(window.col, window.row)
    return replace(whole, size=window.size, transform=moved)


class SurfaceReader(Generic[OneSpec]):
    """A whole surface as one raster; where files overlap, the first one with data is used."""

    def __init__(self, placement: Placement, specs: Sequence[OneSpec], scenes: OpenScenes) -> None:
        """Read files as one raster.

        Args:
            placement: the window of each file.
            specs: how each file is read, in the same order.
            scenes: the cache of open files.
        """
        self._placement = placement
        self._specs = specs
        self._scenes = scenes
        self.size = placement.size

    def around(self, window: PixelWindow) -> tuple[PlacedScene[OneSpec], ...]:
        """The files that share a pixel with a window, in order of precedence."""
        return tuple(
            PlacedScene(spec=self._specs[index], window=self._placement.window(index))
            for index in self._placement.touching(window)
        )

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read a window, see `geothresh.mosaic.RasterReader.read`; in masks, 1 is foreground.

        Raises:
            InputError: a block cannot be decoded, or a value contradicts the scaling.
        """
        return _joined(window, self.around(window), self._scenes)
