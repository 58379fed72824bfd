"""Geometries kept in a file while a layer is made, so that memory holds a few numbers of each.

They are stored as WKB, in the order in which they are finished, and read back in any other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from geothresh.errors import OutputError, number_of
from geothresh.files import create_beside, discard
from geothresh.types import Float64Array, Int64Array
from geothresh.vector.units import Geometries

# Points of the geometries that are held at once: 16 bytes each, and as much again as WKB.
_POINTS = 1 << 20
# Bytes between geometries that are read with them rather than passed over.
_GAP = 1 << 16

# Shapely's number of each kind of several parts, what makes one, and its name.
_SEVERAL = {
    5: ("MultiLineString", shapely.multilinestrings),
    6: ("MultiPolygon", shapely.multipolygons),
}


class Spill:
    """A file of geometries; see `spilling`."""

    def __init__(self, file: FileIO, beside: Path) -> None:
        self._file = file
        self._beside = beside
        self._end = 0

    def add(self, geometry: Geometries) -> StoredGeometries:
        """Store geometries behind those that are there.

        Raises:
            OutputError: the file cannot be written.
        """
        texts = shapely.to_wkb(geometry).tolist()
        sizes = np.array([len(text) for text in texts], np.int64)
        offsets = self._end + np.cumsum(sizes) - sizes
        try:
            self._file.seek(self._end)
            rest = memoryview(b"".join(texts))
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OutputError(
                f"{self._beside}: {number_of(len(texts), 'geometry', 'geometries')} cannot be kept "
                f"in a file beside it ({error.strerror}); is the disk full? nothing was left behind"
            ) from error
        self._end += int(sizes.sum())
        kinds = shapely.get_type_id(geometry)
        return StoredGeometries(
            file=self,
            offsets=offsets,
            sizes=sizes,
            points=shapely.get_num_coordinates(geometry).astype(np.int64),
            several=next((k for k in _SEVERAL if np.any(kinds == k)), None),
        )

    def read(self, offsets: Int64Array, sizes: Int64Array) -> NDArray[np.object_]:
        """(n,) WKB of geometries.

        Raises:
            OutputError: the file cannot be read.
        """
        wanted = np.empty(len(offsets), np.object_)
        order = np.argsort(offsets, kind="stable")
        starts, ends = offsets[order], (offsets + sizes)[order]
        cuts = np.flatnonzero(starts[1:] - ends[:-1] > _GAP) + 1
        for some in np.split(np.arange(len(order)), cuts) if len(order) else ():
            first = int(starts[some[0]])
            text = self._read(first, int(ends[some[-1]]) - first)
            spans = zip((starts[some] - first).tolist(), (ends[some] - first).tolist(), strict=True)
            for number, (start, end) in zip(order[some].tolist(), spans, strict=True):
                wanted[number] = text[start:end]
        return wanted

    def _read(self, start: int, size: int) -> bytes:
        parts = []
        try:
            self._file.seek(start)
            while size:
                parts.append(self._file.read(size))
                size -= len(parts[-1])
                if not parts[-1]:
                    raise OSError(errno.EIO, f"{size} bytes are missing")
        except OSError as error:
            raise OutputError(
                f"{self._beside}: geometries that were kept in a file beside it cannot be read "
                f"again ({error.strerror}); is the disk damaged?"
            ) from error
        return b"".join(parts)


@contextmanager
def spilling(beside: Path) -> Iterator[Spill]:
    """A file for geometries, which lives as long as the block.

    Args:
        beside: a path in whose directory the file is put.

    Raises:
        OutputError: the file cannot be created.
    """
    temporary = create_beside(beside)
    try:
        # Without a buffer: it would be written again, and fail again, when the file is closed.
        with temporary.open("w+b", buffering=0) as file:
            yield Spill(file, beside)
    finally:
        discard(temporary)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGeometries:
    """Geometries in a file; a slice of them, or indices, give them as an array."""

    file: Spill
    offsets: Int64Array
    """(n,) where each begins in the file."""
    sizes: Int64Array
    """(n,) bytes of each."""
    points: Int64Array
    """(n,) corners of each."""
    several: int | None = None
    """Shapely's number of the kind of several parts that is among them, if any."""
    promoted: bool = False
    """Whether all are read as of that kind."""

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, some: slice | Int64Array) -> Geometries:
        found: Geometries = shapely.from_wkb(self._stored(some))
        return in_parts(found, self.several) if self.promoted and self.several else found

    def _stored(self, some: slice | Int64Array) -> NDArray[np.object_]:
        return self.file.read(self.offsets[some], self.sizes[some])

    def wkb(self, some: slice | Int64Array) -> NDArray[np.object_]:
        """Some of them as WKB."""
        if self.promoted:
            return np.asarray(shapely.to_wkb(self[some]), object)
        return self._stored(some)

    def taken(self, order: Int64Array) -> StoredGeometries:
        """Some of them, or the same in another order."""
        return replace(
            self, offsets=self.offsets[order], sizes=self.sizes[order], points=self.points[order]
        )


