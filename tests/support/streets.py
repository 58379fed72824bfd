"""Masks of streets on the disk, and the centrelines of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
from affine import Affine

import geothresh
from tests.support.flat import grouped_vectors
from tests.support.rasters import write_raster

UTM: dict[str, Any] = {"crs": "EPSG:32633", "transform": Affine(0.5, 0.0, 5e5, 0.0, -0.5, 6e6)}


#: Grids whose pixels are not square on the ground, and their columns and rows in metres.
OBLONG = {
    "60 N": ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 60), (0.558, 1.114)),
    "tall": ("EPSG:32633", Affine(1, 0, 5e5, 0, -2, 6e6), (1, 2)),
    "wide": ("EPSG:32633", Affine(2, 0, 5e5, 0, -1, 6e6), (2, 1)),
    "turned": (
        "EPSG:32633",
        Affine.translation(5e5, 6e6) @ Affine.rotation(30) @ Affine.scale(3, -1),
        (3, 1),
    ),
}


def save(path: Path, values: Any, **options: Any) -> Path:
    given = {"nodata": 255 if values.dtype == np.uint8 else None, **UTM, **options}
    return write_raster(path, values, tiled=True, blockxsize=64, blockysize=64, **given)


def town() -> np.ndarray:
    """Two roads 9 and 5 pixels wide that cross, and a roundabout apart."""
    mask = np.zeros((220, 300), np.uint8)
    mask[96:105, 10:280] = 1
    mask[20:200, 148:153] = 1
    row, col = np.indices(mask.shape)
    radius = np.hypot(row - 170, col - 240)
    mask[(radius > 14) & (radius < 20)] = 1
    mask[30:50, 30:90] = 255
    return mask


def lines(path: Path, **options: Any) -> Any:
    output = path.with_suffix(".gpkg")
    flat = {"kind": "centerlines", "overwrite": True, **options}
    geothresh.vectorize(path, output, **grouped_vectors(**flat))
    return geopandas.read_file(output, layer=path.stem)


def slanting(angle: float, sides: tuple[float, float], width: float) -> np.ndarray:
    """A road 240 m long in 300 m x 300 m: 1, and 2 in its middle 30 m; all in metres."""
    row, col = np.indices((round(300 / sides[1]), round(300 / sides[0])))
    x, y = (col + 0.5) * sides[0] - 150.3, (row + 0.5) * sides[1] - 149.6
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    along, across = abs(x * c + y * s), abs(y * c - x * s)
    return np.where((along < 120) & (across < width / 2), np.where(along < 15, 2, 1), 0)
