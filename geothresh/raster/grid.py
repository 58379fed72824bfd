"""The georeference of a raster, copied from input to output bit for bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.windows import RasterSize

if TYPE_CHECKING:
    from rasterio.control import GroundControlPoint
    from rasterio.io import DatasetReader, DatasetWriter
    from rasterio.rpc import RPC


# Metres to the edge of what can be seen, a thousand times: areas of more would overflow.
_FARTHEST = 1e30
# Share of a pixel by which the corners of two grids may differ and still be the same.
_SAME_PLACE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterGrid:
    """The size of a raster and everything that ties its pixels to the ground."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    transform: Affine = field(default_factory=Affine.identity)
    """(column, row) of a pixel's outer corner to x, y in units of the CRS; any affine map."""
    crs: CRS | None = None
    """None where the file names none."""
    gcps: tuple[GroundControlPoint, ...] = ()
    """Ground control points, in place of a transform."""
    gcps_crs: CRS | None = None
    """The CRS of the ground control points."""
    rpcs: RPC | None = None
    """Rational polynomial coefficients."""
    area_or_point: str | None = None
    """The AREA_OR_POINT tag; the transform is that of pixel corners either way."""

    @classmethod
    def of(cls, dataset: DatasetReader) -> RasterGrid:
        """The grid of an open dataset."""
        gcps, gcps_crs = dataset.gcps
        return cls(
            height=dataset.height,
            width=dataset.width,
            transform=dataset.transform,
            crs=dataset.crs,
            gcps=tuple(gcps),
            gcps_crs=gcps_crs,
            rpcs=dataset.rpcs,
            area_or_point=dataset.tags().get("AREA_OR_POINT"),
        )

    @property
    def box(self) -> GeoBox:
        """Size, transform and CRS as plain numbers and text."""
        return GeoBox(
            size=RasterSize(height=self.height, width=self.width),
            transform=tuple(self.transform)[:6],
            crs=None if self.crs is None else self.crs.to_wkt(),
        )

    @property
    def has_transform(self) -> bool:
        """Whether an affine map is given; the identity is how a file without one reads."""
        return bool(self.transform != Affine.identity())

    @property
    def is_georeferenced(self) -> bool:
        """Whether the pixels have a place on the ground by any of the three ways."""
        return self.has_transform or bool(self.gcps) or self.rpcs is not None

    def fault(self) -> str | None:
        """What makes the transform unusable, None if nothing does."""
        numbers = tuple(self.transform)[:6]
        if not all(math.isfinite(number) for number in numbers):
            return f"the transform {numbers} is not finite"
        if self.transform.determinant == 0.0:
            return f"the transform {numbers} maps all pixels to a line or point"
        a, b, c, d, e, f = numbers
        for along, down, start in ((a, b, c), (d, e, f)):
            reach = abs(start) + abs(along) * self.width + abs(down) * self.height
            if reach > _FARTHEST:
                return f"the transform {numbers} reaches as far as {reach:.3g}, off any map"
            # So far out that the next number is more than a pixel away.
            if math.ulp(abs(start) + abs(along) * self.width) > max(abs(along), abs(down)):
                return f"the transform {numbers} maps neighbouring pixels to the same coordinates"
        return None

    def shift_from(self, other: RasterGrid) -> float:
        """The farthest that a corner of this raster lies from where `other` has it.

        In pixels of `other`, along a row or a column; of two rasters of one size that have a
        transform.
        """
        # As matrices: the operator that multiplies transforms depends on the version of affine.
        in_other = _matrix(~other.transform) @ _matrix(self.transform)
        corners = [(x, y, 1) for x in (0, self.width) for y in (0, self.height)]
        return float(np.abs([in_other @ corner - corner for corner in corners]).max())

    def require_same(self, name: str, other: RasterGrid, other_name: str) -> None:
        """Raise InputError, with the numbers of both, unless `other` has the same pixels.

        Corners may differ by a hundredth of a pixel: more is another place, less is how programs
        round a coordinate. What one of the two lacks, a transform or a CRS, is not compared.
        """
        advice = "cut or warp one to the grid of the other"
        if (self.height, self.width) != (other.height, other.width):
            raise InputError(
                f"{name}: {self.width} x {self.height} pixels, and {other_name} has "
                f"{other.width} x {other.height}; {advice}"
            )
        if self.crs is not None and other.crs is not None and self.crs != other.crs:
            raise InputError(
                f"{name}: is in {self.crs.to_string()}, and {other_name} in "
                f"{other.crs.to_string()}; {advice}"
            )
        if self.has_transform and other.has_transform:
            shift = self.shift_from(other)
            if shift > _SAME_PLACE:
                raise InputError(f"{name}: lies {shift:.3g} pixels off {other_name}; {advice}")

    def creation(self) -> dict[str, Any]:
        """Keyword arguments of ``rasterio.open(..., "w")`` that are the grid's."""
        arguments: dict[str, Any] = {"height": self.height, "width": self.width}
        # A TIFF holds either a transform or ground control points.
        if not self.gcps:
            arguments["crs"] = self.crs
            if self.has_transform or self.crs is not None:
                arguments["transform"] = self.transform
        return arguments

    def write_to(self, dataset: DatasetWriter) -> None:
        """Set what ``rasterio.open`` takes no argument for."""
        if self.gcps:
            # rasterio asks even a missing CRS for its WKT.
            dataset.gcps = (list(self.gcps), self.gcps_crs or CRS())
        if self.rpcs is not None:
            dataset.rpcs = self.rpcs
        if self.area_or_point is not None:
            dataset.update_tags(AREA_OR_POINT=self.area_or_point)


def _matrix(transform: Affine) -> NDArray[np.float64]:
    return np.array(tuple(transform), np.float64).reshape(3, 3)
