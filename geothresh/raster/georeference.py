"""The georeference of a raster: copied to outputs bit for bit, compared, checked for overlaps."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, reason
from geothresh.raster.grids import SAME_PLACE
from geothresh.types import Float64Array
from geothresh.windows import PixelWindow, RasterSize

if TYPE_CHECKING:
    from rasterio.control import GroundControlPoint
    from rasterio.io import DatasetReader, DatasetWriter
    from rasterio.rpc import RPC

# Like `SAME_PLACE`, for training data: stricter, as held-out pixels must not be trained on.
_SAME_PIXELS = 1e-3
# Points along an edge that are reprojected: a straight edge is a curve in another CRS.
_POINTS = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Georeference(GeoBox):
    """A `GeoBox` with ground control points, RPCs and the AREA_OR_POINT tag of a file."""

    gcps: tuple[GroundControlPoint, ...] = ()
    """Ground control points, which replace a transform."""
    gcps_crs: CRS | None = None
    """The CRS of the ground control points."""
    rpcs: RPC | None = None
    """Rational polynomial coefficients."""
    area_or_point: str | None = None
    """The AREA_OR_POINT tag; the transform is always that of pixel corners."""

    @classmethod
    def of(cls, dataset: DatasetReader, name: str = "the raster") -> Georeference:
        """Georeference of an open dataset."""
        gcps, gcps_crs = dataset.gcps
        return cls(
            size=RasterSize(height=dataset.height, width=dataset.width),
            transform=tuple(dataset.transform)[:6],
            # Thousands of files share one CRS: keep its text in memory once.
            crs=None if dataset.crs is None else sys.intern(dataset.crs.to_wkt()),
            name=name,
            gcps=tuple(gcps),
            gcps_crs=gcps_crs,
            rpcs=dataset.rpcs,
            area_or_point=dataset.tags().get("AREA_OR_POINT"),
        )

    @classmethod
    def of_box(cls, box: GeoBox) -> Georeference:
        """A georeference without control points, RPCs or tags."""
        return cls(size=box.size, transform=box.transform, crs=box.crs, name=box.name)

    @property
    def parsed_crs(self) -> CRS | None:
        """The CRS as a rasterio object."""
        return None if self.crs is None else CRS.from_wkt(self.crs)

    @property
    def crs_name(self) -> str | None:
        """The CRS as a code such as ``EPSG:32633``, or as WKT without one; None without a CRS."""
        return None if self.crs is None else CRS.from_wkt(self.crs).to_string()

    @property
    def is_georeferenced(self) -> bool:
        """Whether there is a transform, control points or RPCs."""
        return self.has_transform or bool(self.gcps) or self.rpcs is not None

    def has_crs_of(self, other: Georeference) -> bool:
        """Whether both have the same CRS; a raster without one is assumed to have the other's."""
        return None in (self.crs, other.crs) or self.parsed_crs == other.parsed_crs

    def require_same(self, other: Georeference) -> None:
        """Raise InputError, with the numbers of both, unless `other` has the same pixel grid.

        Corners may differ by a hundredth of a pixel, as programs round coordinates. If one of the
        two has no transform or CRS, this is not compared.
        """
        advice = "cut or warp one to the grid of the other"
        size, theirs = self.size, other.size
        if size != theirs:
            raise InputError(
                f"{self.name}: {size.width} x {size.height} pixels, and {other.name} has "
                f"{theirs.width} x {theirs.height}; {advice}"
            )
        if not self.has_crs_of(other):
            raise InputError(
                f"{self.name}: is in {self.crs_name}, and {other.name} in {other.crs_name}; "
                f"{advice}"
            )
        if self.has_transform and other.has_transform:
            shift = self.shift_from(other)
            if shift > SAME_PLACE:
                raise InputError(f"{self.name}: lies {shift:.3g} pixels off {other.name}; {advice}")

    def has_pixels_of(self, other: Georeference) -> bool:
        """Whether both have a transform, and every pixel lies in the same place."""
        return (
            self.has_transform
            and other.has_transform
            and self.size == other.size
            and self.shift_from(other) < _SAME_PIXELS
            and self.has_crs_of(other)
        )

    def window_over(self, other: Georeference, window: PixelWindow) -> PixelWindow | None:
        """The window of this raster that covers the same ground as a window of another raster.

        A raster without a CRS is assumed to have the other's: a missing CRS must not let ground
        that is held out in one raster be trained on in the other. Longitudes that differ by whole
        turns are the same ground.

        Returns:
            The bounding window in pixels of this raster, rounded outwards and clipped to it; None
            if the two do not overlap, or one of them has no transform.

        Raises:
            InputError: the window cannot be transformed to the CRS of this raster.
        """
        if not (self.has_transform and other.has_transform):
            return None
        along = np.linspace(0, 1, _POINTS)
        cols = np.concatenate([along, np.ones(_POINTS), along, np.zeros(_POINTS)])
        rows = np.concatenate([np.zeros(_POINTS), along, np.ones(_POINTS), along])
        edge = np.stack([window.col + cols * window.width, window.row + rows * window.height], 1)
        points = other.to_map(edge)
        if not self.has_crs_of(other):
            try:
                with gdal_environment():
                    x, y = transform(other.parsed_crs, self.parsed_crs, *points.T)
            except RASTER_ERRORS as error:
                raise InputError(
                    "a scene has no place in the CRS of another "
                    f"({reason(error)}); reproject one to the CRS of the other"
                ) from error
            points = np.stack([x, y], axis=1)
        inside = np.isfinite(points).all(axis=1)
        if not inside.any():
            return None
        if not inside.all():
            raise InputError(
                "a scene lies partly where the CRS of another is not defined; reproject one to the "
                "CRS of the other"
            )
        turn = _turn_of(self.parsed_crs or other.parsed_crs)
        left, _, right, _ = self.bounds()
        farthest = max(-left, right, np.abs(points[:, 0]).max())
        # Farther off, these are no longitudes: the file names the wrong CRS.
        if turn is None or farthest > 2 * turn:
            return self._window_around(points)
        points[:, 0] = np.unwrap(points[:, 0], period=turn)
        first = math.ceil((left - points[:, 0].max()) / turn)
        last = math.floor((right - points[:, 0].min()) / turn)
        turned = (points + (number * turn, 0) for number in range(first, last + 1))
        found = [window for window in map(self._window_around, turned) if window is not None]
        if not found:
            return None
        return PixelWindow.between(
            min(one.row for one in found), max(one.row_stop for one in found),
            min(one.col for one in found), max(one.col_stop for one in found),
        )  # fmt: skip

    def _window_around(self, points: Float64Array) -> PixelWindow | None:
        """The bounding window of (n, 2) x and y, clipped to the raster; None if outside of it."""
        col, row = self.to_pixels(points).T
        top, left = max(math.floor(row.min()), 0), max(math.floor(col.min()), 0)
        bottom = min(math.ceil(row.max()), self.size.height)
        right = min(math.ceil(col.max()), self.size.width)
        if bottom <= top or right <= left:
            return None
        return PixelWindow.between(top, bottom, left, right)

    def creation(self) -> dict[str, Any]:
        """Keyword arguments of ``rasterio.open(..., "w")``: extent, transform and CRS."""
        arguments: dict[str, Any] = {"height": self.size.height, "width": self.size.width}
        # A TIFF holds either a transform or ground control points.
        if not self.gcps:
            arguments["crs"] = self.parsed_crs
            if self.has_transform or self.crs is not None:
                arguments["transform"] = Affine(*self.transform)
        return arguments

    def write_to(self, dataset: DatasetWriter) -> None:
        """Set ground control points, RPCs and tags, which ``rasterio.open`` does not take."""
        if self.gcps:
            # rasterio calls to_wkt() even on a missing CRS.
            dataset.gcps = (list(self.gcps), self.gcps_crs or CRS())
        if self.rpcs is not None:
            dataset.rpcs = self.rpcs
        if self.area_or_point is not None:
            dataset.update_tags(AREA_OR_POINT=self.area_or_point)


def _turn_of(crs: CRS | None) -> float | None:
    """360 degrees in the unit of a CRS of longitude and latitude; None for another CRS."""
    if crs is None or not crs.is_geographic:
        return None
    _, unit = crs.units_factor
    return float(2 * math.pi / unit)
