"""Transform vectors from the CRS of a layer to that of a raster, and buffer them in metres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Proj, Transformer
from pyproj.exceptions import CRSError, ProjError

from geothresh.errors import InputError, warn
from geothresh.geobox import GeoBox
from geothresh.options import Bounds
from geothresh.vector.reading import VectorLayer
from geothresh.vector.reprojection import reprojected, short_name, turn_of
from geothresh.vector.units import Geometries

# Largest relative error of lengths with which a map projection is used to measure them.
_TRUE_LENGTHS = 0.01
# Points that are added to a geometry before it is reprojected, at most.
_MOST_POINTS = 1 << 16
#: Chords in a quarter of the circles at the ends of lines: 8 are off by half a percent of the
#: radius.
CHORDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """The CRS of a layer, the CRS of a raster, and a CRS to measure metres near the raster."""

    to_scene: Transformer | None
    """Transforms from the layer's CRS to the raster's; None if they are the same."""
    metric: CRS | None
    """A CRS in metres in which lengths are true; None = the raster's own CRS."""
    layer_crs: CRS | None
    """The layer's CRS; None if neither the layer nor the raster has one."""
    scene_crs: CRS | None
    """The raster's CRS; None if neither the layer nor the raster has one."""
    unit: float
    """Size of one unit of the raster's CRS in metres, if `metric` is None."""
    longest_edge: float
    """Longest edge, in units of the layer's CRS, that is reprojected by its two ends alone."""

    @classmethod
    def of(cls, layer: VectorLayer, raster: GeoBox, what: str) -> Frames:
        """Compare the CRS of a layer with that of a raster.

        Warns if they differ, so that the layer will be reprojected, or if neither has a CRS.

        Args:
            layer: the layer.
            raster: georeference of the raster.
            what: what the layer holds, for messages: "labels".

        Raises:
            InputError: only one of them has a CRS, the raster's CRS cannot be read or is not
                defined at the raster, or the raster's extent cannot be transformed.
        """
        scene_crs = None if raster.crs is None else _parsed(raster)
        if (layer.crs is None) != (scene_crs is None):
            without, with_crs = (
                (layer, raster.name) if layer.crs is None else (raster.name, str(layer))
            )
            raise InputError(
                f"{without}: has no CRS, so the {what} cannot be laid over {with_crs}, which has "
                "one; assign it with ogr2ogr -a_srs or gdal_edit -a_srs"
            )
        if layer.crs is None or scene_crs is None:
            warn(
                f"{layer}: neither it nor {raster.name} has a CRS: coordinates are taken as they "
                "are, and widths are in their unit"
            )
            return cls(
                to_scene=None,
                metric=None,
                layer_crs=None,
                scene_crs=None,
                unit=1.0,
                longest_edge=np.inf,
            )
        metric, unit = measuring(scene_crs, raster.bounds(), raster.name)
        same = layer.crs.equals(scene_crs, ignore_axis_order=True)
        longest_edge = np.inf
        if not same:
            warn(
                f"{layer}: in {short_name(layer.crs)}, so the {what} will be reprojected to "
                f"{short_name(scene_crs)}, the CRS of {raster.name}"
            )
            back = Transformer.from_crs(scene_crs, layer.crs, always_xy=True)
            found = back.transform_bounds(*raster.bounds(), densify_pts=21)
            left, bottom, right, top = _unwrapped(_finite(found, raster), layer.crs)[0]
            longest_edge = max(right - left, top - bottom) / 256
        return cls(
            to_scene=None if same else Transformer.from_crs(layer.crs, scene_crs, always_xy=True),
            metric=metric,
            layer_crs=layer.crs,
            scene_crs=scene_crs,
            unit=unit,
            longest_edge=longest_edge,
        )

    def search_boxes(self, raster: GeoBox, reach: float) -> list[Bounds]:
        """Bounds of the raster's extent and `reach` metres around it, in the layer's CRS.

        The features of the layer within one of them are read. There are two if the extent crosses
        the 180th meridian and the layer is in longitude and latitude.

        Raises:
            InputError: the extent cannot be transformed to the layer's CRS.
        """
        if self.metric is not None and self.scene_crs is not None:
            # The margin is added in the metric CRS, as the length of a unit varies in the raster's.
            there = Transformer.from_crs(self.scene_crs, self.metric, always_xy=True)
            back = Transformer.from_crs(self.metric, self.scene_crs, always_xy=True)
            left, bottom, right, top = there.transform_bounds(*raster.bounds(), densify_pts=21)
            margin = reach * 1.1
            bounds = left - margin, bottom - margin, right + margin, top + margin
            left, bottom, right, top = back.transform_bounds(*bounds, densify_pts=21)
        else:
            left, bottom, right, top = raster.bounds(reach / self.unit * 1.1)
        found = left, bottom, right, top
        if self.to_scene is not None:
            inverse = Transformer.from_crs(self.scene_crs, self.layer_crs, always_xy=True)
            found = _finite(inverse.transform_bounds(*found, densify_pts=21), raster)
        return _unwrapped(found, self.layer_crs)

    def cut(self, shapes: Geometries, boxes: Sequence[Bounds]) -> Geometries:
        """Cut very long geometries around the bounds of `search_boxes`, in the layer's CRS.

        So an outline of the world does not get a point every metre of a small raster.
        """
        # The length of coordinates that are no places may overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            long = np.flatnonzero(~(shapely.length(shapes) <= _MOST_POINTS * self.longest_edge))
        if not len(long):
            return shapes
        parts = []
        for left, bottom, right, top in boxes:
            # Edges of the cut lie well beside the raster.
            x, y = right - left, top - bottom
            box = left - x, bottom - y, right + x, top + y
            parts.append(shapely.clip_by_rect(shapes[long], *box))
        cut = shapes.copy()
        cut[long] = shapely.geometrycollections(np.stack(parts, axis=1))
        return cut

    def to_raster(self, shapes: Geometries) -> Geometries:
        """Transform geometries from the layer's CRS to the raster's."""
        return shapes if self.to_scene is None else self._moved(shapes, self.to_scene)

    def buffered(self, shapes: Geometries, metres: NDArray[np.float64]) -> Geometries:
        """Buffer geometries by (n,) metres to each side, and transform them to the raster's CRS."""
        if self.metric is None:
            wide = shapely.buffer(self.to_raster(shapes), metres / self.unit, quad_segs=CHORDS)
            return np.asarray(wide, object)
        there = Transformer.from_crs(self.layer_crs, self.metric, always_xy=True)
        back = Transformer.from_crs(self.metric, self.scene_crs, always_xy=True)
        wide = shapely.buffer(self._moved(shapes, there), metres, quad_segs=CHORDS)
        return reprojected(np.asarray(wide, object), back)

    def _moved(self, shapes: Geometries, transformer: Transformer) -> Geometries:
        if np.isfinite(self.longest_edge):
            # A straight edge in one CRS is a curve in the other.
            shapes = shapely.segmentize(shapes, self.longest_edge)
        return reprojected(shapes, transformer)


