"""Writing small GeoTIFFs for tests."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

NORTH_UP = Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 5_000_000.0)


def write_raster(
    path: Path,
    values: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    tags: dict[str, str] | None = None,
    scale: tuple[float, float] | None = None,
    crs: Any = "EPSG:32632",
    transform: Affine | None = NORTH_UP,
    **options: Any,
) -> Path:
    """Write (H, W) or (bands, H, W) values; `mask` is (H, W), nonzero = valid."""
    bands = values if values.ndim == 3 else values[np.newaxis]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=bands.shape[1],
                width=bands.shape[2],
                count=bands.shape[0],
                dtype=bands.dtype,
                crs=crs,
                transform=transform,
                **options,
            ) as dataset,
        ):
            dataset.write(bands)
            if tags:
                dataset.update_tags(**tags)
            if scale:
                dataset.scales = (scale[0],) * bands.shape[0]
                dataset.offsets = (scale[1],) * bands.shape[0]
            if mask is not None:
                dataset.write_mask((mask != 0).astype(np.uint8) * 255)
    return path


def coordinate_array(height: int, width: int) -> NDArray[np.float32]:
    """Confidences in [0, 1] of which no two are equal: each encodes its own row and column.

    Up to 2**22 pixels the values also stay apart in float32.
    """
    place = np.arange(height * width, dtype=np.float64).reshape(height, width)
    return (place / (height * width)).astype(np.float32)
