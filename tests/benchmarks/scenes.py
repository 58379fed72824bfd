"""Rasters that the benchmarks read, and the tiles of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

import geothresh
from geothresh.mosaic.readers import read_mirrored
from geothresh.raster.scene import open_scene
from geothresh.tiling import TileGrid

TILE, OVERLAP = 512, 128
SCENE = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(1, 0, 4e5, 0, -1, 5e6)}
TILED: dict[str, Any] = {
    "driver": "GTiff", "count": 1, "dtype": "uint8", "tiled": True, "blockxsize": 512,
    "blockysize": 512, "compress": "deflate",
}  # fmt: skip


def random_bytes(height: int, width: int) -> NDArray[np.uint8]:
    """A map that compresses about as a confidence map does: long runs with noise between."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-height // 64), -(-width // 64)), dtype=np.uint8)
    coarse[rng.random(coarse.shape) < 0.6] = 0
    values = np.kron(coarse, np.ones((64, 64), np.uint8))[:height, :width]
    noise = rng.integers(0, 4, values.shape, dtype=np.uint8)
    return np.where(values > 0, values // 2 + noise, values).astype(np.uint8)


def repeated(target: Path, *, height: int, width: int) -> Path:
    """A scene of this size: the demo scene again and again, beside and below itself."""
    with rasterio.open(SCENE) as dataset:
        part = dataset.read(1)
        profile = dataset.profile | {"width": width, "height": height}
    with rasterio.open(target, "w", **profile) as dataset:
        for row in range(0, height, part.shape[0]):
            for col in range(0, width, part.shape[1]):
                piece = part[: height - row, : width - col]
                window = Window(col, row, piece.shape[1], piece.shape[0])
                dataset.write(piece, 1, window=window)
    return target


def scene_tiles(scene_file: Path = SCENE) -> list[NDArray[np.float32]]:
    """A scene's tiles that hold data, as `refine` gives them to the network."""
    with open_scene(scene_file) as scene:
        grid = TileGrid(size=scene.size, tile=TILE, overlap=OVERLAP, patch=64)
        tiles = [read_mirrored(scene, window) for window in grid.tiles()]
    return [np.ascontiguousarray(tile) for tile, valid in tiles if valid.any()]
