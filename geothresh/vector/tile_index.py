"""Read and write GDAL raster tile indexes (GTI): the outline and path of each raster.

A tile index is a GeoPackage that GDAL 3.9 and later, and QGIS with it, open as one raster:
https://gdal.org/drivers/raster/gti.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from geothresh.errors import InputError, OutputError, UsageError
from geothresh.files import replacing
from geothresh.geobox import GeoBox
from geothresh.vector.layers import Layer
from geothresh.vector.ogr import OGR_ERRORS, write_layer
from geothresh.vector.reading import find_layer, read_attribute

_LOCATION = "location"


def indexed_files(index: Path) -> list[str]:
    """The paths of the rasters in a tile index, in its order and as they are written there.

    Raises:
        InputError: the file cannot be read, is not a tile index, or has no rasters.
        UsageError: the file has several layers, or pyogrio would take its path for an address.
    """
    layer = find_layer(index, option=None)
    if _LOCATION not in layer.fields:
        raise InputError(
            f"{index}: is no tile index: it has no field {_LOCATION}; name an index that "
            "gdaltindex or geothresh has written"
        )
    files = [str(name) for name in read_attribute(layer, _LOCATION) if name]
    if not files:
        raise InputError(f"{index}: the tile index names no raster")
    return files


def plain_files(index: Path) -> list[str]:
    """The files of a tile index without other fields, as `write_tile_index` makes it.

    Returns:
        Empty if the file is another index, or none.
    """
    try:
        layer = find_layer(index, option=None)
        return indexed_files(index) if list(layer.fields) == [_LOCATION] else []
    except (InputError, UsageError):
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRaster:
    """A raster of a tile index."""

    location: str
    """Path of the raster, relative to the index."""
    box: GeoBox
    """Georeference of the raster."""


def write_tile_index(
    target: Path, rasters: Sequence[IndexedRaster], *, whole: GeoBox, dtype: str, nodata: float
) -> None:
    """Write a tile index atomically.

    Args:
        target: path of the index, ``NAME.gti.gpkg``.
        rasters: the rasters, all with the same CRS and pixel size, and north up.
        whole: georeference of their union.
        dtype: their data type: ``uint8`` or ``float32``.
        nodata: their nodata value.

    Raises:
        OutputError: the index cannot be written.
    """
    left, bottom, right, top = whole.bounds()
    a, _, _, _, e, _ = whole.transform
    metadata = {
        "RESX": f"{abs(a):.17g}", "RESY": f"{abs(e):.17g}",
        "MINX": f"{left:.17g}", "MINY": f"{bottom:.17g}",
        "MAXX": f"{right:.17g}", "MAXY": f"{top:.17g}",
        "BAND_COUNT": "1", "DATA_TYPE": {"uint8": "Byte", "float32": "Float32"}[dtype],
        "NODATA": f"{nodata:g}",
    }  # fmt: skip
    bounds = np.array([one.box.bounds() for one in rasters])
    outlines = shapely.box(*bounds.T)
    names = np.array([one.location for one in rasters], object)
    layer = Layer(
        name=target.name.removesuffix(".gti.gpkg"), geometry=outlines,
        attributes={_LOCATION: names}, kind="Polygon", metadata=metadata,
    )  # fmt: skip
    with replacing(target) as temporary:
        # OGR needs the extension of the format, so the index is written beside the temporary file,
        # in the same temporary folder.
        made = temporary.with_name("index.gpkg")
        try:
            write_layer(made, layer, "Polygon", outlines, whole.crs, driver="GPKG")
        except OGR_ERRORS as error:
            raise OutputError(f"{target}: cannot be written ({error})") from error
        made.replace(temporary)
