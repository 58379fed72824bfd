"""A scene with roads across it, and layers of them, to train on."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import shapely
from rasterio.transform import Affine
from scipy import ndimage

from geothresh.training import Recipe
from tests.support.rasters import NORTH_UP, write_raster

HEIGHT, WIDTH = 400, 700


QUICK = Recipe(
    epochs=1, chip_size=64, batch_size=4, chips_per_epoch=8, learning_rate=2e-3, precision="fp32"
)


def on_map(t: Affine, col, row):
    return t.a * col + t.c, t.e * row + t.f


def to_map(col: float, row: float) -> tuple[float, float]:
    return on_map(NORTH_UP, col, row)


def box(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """Of pixels, in the map."""
    return shapely.box(*to_map(left, bottom), *to_map(right, top))


#: Roads across the scene, their edges off the pixels' centres; 8 m to each side are 8 pixels wide.
ROADS = [
    shapely.LineString([to_map(-50, 60.25 + 85 * k), to_map(760, 40.25 + 85 * k)]) for k in range(5)
] + [
    shapely.LineString([to_map(90.25 + 130 * k, -9), to_map(60.25 + 130 * k, 450)])
    for k in range(6)
]


def truth() -> np.ndarray:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x, y = on_map(NORTH_UP, cols.ravel(), rows.ravel())
    near = shapely.dwithin(shapely.MultiLineString(ROADS), shapely.points(x, y), 8.0)
    return near.reshape(HEIGHT, WIDTH)


def write_layer(path: Path, shapes: list, crs: str = "EPSG:32632", to: str | None = None) -> Path:
    frame = geopandas.GeoDataFrame(geometry=shapes, crs=crs)
    frame = frame if to is None else frame.to_crs(to)
    frame.to_file(path)
    return path


def write_scene(path: Path, seed: int = 0, *, under: int = 0, **options) -> Path:
    """Roads seen blurred, without data in a corner; `under` is what stands there in the file."""
    rng = np.random.default_rng(seed)
    seen = (
        ndimage.gaussian_filter(truth().astype(float), 2) + rng.normal(size=(HEIGHT, WIDTH)) * 0.05
    )
    values = (np.clip(seen, 0, 1) * 255).astype(np.uint8)
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    data = rows + cols < 900
    values[~data] = under
    return write_raster(path, values, mask=data, **options)


def write_site(folder: Path) -> Path:
    """The scene, its roads as a layer and as a mask, and an area of interest in degrees."""
    write_scene(folder / "scene.tif")
    write_layer(folder / "roads.gpkg", ROADS)
    write_raster(folder / "mask.tif", truth().astype(np.uint8))
    write_layer(folder / "aoi.geojson", [box(10, 10, 300, 390)], to="EPSG:4326")
    return folder