Shapes: TypeAlias = Geometries | StoredGeometries
"""Geometries in memory or in a file."""


def joined(parts: Sequence[Shapes]) -> Shapes:
    """Geometries one after another: one part or more, all in memory or all in one file."""
    stored = [one for one in parts if isinstance(one, StoredGeometries)]
    if not stored:
        return np.concatenate([one for one in parts if isinstance(one, np.ndarray)])
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in stored])
        for name in ("offsets", "sizes", "points")
    }
    several = next((one.several for one in stored if one.several), None)
    return StoredGeometries(file=stored[0].file, several=several, **arrays)


def in_parts(geometry: Geometries, number: int) -> Geometries:
    """Geometries as of a kind of several parts, by shapely's number."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    return np.asarray(_SEVERAL[number][1](parts, indices=owner), object)


def of_one_type(shapes: Shapes, kind: str) -> tuple[str, Shapes]:
    """Geometries of one type, and its name: `kind`, or where one has several parts, all have."""
    if isinstance(shapes, StoredGeometries):
        if shapes.several is None:
            return kind, shapes
        return _SEVERAL[shapes.several][0], replace(shapes, promoted=True)
    kinds = shapely.get_type_id(shapes)
    for number, (name, _) in _SEVERAL.items():
        if np.any(kinds == number):
            return name, in_parts(shapes, number)
    return kind, shapes


def changed(shapes: Shapes, change: Callable[[Geometries], Geometries]) -> Shapes:
    """What a function makes of geometries; of those in a file, some at a time, in the same file."""
    if isinstance(shapes, StoredGeometries):
        return joined([shapes.file.add(change(shapes[part])) for part in parts_of(shapes)])
    return change(shapes)


def wkb_of(shapes: Shapes, some: slice | Int64Array) -> NDArray[np.object_]:
    """Some geometries as WKB."""
    if isinstance(shapes, StoredGeometries):
        return shapes.wkb(some)
    return np.asarray(shapely.to_wkb(shapes[some]), object)


def taken(shapes: Shapes, order: Int64Array) -> Shapes:
    """Some geometries, or the same in another order."""
    return shapes.taken(order) if isinstance(shapes, StoredGeometries) else shapes[order]


def parts_of(shapes: Shapes) -> list[slice]:
    """Slices that together are all geometries, each of about a million points; at least one."""
    if isinstance(shapes, StoredGeometries):
        points = np.cumsum(shapes.points)
    else:
        points = np.cumsum(shapely.get_num_coordinates(shapes))
    cuts = np.searchsorted(points, np.arange(_POINTS, points[-1] if len(points) else 0, _POINTS))
    bounds = np.unique(np.concatenate([[0], cuts, [len(shapes)]]))
    if len(bounds) == 1:
        return [slice(0, 0)]
    return [slice(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def bounds_of(shapes: Shapes) -> Float64Array:
    """(n, 4) left, bottom, right and top of each."""
    parts = [shapely.bounds(shapes[part]).reshape(-1, 4) for part in parts_of(shapes)]
    return np.concatenate(parts)