def measuring(crs: CRS, bounds: Bounds, name: str) -> tuple[CRS | None, float]:
    """Find a CRS in which lengths are true near a place.

    This is the CRS of the place, if it is projected and its lengths are true to one percent there.
    Otherwise it is an azimuthal equidistant projection, centred at the place.

    Args:
        crs: CRS of the place.
        bounds: left, bottom, right, top of the place in that CRS.
        name: name of the place in messages.

    Returns:
        The azimuthal equidistant CRS, or None = `crs` itself; and the size of its unit in metres.

    Raises:
        InputError: the CRS is not defined at the place, or has no ellipsoid.
    """
    left, bottom, right, top = bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    geodetic = crs.geodetic_crs
    if geodetic is None:
        raise InputError(f"{name}: its CRS {short_name(crs)} is tied to no ellipsoid")
    # Longitude and latitude are converted to degrees, as the geodetic CRS may be in grads.
    degrees = math.degrees(geodetic.axis_info[0].unit_conversion_factor)
    try:
        place = Transformer.from_crs(crs, geodetic, always_xy=True).transform(x, y)
        lon, lat = (angle * degrees for angle in place)
    except ProjError as error:
        raise InputError(
            f"{name}: its centre lies where its CRS {short_name(crs)} is not defined ({error})"
        ) from error
    # Coordinates in metres in a file that names a CRS of degrees are not changed by the
    # transformation, and so are far outside the range of degrees.
    if not (np.isfinite(lon) and abs(lat) <= 90):
        raise InputError(
            f"{name}: its centre ({x:g}, {y:g}) lies where its CRS {short_name(crs)} is not "
            "defined; set its georeference anew"
        )
    factors = {axis.unit_conversion_factor for axis in crs.axis_info[:2]}
    if crs.is_projected and len(factors) == 1 and _lengths_are_true(crs, lon, lat):
        return None, factors.pop()
    local = {"proj": "aeqd", "lon_0": lon, "lat_0": lat, "units": "m", "type": "crs"}
    ellipsoid, meridian = crs.ellipsoid, crs.prime_meridian
    if ellipsoid is not None:
        local |= {"a": ellipsoid.semi_major_metre, "b": ellipsoid.semi_minor_metre}
    if meridian is not None:
        local["pm"] = math.degrees(meridian.longitude * float(meridian.unit_conversion_factor))
    # It has the same ellipsoid, so that only the projection differs.
    metric = CRS.from_dict(local)
    return metric, 1.0


def _lengths_are_true(crs: CRS, lon: float, lat: float) -> bool:
    """Whether a projection has true lengths near a place; Mercator has only at the equator."""
    try:
        factors = Proj(crs).get_factors(lon, lat)
    except (CRSError, ProjError):
        return False
    scales = np.array([factors.tissot_semimajor, factors.tissot_semiminor])
    return bool(np.isfinite(scales).all() and np.abs(scales - 1).max() <= _TRUE_LENGTHS)


def _unwrapped(bounds: Bounds, crs: CRS | None) -> list[Bounds]:
    """The same bounds, or two if they cross the 180th meridian: around 180 and around -180 degrees.

    PROJ gives a left bound above the right one then.
    """
    left, bottom, right, top = bounds
    if crs is None or left <= right:
        return [bounds]
    turn = turn_of(crs)
    return [(left, bottom, right + turn, top), (left - turn, bottom, right, top)]


def _finite(bounds: tuple[float, ...], raster: GeoBox) -> Bounds:
    left, bottom, right, top = bounds
    if not np.isfinite(bounds).all():
        raise InputError(
            f"{raster.name}: its extent has no place in the CRS of the vectors; reproject them to "
            "the CRS of the raster"
        )
    return left, bottom, right, top


def _parsed(raster: GeoBox) -> CRS:
    try:
        return CRS.from_wkt(raster.crs or "").to_2d()
    except CRSError as error:
        raise InputError(f"{raster.name}: its CRS cannot be read: {error}") from error
