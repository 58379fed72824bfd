"""Vectors brought from one CRS to another."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from geothresh.errors import InputError, UsageError
from geothresh.vector.polygons import repaired
from geothresh.vector.units import Geometries


def crs_of(text: str) -> CRS:
    """A CRS of two axes from a code, a PROJ string or WKT.

    Raises:
        UsageError: there is no such CRS.
    """
    try:
        return CRS.from_user_input(text).to_2d()
    except CRSError as error:
        raise UsageError(
            f"CRS {text[:80]!r} is not known ({' '.join(str(error).split())[:200]}); give one such "
            "as EPSG:4326"
        ) from error


def to_crs(shapes: Geometries, crs: CRS, destination: CRS) -> Geometries:
    """The shapes brought from one CRS to another, corner by corner.

    Raises:
        InputError: a corner has no place there.
    """
    moved = reprojected(shapes, Transformer.from_crs(crs, destination, always_xy=True))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(
            f"part of the vectors has no place in {short_name(destination)}; choose another "
            "--dst-crs"
        )
    # Rounding can make corners that were close together cross.
    return repaired(moved)


def reprojected(shapes: Geometries, transformer: Transformer) -> Geometries:
    """The shapes with every corner moved to another CRS."""

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transformer.transform(points[:, 0], points[:, 1]), axis=1)

    return np.asarray(shapely.transform(shapes, move), object)


def short_name(crs: CRS) -> str:
    """Its code, or else its name."""
    code = crs.to_authority()
    return ":".join(code) if code else str(crs.name)
