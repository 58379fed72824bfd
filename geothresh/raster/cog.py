"""A finished GeoTIFF made into a Cloud Optimised GeoTIFF.

GDAL's COG driver (https://gdal.org/drivers/raster/cog.html) copies whole files: overviews come
before the pixels, which only a second pass can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rasterio.shutil

from geothresh.errors import UsageError
from geothresh.raster.gdal import gdal_environment
from geothresh.raster.wording import in_own_words

# The GTiff driver's names of what the COG driver has too, and what that calls them.
_NAMES = {
    "BIGTIFF": "BIGTIFF",
    "BLOCKXSIZE": "BLOCKSIZE",
    "COMPRESS": "COMPRESS",
    "NUM_THREADS": "NUM_THREADS",
    "PREDICTOR": "PREDICTOR",
    "SPARSE_OK": "SPARSE_OK",
    "ZLEVEL": "LEVEL",
    "ZSTD_LEVEL": "LEVEL",
}
# What belongs to another method of compression, or says nothing about a COG.
_MOOT = ("TILED", "BLOCKYSIZE", "GEOTIFF_KEYS_FLAVOR")
_LEVELS = {"ZLEVEL": "DEFLATE", "ZSTD_LEVEL": "ZSTD"}


def cog_options(options: Mapping[str, str]) -> dict[str, str]:
    """The COG driver's options for those of the GTiff driver.

    Raises:
        UsageError: one makes no COG.
    """
    if options.get("TILED") != "YES" or options["BLOCKXSIZE"] != options["BLOCKYSIZE"]:
        raise UsageError("--cog: a COG has square tiles; leave TILED and the block sizes out")
    found: dict[str, str] = {}
    for name, value in options.items():
        if name in _MOOT or _LEVELS.get(name, options["COMPRESS"]) != options["COMPRESS"]:
            continue
        if name not in _NAMES:
            raise UsageError(f"--cog: a COG has no creation option {name}; leave it out")
        found[_NAMES[name]] = value
    if "PREDICTOR" in found:
        found["PREDICTOR"] = {"1": "NO", "2": "STANDARD"}[found["PREDICTOR"]]
    return found


def write_cog(source: Path, target: Path, *, options: Mapping[str, str], classes: bool) -> None:
    """Copy a GeoTIFF into a COG with the same pixels, georeference and tags.

    Args:
        source: a tiled GeoTIFF.
        target: is written over.
        options: from `cog_options`.
        classes: whether overviews are to hold the most frequent value, rather than the mean.

    Raises:
        RasterioError, CPLE_BaseError: GDAL fails.
    """
    resampling = "MODE" if classes else "AVERAGE"
    with gdal_environment(writing=True), in_own_words():
        rasterio.shutil.copy(
            source, target, driver="COG", OVERVIEW_RESAMPLING=resampling, **options
        )
