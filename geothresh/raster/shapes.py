"""The outlines of a mask's foreground, straight from the band of a file, and means inside them.

GDAL's polygoniser reads the band row by row and closes each polygon across all blocks: there is no
seam, and no array of the whole raster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.windows import Window

from geothresh.errors import InputError
from geothresh.raster.blocks import span
from geothresh.raster.components import RegionSums, RegionTable
from geothresh.raster.gdal import RASTER_ERRORS, gdal_environment, quiet_georeference, reason
from geothresh.raster.grid import RasterGrid
from geothresh.raster.masks import MaskBand, Progress
from geothresh.raster.reading import open_scene
from geothresh.windows import PixelWindow

# Share of a pixel by which the corners of two grids may differ and still be the same.
_SAME_CORNER = 0.01


def mask_shapes(band: MaskBand) -> Iterator[Mapping[str, Any]]:
    """The 4-connected regions of the foreground as GeoJSON polygons in pixels (column, row).

    Memory is that of all polygons, which GDAL makes before it gives the first.

    Raises:
        InputError: the band cannot be read.
    """
    with gdal_environment(), quiet_georeference():
        try:
            # Without its georeference the file gives the whole numbers of the pixel grid.
            with rasterio.open(band.location, driver="GTiff", GEOREF_SOURCES="NONE") as dataset:
                pixels = rasterio.band(dataset, band.bidx)
                for outline, value in shapes(pixels, mask=pixels, connectivity=4):
                    if value == band.value:
                        yield outline
        except RASTER_ERRORS as error:
            raise InputError(f"{band.name}: cannot be read ({reason(error)})") from error


def confidence_sums(
    band: MaskBand,
    confidence: Any,
    *,
    bidx: int | None = None,
    allow_vrt: bool = False,
    progress: Progress | None = None,
) -> RegionTable:
    """Sums of a confidence raster over each 4-connected region of the foreground.

    Args:
        band: the mask.
        confidence: path of a raster on the same grid, in any scaling that `open_scene` knows.
        bidx: its band, counted from 1.
        allow_vrt: accept a VRT.
        progress: told (strips read, strips in all).

    Raises:
        InputError: the raster cannot be read, or lies on another grid than the mask.
    """
    sums = RegionSums(band.grid.width)
    with (
        open_scene(confidence, bidx=bidx, allow_vrt=allow_vrt) as scene,
        gdal_environment(),
        quiet_georeference(),
        rasterio.open(band.location, driver="GTiff") as dataset,
    ):
        require_same_grid(band.name, band.grid, scene.name, scene.grid)
        windows = band.strips()
        for done, window in enumerate(windows, start=1):
            mask = _foreground(band, dataset, window)
            columns = np.flatnonzero(mask.any(axis=0))
            if columns.size:
                # Nothing left of the first foreground and right of the last is read.
                left, right = int(columns[0]), int(columns[-1]) + 1
                values, valid = scene.read(
                    PixelWindow(row=window.row, col=left, height=window.height, width=right - left)
                )
                sums.add(mask, values, valid, left=left)
            else:
                sums.add(mask)
            if progress:
                progress(done, len(windows))
    return sums.finish()


def _foreground(band: MaskBand, dataset: Any, window: PixelWindow) -> Any:
    place = Window(window.col, window.row, window.width, window.height)
    try:
        return dataset.read(band.bidx, window=place) == band.value
    except RASTER_ERRORS as error:
        raise InputError(f"{band.name}: {span(window)} cannot be read ({reason(error)})") from error


def require_same_grid(name: str, grid: RasterGrid, other_name: str, other: RasterGrid) -> None:
    """Raise InputError, with the numbers of both, unless two rasters share their pixels.

    Corners may differ by a hundredth of a pixel. What one of the two lacks, a transform or a CRS,
    is not compared.
    """

    def refuse(what: str, one: object, two: object) -> None:
        raise InputError(
            f"{other_name}: its {what} {two} is not the {what} {one} of {name}; "
            "give a raster on the mask's own grid"
        )

    if (grid.height, grid.width) != (other.height, other.width):
        refuse("size", f"{grid.width} x {grid.height}", f"{other.width} x {other.height}")
    if grid.crs is not None and other.crs is not None and grid.crs != other.crs:
        refuse("CRS", grid.crs.to_string(), other.crs.to_string())
    if grid.has_transform and other.has_transform:
        # As matrices: the operator that multiplies transforms depends on the version of affine.
        in_other = _matrix(~other.transform) @ _matrix(grid.transform)
        corners = [(x, y, 1) for x in (0, grid.width) for y in (0, grid.height)]
        moved = [in_other @ corner - corner for corner in corners]
        if np.abs(moved).max() > _SAME_CORNER:
            refuse("transform", tuple(grid.transform)[:6], tuple(other.transform)[:6])


def _matrix(transform: Affine) -> NDArray[np.float64]:
    return np.array(tuple(transform), np.float64).reshape(3, 3)
