"""Confidence maps of pictures: what `base predict` makes of a folder, and `base crossfit`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geothresh.mosaic import Refiner, Sink, mosaic
from geothresh.options import BaseTiling
from geothresh.raster.pictures import read_rgb
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.windows import PixelWindow, RasterSize, TileGrid


class PictureReader:
    """A picture (H, W, 3) in 8 bits as a reader of three bands."""

    def __init__(self, picture: UInt8Array) -> None:
        self._picture = picture

    @property
    def size(self) -> RasterSize:
        """Extent of the picture."""
        return RasterSize(height=self._picture.shape[0], width=self._picture.shape[1])

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Red, green and blue (3, height, width) in [0, 1] of a window, all of it valid."""
        values = self._picture[window.slices()].transpose(2, 0, 1).astype(np.float32)
        values /= np.float32(255)
        return values, np.ones(values.shape[1:], np.bool_)


def predict_picture(
    predictor: Refiner,
    image: Path,
    tiling: BaseTiling = BaseTiling(),
    *,
    batch_size: int = 1,
) -> UInt8Array:
    """The confidence map (H, W) of a picture: confidence x 255, of the picture's size.

    A picture that fits into a tile goes through the network in one pass, mirrored outwards to the
    next multiple of the patch; a larger one in tiles, as `mosaic` does it.

    Raises:
        InputError: the picture cannot be read.
    """
    reader = PictureReader(read_rgb(image))
    size, patch = reader.size, predictor.patch
    longest = -(-max(size.height, size.width) // patch) * patch
    tile, overlap = tiling.tile_size, tiling.overlap
    if longest <= tile:
        tile, overlap = longest, 0
    confidence = np.empty((size.height, size.width), np.float32)

    def store(window: PixelWindow, values: Float32Array, valid: BoolArray) -> None:
        confidence[window.slices()] = values

    grid = TileGrid(size=size, tile=tile, overlap=overlap, patch=patch)
    mosaic(reader, predictor, Sink(store), grid=grid, blend=tiling.blend, batch_size=batch_size)
    return map_values(confidence)


def map_values(confidence: Float32Array) -> UInt8Array:
    """Confidences in [0, 1] in 8 bits: x 255, rounded."""
    return np.rint(confidence * 255).astype(np.uint8)
