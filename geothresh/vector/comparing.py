"""Score lines against true lines: relaxed completeness and correctness, quality, and connection.

Completeness is the share of the true length that lies within a buffer around the lines. Correctness
is the share of the lines' length that lies within a buffer around the true lines. Quality is the
correct length over the sum of correct, false and missed length. All three follow Wiedemann, Heipke,
Mayer and Jamet, *Empirical evaluation of automatically extracted road axes*, 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import Transformer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geothresh.errors import InputError, warn
from geothresh.types import Float64Array
from geothresh.vector.frames import CHORDS, measuring
from geothresh.vector.reading import VectorLayer, read_geometries
from geothresh.vector.reprojection import reprojected, rough_metres
from geothresh.vector.units import Geometries

# Longest edge that is reprojected by its two ends alone, in metres.
_EDGE = 500.0
# Shapely's numbers of the types of lines.
_LINE, _MULTILINE = 1, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LineScores:
    """Lengths in one unit, the scores computed from them, and connected components."""

    length: float
    """Length of the lines."""
    true_length: float
    """Length of the true lines."""
    right: float
    """Length of the lines within the buffer around the true lines."""
    found: float
    """Length of the true lines within the buffer around the lines."""
    components: int
    """Number of connected components, which are groups of lines that touch each other."""
    largest: float
    """Length of the longest component."""

    @property
    def completeness(self) -> float:
        """Share of the true length that was found; 1 if there are no true lines."""
        return self.found / self.true_length if self.true_length else 1.0

    @property
    def correctness(self) -> float:
        """Share of the lines' length that is correct; 1 if there are no lines."""
        return self.right / self.length if self.length else 1.0

    @property
    def quality(self) -> float:
        """Correct length over the sum of correct, false and missed length; 1 if all are 0."""
        everything = self.length + self.true_length - self.found
        return self.right / everything if everything else 1.0

    @property
    def largest_share(self) -> float:
        """Share of the lines' length in the longest component; 0 if there are no lines."""
        return self.largest / self.length if self.length else 0.0


def read_in_metres(lines: VectorLayer, truth: VectorLayer) -> tuple[Geometries, Geometries]:
    """Read the lines of two layers, and transform them to one plane, in metres.

    If neither layer has a CRS, coordinates are taken as they are, with a warning.

    Args:
        lines: the layer of the lines.
        truth: the layer of the true lines.

    Returns:
        (n,) lines and (m,) true lines, LineStrings and MultiLineStrings.

    Raises:
        InputError: a layer cannot be read or holds other geometries than lines, only one of them
            has a CRS, or a point cannot be transformed.
    """
    ours, true = (_read_lines(layer) for layer in (lines, truth))
    if (lines.crs is None) != (truth.crs is None):
        without, other = (lines, truth) if lines.crs is None else (truth, lines)
        raise InputError(
            f"{without}: has no CRS, so it cannot be compared with {other}, which has one; assign "
            "it with ogr2ogr -a_srs"
        )
    if lines.crs is None or truth.crs is None:
        warn(f"neither {lines} nor {truth} has a CRS: lengths are in the unit of their coordinates")
        return ours, true
    somewhere = next((part for part in (ours, true) if len(part)), None)
    if somewhere is None:
        return ours, true
    crs, layer = (lines.crs, lines) if somewhere is ours else (truth.crs, truth)
    left, bottom, right, top = (float(side) for side in shapely.total_bounds(somewhere))
    metric, unit = measuring(crs, (left, bottom, right, top), str(layer))
    plane = metric or crs
    placed = []
    for part, own in ((ours, lines.crs), (true, truth.crs)):
        same = own.equals(plane, ignore_axis_order=True)
        transformer = Transformer.from_crs(own, plane, always_xy=True)
        moved = part if same else reprojected(part, transformer)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise InputError(
                f"a corner of {lines} or {truth} has no place in metres; the CRS of one of them is "
                "not that of its coordinates: set it with ogr2ogr -a_srs"
            )
        if not same:
            # A straight edge in one CRS is a curve in the other.
            dense = shapely.segmentize(part, _EDGE / rough_metres(own))
            moved = reprojected(dense, transformer)
        placed.append(moved if unit == 1 else shapely.transform(moved, lambda xy: xy * unit))
    return placed[0], placed[1]


def _read_lines(layer: VectorLayer) -> Geometries:
    geometry, _ = read_geometries(layer)
    kinds = shapely.get_type_id(geometry)
    others = geometry[~np.isin(kinds, (_LINE, _MULTILINE))]
    if len(others):
        raise InputError(
            f"{layer}: holds a {others[0].geom_type}, and lines are compared; geothresh vectorize "
            "`kind=centerlines` makes them of a mask"
        )
    return geometry


def compare_lines(lines: Geometries, truth: Geometries, *, buffer: float) -> LineScores:
    """Compare lines with true lines.

    Args:
        lines: (n,) LineStrings and MultiLineStrings, in a plane in which lengths are true.
        truth: (m,) true lines in the same plane.
        buffer: width of the buffer to each side, in the unit of that plane.
    """
    lengths = shapely.length(lines)
    components, largest = _groups(lines, lengths)
    return LineScores(
        length=float(lengths.sum()),
        true_length=float(shapely.length(truth).sum()),
        right=_within(lines, truth, buffer),
        found=_within(truth, lines, buffer),
        components=components,
        largest=largest,
    )


def _within(lines: Geometries, others: Geometries, buffer: float) -> float:
    """Length of the lines within the buffer around the others."""
    if not len(lines) or not len(others):
        return 0.0
    tree = shapely.STRtree(others)
    total = 0.0
    # Lines are taken one by one, as a buffer around all roads of a country needs too much memory.
    for line in lines:
        near = others[tree.query(line, predicate="dwithin", distance=buffer)]
        if len(near):
            around = shapely.union_all(shapely.buffer(near, buffer, quad_segs=CHORDS))
            total += float(shapely.length(shapely.intersection(line, around)))
    return total


def _groups(lines: Geometries, lengths: Float64Array) -> tuple[int, float]:
    """Number of connected components of lines, and the length of the longest component."""
    n = len(lines)
    if not n:
        return 0, 0.0
    one, other = shapely.STRtree(lines).query(lines, predicate="intersects")
    table = coo_array((np.ones(one.size, np.bool_), (one, other)), shape=(n, n))
    count, group = connected_components(table, directed=False)
    return int(count), float(np.bincount(group, weights=lengths, minlength=count).max())
