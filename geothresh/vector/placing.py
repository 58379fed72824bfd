"""Transform vectors to the pixel coordinates of a raster: reproject, buffer, and cut into pieces.

Pixel coordinates are x = column and y = row, with integers at the corners of pixels, so that no
georeference is needed to rasterize them.
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

# Shapely's number of polygons.
_POLYGON = 3
# Most corners of a piece. Without a limit, a road network in one polygon would be clipped as a
# whole for each window.
_MOST_CORNERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """Widths of lines and points, by which they are buffered to polygons."""

    buffer: float | None = None
    """Distance to each side, in metres, above 0."""
    field: str | None = None
    """Attribute with the full width in metres. Features whose value is missing or not above 0 have
    the width of `buffer`."""

    def __post_init__(self) -> None:
        if self.buffer is not None and not 0 < self.buffer < np.inf:
            raise UsageError(f"buffer {self.buffer:g}: give a distance above 0 in metres")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedShapes:
    """Polygons in the pixel coordinates of a raster, cut into pieces, with a spatial index."""

    pieces: Geometries
    """(n,) Polygons in pixel coordinates with a limited number of corners; a feature may be in
    several pieces."""
    tree: shapely.STRtree
    """Spatial index of the pieces."""
    n_features: int
    """Number of features of the layer that touch the raster; after `from_wkb`, of pieces."""

    @classmethod
    def of(cls, pieces: Geometries, *, n_features: int) -> PlacedShapes:
        """Build the spatial index of pieces."""
        return cls(pieces=pieces, tree=shapely.STRtree(pieces), n_features=n_features)

    @classmethod
    def from_wkb(cls, pieces: Sequence[bytes]) -> PlacedShapes:
        """Make it from the WKB of `to_wkb`; each piece counts as a feature."""
        return cls.of(np.asarray(shapely.from_wkb(list(pieces)), object), n_features=len(pieces))

    def to_wkb(self) -> tuple[bytes, ...]:
        """The pieces as WKB, to send them to other processes."""
        return tuple(shapely.to_wkb(self.pieces).tolist())

    def touching(self, window: PixelWindow) -> Geometries:
        """The pieces that touch a window, clipped to it and one pixel around it.

        Returns:
            (k,) Polygons in pixel coordinates of the raster; k may be 0.
        """
        box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        # The order is that of the layer, so that the result is the same in every process.
        found: Geometries = self.pieces[np.sort(self.tree.query(box))]
        left, top = window.col - 1, window.row - 1
        right, bottom = window.col_stop + 1, window.row_stop + 1
        # The time to rasterize grows with the corners, most of which lie outside of the window.
        return _polygons(np.asarray(shapely.clip_by_rect(found, left, top, right, bottom), object))


def rectangle(raster: GeoBox, bounds: Bounds) -> PlacedShapes | None:
    """Transform bounds from the CRS of a raster to its pixel coordinates, clipped to the raster.

    Args:
        raster: georeference of the raster.
        bounds: left, bottom, right, top in its CRS.

    Returns:
        The bounds as a polygon; None if they contain no part of the raster.
    """
    left, bottom, right, top = bounds
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    shape = np.array([shapely.Polygon(raster.to_pixels(corners))], object)
    box = shapely.box(0, 0, raster.size.width, raster.size.height)
    # Bounds that only touch the edge of the raster contain no pixel: they give a line or a point.
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
    """Transform the features of a layer that touch a raster to its pixel coordinates.

    Args:
        layer: the layer, from `find_layer`. If it has another CRS, it is reprojected, with a
            warning.
        raster: georeference of the raster.
        width: widths of lines and points; None = only polygons are accepted.
        what: what the features are, for messages: "labels", "area of interest".
        required: whether it is an error if no feature touches the raster.

    Raises:
        InputError: the layer cannot be read, or only one of layer and raster has a CRS; or
            coordinates cannot be transformed, or no feature touches the raster.
        UsageError: a line or point has no width, or the attribute with the widths does not exist or
            holds other values than numbers.
    """
    frames = Frames.of(layer, raster, what)
    distances = None
    reach = (width.buffer if width else None) or 0.0
    if width is not None and width.field is not None:
        widths = read_numbers(layer, width.field)
        reach = max(reach, float(np.nanmax(widths, initial=0.0)) / 2)
    columns = [width.field] if width is not None and width.field is not None else []
    boxes = frames.search_boxes(raster, reach)
    geometry, values = read_geometries(layer, within=boxes, columns=columns)
    geometry = frames.cut(geometry, boxes)
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
    """Split Multi geometries and collections into points, lines and polygons.

    Returns:
        (k,) geometries, and (k,) index of the feature that each of them is a part of.
    """
    owner = np.arange(len(geometry))
    # A collection may contain collections or Multi geometries; formats have no deeper levels.
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
    """Cut polygons into pieces of at most `_MOST_CORNERS` corners.

    Cuts are along pixel edges, so that no centre of a pixel lies on a cut. Pieces with sides of at
    most 2 pixels may have more corners.
    """
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
    """The polygons among the parts of geometries; repairs and clips may give other parts too."""
    parts, _ = _parts(shapes)
    wanted = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    found: Geometries = parts[wanted]
    return found


def _nowhere(layer: VectorLayer, raster: GeoBox, what: str) -> str:
    left, bottom, right, top = raster.bounds()
    count = f"{layer.n_features} features" if layer.n_features >= 0 else "features"
    # The bounding box that was read never finds features without a geometry.
    if not len(read_geometries(layer)[0]):
        return f"{layer}: none of its {count} has a geometry; give the {what} as shapes"
    return (
        f"{layer}: none of its {count} touches {raster.name}, which lies at x {left:.9g} to "
        f"{right:.9g}, y {bottom:.9g} to {top:.9g} of its CRS; give the {what} of this place"
    )
