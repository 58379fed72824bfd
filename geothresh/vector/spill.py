"""Store geometries in a temporary file, so that memory holds only a few numbers of each.

They are stored as WKB, in the order in which they are made, and read back in any order.
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

# Points of the geometries that are in memory at a time: 16 bytes each, and as much again as WKB.
_POINTS = 1 << 20
# Gaps of at most so many bytes between geometries are read with them, as one long read is faster.
_GAP = 1 << 16

# By shapely's number of a Multi type: its name, and the function that makes such geometries.
_SEVERAL = {
    5: ("MultiLineString", shapely.multilinestrings),
    6: ("MultiPolygon", shapely.multipolygons),
}


class Spill:
    """A temporary file of geometries; see `spilling`."""

    def __init__(self, file: FileIO, beside: Path) -> None:
        self._file = file
        self._beside = beside
        self._end = 0

    def add(self, geometry: Geometries) -> StoredGeometries:
        """Append geometries to the file.

        Args:
            geometry: (n,) geometries.

        Returns:
            The places of these geometries in the file.

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
        """Read the WKB of geometries.

        Args:
            offsets: (n,) where each begins in the file, in any order.
            sizes: (n,) bytes of each.

        Returns:
            (n,) WKB.

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
    """A temporary file for geometries, which exists during the block.

    Args:
        beside: a path; the file is created in its directory.

    Raises:
        OutputError: the file cannot be created.
    """
    temporary = create_beside(beside)
    try:
        # There is no buffer: after a failed write it would be written again when the file is
        # closed, and fail again.
        with temporary.open("w+b", buffering=0) as file:
            yield Spill(file, beside)
    finally:
        discard(temporary)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGeometries:
    """Geometries in a file; indexing by a slice or an array of indices reads them."""

    file: Spill
    """The file."""
    offsets: Int64Array
    """(n,) where each geometry begins in the file, in bytes."""
    sizes: Int64Array
    """(n,) bytes of each geometry."""
    points: Int64Array
    """(n,) number of points of each geometry."""
    several: int | None = None
    """Shapely's number of the Multi type among the geometries; None if there is none."""
    promoted: bool = False
    """Whether all geometries are read as that Multi type."""

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, some: slice | Int64Array) -> Geometries:
        found: Geometries = shapely.from_wkb(self._stored(some))
        return in_parts(found, self.several) if self.promoted and self.several else found

    def _stored(self, some: slice | Int64Array) -> NDArray[np.object_]:
        return self.file.read(self.offsets[some], self.sizes[some])

    def wkb(self, some: slice | Int64Array) -> NDArray[np.object_]:
        """Read the WKB of some of the geometries."""
        if self.promoted:
            return np.asarray(shapely.to_wkb(self[some]), object)
        return self._stored(some)

    def taken(self, order: Int64Array) -> StoredGeometries:
        """Select or reorder the geometries by indices, without reading them."""
        return replace(
            self, offsets=self.offsets[order], sizes=self.sizes[order], points=self.points[order]
        )


Shapes: TypeAlias = Geometries | StoredGeometries
"""Geometries in memory or in a file."""


def joined(parts: Sequence[Shapes]) -> Shapes:
    """Concatenate geometries: one part or more, all in memory or all in one file."""
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
    """Convert (n,) geometries to a Multi type, given by shapely's number of it."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    return np.asarray(_SEVERAL[number][1](parts, indices=owner), object)


def of_one_type(shapes: Shapes, kind: str) -> tuple[str, Shapes]:
    """Give all geometries of a layer one type: if any is of a Multi type, all are converted to it.

    Args:
        shapes: (n,) geometries.
        kind: name of their type without Multi.

    Returns:
        The name of the type, and the (n,) geometries.
    """
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
    """Apply a function to geometries.

    Geometries in a file are taken part by part, and the results are stored in the same file.

    Raises:
        OutputError: the file cannot be written or read.
    """
    if isinstance(shapes, StoredGeometries):
        return joined([shapes.file.add(change(shapes[part])) for part in parts_of(shapes)])
    return change(shapes)


def wkb_of(shapes: Shapes, some: slice | Int64Array) -> NDArray[np.object_]:
    """WKB of some of the geometries."""
    if isinstance(shapes, StoredGeometries):
        return shapes.wkb(some)
    return np.asarray(shapely.to_wkb(shapes[some]), object)


def taken(shapes: Shapes, order: Int64Array) -> Shapes:
    """Select or reorder geometries by indices."""
    return shapes.taken(order) if isinstance(shapes, StoredGeometries) else shapes[order]


def parts_of(shapes: Shapes) -> list[slice]:
    """Slices that together cover all geometries, each of about a million points; at least one."""
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
    """(n, 4) left, bottom, right and top of each geometry."""
    parts = [shapely.bounds(shapes[part]).reshape(-1, 4) for part in parts_of(shapes)]
    return np.concatenate(parts)
