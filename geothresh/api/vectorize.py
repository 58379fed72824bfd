"""From a mask to polygons in a GeoPackage."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from geothresh import __version__
from geothresh.errors import GeothreshError, InputError, UsageError
from geothresh.raster.grid import RasterGrid
from geothresh.raster.masks import MaskBand, open_mask
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.shapes import confidence_sums, mask_shapes
from geothresh.vector.names import check_layer_name, layer_name_from
from geothresh.vector.polygons import PixelToMap, PolygonBatch, make_polygons
from geothresh.vector.units import MapUnits
from geothresh.vector.writing import EXTENSION, check_vector_output, write_geopackage

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizeResult:
    """What was written, and what the mask held."""

    output: Path
    """The GeoPackage."""

    layer: str
    """The layer in it."""

    kind: str
    """What was drawn: ``polygons``."""

    geometry_type: str
    """``Polygon``; ``MultiPolygon`` where a simplified one could not be valid otherwise."""

    crs: str | None
    """Such as ``EPSG:32633``, or WKT where there is no such code; None if the mask names none."""

    features: int
    """Polygons in the layer."""

    left_out: int
    """Polygons smaller than the smallest area."""

    foreground_pixels: int
    """Foreground pixels of the mask."""

    area: float
    """Sum of the areas in the layer, in the unit of `area_unit`."""

    perimeter: float
    """Sum of the perimeters in the layer, in the unit of `length_unit`."""

    length_unit: str
    """``m``; ``units`` where the CRS does not tell its unit, ``px`` for pixel coordinates."""

    fields: tuple[str, ...]
    """Names of the attributes."""

    seconds: float
    """Wall time."""

    @property
    def area_unit(self) -> str:
        """``m2``, ``units2`` or ``px2``."""
        return f"{self.length_unit}2"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {**asdict(self), "output": str(self.output), "area_unit": self.area_unit}


def vectorize(
    mask: str | os.PathLike[str] | Any,
    output: str | os.PathLike[str] | None = None,
    *,
    kind: Literal["polygons"] = "polygons",
    confidence: str | os.PathLike[str] | Any | None = None,
    threshold: float | None = None,
    bidx: int | None = None,
    layer: str | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    allow_pixel_coords: bool = False,
    allow_vrt: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorizeResult:
    """Write the foreground of a mask as polygons to a GeoPackage.

    Each 4-connected region becomes one valid polygon along its pixel edges, whole across all
    blocks, with the attributes ``area_m2`` and ``perimeter_m`` (holes included) of the polygon as
    it is written: in the plane of a projected CRS, on the ellipsoid for longitude and latitude.
    Without a CRS they are ``area_units2`` and ``perimeter_units``, in pixel coordinates
    ``area_px2`` and ``perimeter_px``.

    Args:
        mask: GeoTIFF, path or open rasterio dataset: 1 = foreground, 0 = background, 255 =
            nodata. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is foreground.
        output: the ``.gpkg`` to write; by default the mask's name with that ending, beside it.
        kind: ``polygons``.
        confidence: raster on the mask's grid; its mean over the valid pixels of each region is
            added as ``confidence_mean``. With `threshold`, it is `mask` itself by default.
        threshold: `mask` holds confidences; foreground is where they are at least this.
        bidx: band of `mask`, counted from 1; needed where there are several.
        layer: name of the layer; by default made from the mask's name.
        min_area: regions smaller than this (m2, or the unit of the area attribute) are left out.
        simplify: outlines may move by up to this length (m, or the unit of the perimeter
            attribute), polygon by polygon; 0 keeps every corner.
        allow_pixel_coords: where the mask has no georeference, write columns and rows.
        allow_vrt: accept VRTs as inputs.
        overwrite: replace an output that exists.
        progress: called with (strips read, strips in all).

    Raises:
        UsageError: an argument is out of range, or the output is one of the inputs.
        InputError: an input cannot be read, is no mask, has no georeference, or the confidence
            lies on another grid.
        OutputError: the output exists, or cannot be written.
    """
    started = time.perf_counter()
    _check_numbers(kind, min_area, simplify)
    if layer is not None:
        check_layer_name(layer)
    source = find_raster(mask, allow_vrt=allow_vrt)
    inputs = [source]
    if confidence is not None:
        inputs.append(find_raster(confidence, allow_vrt=allow_vrt))
    target = check_vector_output(
        _output_of(source, output),
        overwrite=overwrite,
        inputs=[one.location for one in inputs if not one.remote],
    )
    layer = layer or layer_name_from(Path(source.name).stem)
    if confidence is None and threshold is not None:
        confidence, confidence_bidx = mask, bidx
    else:
        confidence_bidx = None

    with open_mask(
        mask, beside=target, bidx=bidx, threshold=threshold, allow_vrt=allow_vrt, progress=progress
    ) as band:
        units = _units_of(band, allow_pixel_coords)
        polygons = make_polygons(
            mask_shapes(band),
            width=band.grid.width,
            placing=_placing(band.grid),
            units=units,
            min_area=min_area,
            simplify=simplify,
        )
        _require_all_pixels(band, polygons)
        attributes = {
            units.area_field: polygons.area,
            units.perimeter_field: polygons.perimeter,
        }
        if confidence is not None:
            sums = confidence_sums(
                band, confidence, bidx=confidence_bidx, allow_vrt=allow_vrt, progress=progress
            )
            attributes["confidence_mean"] = sums.means(polygons.first_pixel)

    crs = band.grid.crs if band.grid.has_transform else None
    geometry_type = write_geopackage(
        target,
        layer=layer,
        geometry=polygons.geometry,
        attributes=attributes,
        crs=crs.to_wkt() if crs else None,
        metadata=_metadata(source, threshold, min_area, simplify),
        overwrite=overwrite,
    )
    return VectorizeResult(
        output=target,
        layer=layer,
        kind=kind,
        geometry_type=geometry_type,
        crs=crs.to_string() if crs else None,
        features=len(polygons.geometry),
        left_out=polygons.left_out,
        foreground_pixels=band.foreground,
        area=math.fsum(polygons.area),
        perimeter=math.fsum(polygons.perimeter),
        length_unit=units.suffix,
        fields=tuple(attributes),
        seconds=time.perf_counter() - started,
    )


def _check_numbers(kind: str, min_area: float, simplify: float) -> None:
    if kind != "polygons":
        raise UsageError(f"kind {kind!r} is not known; use polygons")
    for name, number in (("smallest area", min_area), ("tolerance of simplify", simplify)):
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{name} {number:g}: give 0 or a positive number")


def _output_of(source: RasterSource, output: str | os.PathLike[str] | None) -> Path:
    if output is not None:
        return Path(os.fspath(output))
    if source.remote:
        raise UsageError(f"{source.name}: is not a local file; say with --output where to write")
    path = Path(source.name) if "://" not in source.name else Path(source.location)
    return path.with_suffix(EXTENSION)


def _units_of(band: MaskBand, allow_pixel_coords: bool) -> MapUnits:
    if band.grid.has_transform:
        return MapUnits.of(band.grid.crs.to_wkt() if band.grid.crs else None)
    if allow_pixel_coords:
        return MapUnits.of(None, pixels=True)
    found = "only control points or RPCs" if band.grid.is_georeferenced else "no georeference"
    raise InputError(
        f"{band.name}: has {found}, so that polygons have no place on the map; georeference it, or "
        "add --allow-pixel-coords to write columns and rows"
    )


def _placing(grid: RasterGrid) -> PixelToMap:
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    return PixelToMap(a=a, b=b, c=c, d=d, e=e, f=f)


def _require_all_pixels(band: MaskBand, polygons: PolygonBatch) -> None:
    if polygons.pixels != band.foreground:
        raise GeothreshError(
            f"{band.name}: the polygons cover {polygons.pixels} pixels, but "
            f"{band.foreground} were foreground when they were counted: the file was changed "
            "meanwhile or is damaged in a way that GDAL does not tell, or the disk is full; if it "
            "is none of these, please report this with the mask"
        )


def _metadata(
    source: RasterSource, threshold: float | None, min_area: float, simplify: float
) -> dict[str, str]:
    return {
        "geothresh_version": __version__,
        "geothresh_mask": Path(source.name).name,
        "geothresh_threshold": "none" if threshold is None else repr(threshold),
        "geothresh_min_area": repr(min_area),
        "geothresh_simplify": repr(simplify),
    }
