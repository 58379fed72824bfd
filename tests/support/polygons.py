"""Masks on the disk, and the polygons of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from geothresh.raster.features import mask_outlines
from geothresh.raster.mask import Mask, open_mask, strips
from geothresh.raster.rewriting import cut_scene
from geothresh.raster.scene import open_scene
from geothresh.vector.polygons import (
    PolygonBatch,
    make_polygons,
)
from geothresh.vector.units import MapUnits
from tests.support.rasters import write_raster

UTM = "EPSG:32633"


SHEARED = Affine(10.0, 3.0, 431_234.5, 2.0, -7.0, 5_812_345.25)


TRANSFORMS = {
    "north-up": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 6e6),
    "south-up": Affine(10.0, 0.0, 5e5, 0.0, 10.0, 6e6),
    "rotated": Affine(0.42, 0.38, 5e5, 0.27, -0.59, 6e6),
    "sheared": SHEARED,
}


def write(path: Path, values: NDArray[Any], **options: Any) -> Path:
    """A small raster in blocks of 16 x 16, so that polygons cross many of them."""
    given = {"crs": UTM, "transform": TRANSFORMS["north-up"], **options}
    scale = given.pop("scale", None)
    given["scale"] = None if scale is None else (scale, 0.0)
    return write_raster(path, values, tiled=True, blockxsize=16, blockysize=16, **given)


@contextmanager
def opened(path: Path, threshold: float | None = None) -> Iterator[Mask]:
    """As `vectorize` opens it."""
    if threshold is None:
        with open_mask(path) as mask:
            yield mask
    else:
        with open_scene(path) as scene:
            windows = strips(scene.size, scene.layout.part_height)
            with cut_scene(scene, threshold, windows=windows, beside=path) as mask:
                yield mask


def polygons_of(
    path: Path, *, threshold: float | None = None, **options: Any
) -> tuple[PolygonBatch, Affine]:
    with opened(path, threshold) as mask:
        units = MapUnits.of(mask.box.crs)
        batch = make_polygons(
            mask_outlines(mask),
            box=mask.box,
            units=units,
            **options,
        )
        assert batch.pixels == mask.spec.foreground
    return batch, Affine(*mask.box.transform)


def random_mask(seed: int, height: int, width: int, density: float) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (rng.random((height, width)) < density).astype(np.uint8)
