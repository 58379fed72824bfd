"""Bring vectors into the pixel coordinates of a raster: reproject, buffer, cut into small pieces.

Pixel coordinates are x = column and y = row, with whole numbers on the outer corners of pixels, so
that rasterizing them needs no georeference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geothresh.errors import InputError, UsageError, number_of, warn
from geothresh.geobox import GeoBox
from geothresh.options import Bounds
from geothresh.vector.frames import Frames
from geothresh.vector.reading import VectorLayer, as_numbers, read_geometries, read_numbers
from geothresh.vector.units import Geometries
from geothresh.windows import PixelWindow

_POLYGON = 3
# Corners of a piece: else a road network in one polygon would be clipped for every window.
_MOST_CORNERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """How wide lines and points are, in metres."""

    buffer: float | None = None
    """Distance to each side."""
    field: str | None = None
    """Attribute with the full width; `buffer` is used where it holds no number above 0."""

    def __post_init__(self) -> None:
        if self.buffer is not None and not 0 < self.buffer < np.inf:
            raise UsageError(f"buffer {self.buffer:g}: give a distance above 0 in metres")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedShapes:
    """Areas over the pixels of one raster."""

    pieces: Geometries
    """(n,) polygons in pixels, none of many corners; a feature may be in several."""
    tree: shapely.STRtree
    """Of the pieces."""
    n_features: int
    """Features of the layer that touch the raster."""

    @classmethod
    def of(cls, pieces: Geometries, *, n_features: int) -> PlacedShapes:
        """With the tree that finds them."""
        return cls(pieces=pieces, tree=shapely.STRtree(pieces), n_features=n_features)

    @classmethod
    def from_wkb(cls, pieces: Sequence[bytes]) -> PlacedShapes:
        """From what `to_wkb` gave."""
        return cls.of(np.asarray(shapely.from_wkb(list(pieces)), object), n_features=len(pieces))

    def to_wkb(self) -> tuple[bytes, ...]:
        """The pieces, small enough to be sent about."""
        return tuple(shapely.to_wkb(self.pieces).tolist())

    def touching(self, window: PixelWindow) -> Geometries:
        """The pieces, clipped to a window and a pixel around it."""
        box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        # In the order of the layer, so that the result is the same in every process.
        found: Geometries = self.pieces[np.sort(self.tree.query(box))]
        left, top = window.col - 1, window.row - 1
        right, bottom = window.col_stop + 1, window.row_stop + 1
        # The time to rasterize grows with the corners, most of which lie outside.
        return _polygons(np.asarray(shapely.clip_by_rect(found, left, top, right, bottom), object))


def rectangle(raster: GeoBox, bounds: Bounds) -> PlacedShapes | None:
    """Bounds in the CRS of a raster, in its pixels; None where they miss it."""
    left, bottom, right, top = bounds
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    shape = np.array([shapely.Polygon(raster.to_pixels(corners))], object)
    box = shapely.box(0, 0, raster.size.width, raster.size.height)
    # What only touches the edge holds no pixel.
    pieces = _polygons(np.asarray(shapely.intersection(shape, box), object))
    return PlacedShapes.of(pieces, n_features=1) if len(pieces) else None


def place(
    layer: VectorLayer,
    raster: GeoBox,
    *,
    width: Width | None,
    what: str,
    required: bool = True,
) -> PlacedShapes:
    """Bring the features of a layer that touch a raster into its pixel coordinates.

    Args:
        layer: from `find_layer`; reprojected, with a warning, if it is in another CRS.
        raster: the raster.
        width: of lines and points; None = only polygons are accepted.
        what: what the features are, for messages: "labels", "area of interest".
        required: whether it is an error if none touches the raster.

    Raises:
        InputError: one side has no CRS, or nothing of the layer touches the raster.
        UsageError: lines and points have no width.
    """
    frames = Frames.of(layer, raster, what)
    distances = None
    reach = (width.buffer if width else None) or 0.0
    if width is not None and width.field is not None:
        widths = read_numbers(layer, width.field)
        reach = max(reach, float(np.nanmax(widths, initial=0.0)) / 2)
    columns = [width.field] if width is not None and width.field is not None else []
    geometry, values = read_geometries(
        layer, bounds=frames.search_box(raster, reach), columns=columns
    )
    if columns and width is not None:
        numbers = as_numbers(layer, columns[0], values[0])
        distances = np.where(numbers > 0, numbers / 2, width.buffer or np.nan)
    elif width is not None and width.buffer is not None:
        distances = np.full(len(geometry), width.buffer)

    parts, owner = _parts(geometry)
    flat = shapely.get_type_id(parts) == _POLYGON
    if not flat.all():
        _require_widths(layer, distances, width, parts[~flat], owner[~flat], what)
    elif width is not None and width.buffer is not None and len(parts):
        warn(f"{layer}: holds polygons, which are taken as they are, without the buffer")
    areas = parts.copy()
    areas[flat] = frames.to_raster(parts[flat])
    if distances is not None:
        areas[~flat] = frames.buffered(parts[~flat], distances[owner[~flat]])
    areas = _in_pixels(layer, areas, raster)
    box = shapely.box(0, 0, raster.size.width, raster.size.height)
    meets = shapely.intersects(areas, box)
    if required and not meets.any():
        raise InputError(_nowhere(layer, raster, what))
    pieces = _subdivided(_polygons(areas[meets]))
    return PlacedShapes.of(pieces, n_features=len(np.unique(owner[meets])))


def _parts(geometry: Geometries) -> tuple[Geometries, NDArray[np.int64]]:
    """Points, lines and polygons, and the number of the feature that each comes from."""
    owner = np.arange(len(geometry))
    # A collection may hold collections; two levels are as deep as formats go.
    for _ in range(2):
        geometry, index = shapely.get_parts(geometry, return_index=True)
        owner = owner[index]
    return np.asarray(geometry, object), owner


def _require_widths(
    layer: VectorLayer,
    distances: NDArray[np.float64] | None,
    width: Width | None,
    thin: Geometries,
    owner: NDArray[np.int64],
    what: str,
) -> None:
    """Raise UsageError unless every line and point has a width."""
    found = number_of(len(thin), "line or point", "lines or points")
    if width is None:
        raise UsageError(f"{layer}: the {what} must be polygons, and there are others: {found}")
    if distances is None:
        raise UsageError(
            f"{layer}: {found}, which have no width; give `buffer=METRES` to "
            "each side, or `width_field` with an attribute that holds the full width in metres"
        )
    lacking = np.unique(owner[~np.isfinite(distances[owner])])
    if len(lacking):
        raise UsageError(
            f"{layer}: {len(lacking)} of {len(np.unique(owner))} lines or points have no width "
            f"above 0 in {width.field!r}; add `buffer=METRES` for those"
        )


def _in_pixels(layer: VectorLayer, areas: Geometries, raster: GeoBox) -> Geometries:
    coordinates = shapely.get_coordinates(areas)
    if not np.isfinite(coordinates).all():
        raise InputError(
            f"{layer}: some coordinates have no place in the CRS of {raster.name}; cut the layer "
            "to the surroundings of the raster"
        )
    pixels = np.asarray(shapely.transform(areas, raster.to_pixels), object)
    broken = ~shapely.is_valid(pixels)
    if broken.any():
        pixels[broken] = shapely.make_valid(pixels[broken])
    return pixels


def _subdivided(areas: Geometries) -> Geometries:
    """Cut along pixel edges, which pass no pixel's centre, until no piece has many corners."""
    done: list[Any] = []
    todo = list(areas)
    while todo:
        shapes = np.array(todo, object)
        large = shapely.get_num_coordinates(shapes) > _MOST_CORNERS
        bounds = shapely.bounds(shapes)
        sides = np.stack([bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]], axis=1)
        large &= sides.max(axis=1) > 2
        done += list(shapes[~large])
        todo = []
        for shape, (left, top, right, bottom), (wide, high) in zip(
            shapes[large], bounds[large], sides[large], strict=True
        ):
            if wide >= high:
                middle = float(np.round((left + right) / 2))
                halves = (left, top, middle, bottom), (middle, top, right, bottom)
            else:
                middle = float(np.round((top + bottom) / 2))
                halves = (left, top, right, middle), (left, middle, right, bottom)
            pieces = np.array([shapely.clip_by_rect(shape, *half) for half in halves], object)
            todo += list(_polygons(pieces))
    return np.array(done, object)


def _polygons(shapes: Geometries) -> Geometries:
    """The polygons among the parts: repairing or clipping may also give lines and points."""
    parts, _ = _parts(shapes)
    wanted = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    found: Geometries = parts[wanted]
    return found


def _nowhere(layer: VectorLayer, raster: GeoBox, what: str) -> str:
    left, bottom, right, top = raster.bounds()
    count = f"{layer.n_features} features" if layer.n_features >= 0 else "features"
    # Features without a geometry are found by no bounding box.
    if not len(read_geometries(layer)[0]):
        return f"{layer}: none of its {count} has a geometry; give the {what} as shapes"
    return (
        f"{layer}: none of its {count} touches {raster.name}, which lies at x {left:.9g} to "
        f"{right:.9g}, y {bottom:.9g} to {top:.9g} of its CRS; give the {what} of this place"
    )
