"""From a mask to polygons or centrelines in a GeoPackage."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from geothresh._version import __version__
from geothresh.api.drawing import (
    NODES,
    LineOptions,
    PolygonOptions,
    draw_centerlines,
    draw_polygons,
)
from geothresh.errors import InputError, UsageError
from geothresh.options import ScaleOption
from geothresh.raster.mask import Mask, Progress, cut_scene, open_mask, plain_mask
from geothresh.raster.paths import RasterSource, find_raster
from geothresh.raster.scene import Scene, open_scene
from geothresh.raster.sieve import sieved_mask
from geothresh.skeleton.bridging import FLOOR
from geothresh.skeleton.network import SPUR
from geothresh.vector.centerlines import pixel_side
from geothresh.vector.formats import ending_of, format_of
from geothresh.vector.names import MOST, check_layer_name, layer_name_from
from geothresh.vector.outputs import Existing, check_vector_output
from geothresh.vector.reprojection import crs_of, to_crs
from geothresh.vector.units import MapUnits

Kind = Literal["polygons", "centerlines"]
KINDS: tuple[Kind, Kind] = ("polygons", "centerlines")


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizeResult:
    """What was written, and what the mask held."""

    output: Path
    """The GeoPackage."""

    layer: str
    """The layer in it."""

    nodes_layer: str | None
    """The layer with the nodes between centrelines, if it was asked for."""

    kind: Kind
    """What was drawn."""

    geometry_type: str
    """``Polygon`` or ``LineString``; that of several parts where a simplified polygon could not be
    valid otherwise, or something crosses the 180th meridian."""

    crs: str | None
    """Such as ``EPSG:32633``, or WKT where there is no such code; None if the mask names none."""

    features: int
    """Polygons or lines in the layer."""

    left_out: int
    """Polygons smaller than the smallest area, or lines shorter than the least length."""

    foreground_pixels: int
    """Foreground pixels of the mask, after it was sieved."""

    area: float | None
    """Sum of the areas in the layer, in the unit of `area_unit`; None for centrelines."""

    perimeter: float | None
    """Sum of the perimeters in the layer, in the unit of `length_unit`; None for centrelines."""

    length: float | None
    """Sum of the lengths in the layer, in the unit of `length_unit`; None for polygons."""

    nodes: int | None
    """Points where centrelines end or meet; None for polygons."""

    bridges: int | None
    """Centrelines that lead over a gap of the mask; None for polygons."""

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
    kind: Kind = "polygons",
    confidence: str | os.PathLike[str] | Any | None = None,
    threshold: float | None = None,
    bidx: int | None = None,
    scale: ScaleOption = "auto",
    nodata: float | None = None,
    layer: str | None = None,
    sieve: int = 0,
    fill_holes: float = 0.0,
    min_area: float = 0.0,
    min_length: float = 0.0,
    spur: float | None = None,
    smooth: bool = False,
    simplify: float = 0.0,
    bridge_gaps: float = 0.0,
    bridge_confidence: float | None = None,
    nodes: bool = False,
    allow_pixel_coords: bool = False,
    allow_vrt: bool = False,
    format: str | None = None,
    dst_crs: str | None = None,
    append: bool = False,
    overwrite_layer: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorizeResult:
    """Write the foreground of a mask as polygons or centrelines to a GeoPackage or another file.

    Polygons: each 4-connected region becomes one valid polygon along its pixel edges, whole across
    all blocks, with the attributes ``area_m2``, ``perimeter_m`` (holes included) and
    ``compactness`` (4 pi area / perimeter squared) of the polygon as it is written, ``length_m``,
    ``width_m`` and ``orientation_deg`` (from north towards east) of its minimum rotated rectangle,
    and ``confidence_mean``, ``confidence_min`` and ``confidence_p10`` over the valid pixels of the
    region.

    Centrelines: the foreground is thinned (Guo and Hall 1989) to lines from node to node, the same
    whatever the size of the raster; they are smoothed by at most a pixel. Attributes are
    ``length_m``, ``width_m`` and ``width_min_m`` (full width of the mask: mean and least along the
    line), ``confidence_mean``, ``confidence_min`` and ``confidence_p10`` along the line.

    Lengths and areas are measured in the plane of a projected CRS, and on the ellipsoid for
    longitude and latitude. Without a CRS they are ``area_units2`` and so on, in pixel coordinates
    ``area_px2``.

    Args:
        mask: GeoTIFF, path or open rasterio dataset: 1 = foreground, 0 = background, 255 =
            nodata. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is foreground.
        output: the file to write; by default the mask's name with the ending ``.gpkg``, beside it.
        kind: ``polygons`` or ``centerlines``.
        confidence: raster on the mask's grid. With `threshold`, it is `mask` itself by default.
        threshold: `mask` holds confidences; foreground is where they are at least this.
        bidx: band of `mask`, counted from 1; needed where there are several.
        scale, nodata: how the confidences are stored, of `confidence` or with `threshold` of
            `mask`, as for `refine`.
        layer: name of the layer; by default made from the mask's name.
        sieve: foreground regions of fewer pixels are taken out of the mask, and then holes of fewer
            pixels filled, before anything is drawn.
        fill_holes: holes smaller than this (m2, or the unit of the area attribute, by the size of
            the pixels in the middle of the raster) are filled likewise.
        min_area: polygons smaller than this (m2, or the unit of the area attribute) are left out.
        min_length: centrelines shorter than this (m, or the unit of the length attribute) that do
            not connect others are left out.
        spur: centrelines that end, and are shorter than this many widths of the road where they
            begin, are taken off; 1 if left out, 0 keeps all.
        smooth: take the staircases out of the outlines of polygons, which move by at most half a
            pixel; points in which they touch stay. Lines always are smooth.
        simplify: in m, or the unit of the length attribute. Corners of polygons go that make a
            triangle smaller than a square of this side with their neighbours; polygons that touch
            go on touching, and none overlaps another. Lines may move by up to this length. 0 keeps
            every corner of polygons, and lines to the pixel.
        bridge_gaps: ends of centrelines that lie opposite to each other within this length (m, or
            the unit of the length attribute) are joined where the confidence says that the road
            goes on; such lines are marked ``bridged``, and have no width.
        bridge_confidence: what the confidence never falls below on the way over a gap; 0.1 if left
            out.
        nodes: write the points where centrelines end or meet, with their ``degree``, as a second
            layer, named like the first with ``_nodes``.
        allow_pixel_coords: where the mask has no georeference, write columns and rows.
        allow_vrt: accept VRTs as inputs.
        format: ``gpkg``, ``flatgeobuf``, ``geojson``, ``geoparquet`` or ``shapefile``; by default
            what the output's ending says. All but GeoPackage hold one layer; GeoJSON is brought to
            longitude and latitude, and names of fields are shortened for shapefiles.
        dst_crs: CRS of the output, such as ``EPSG:4326``; lengths and areas are those in the mask's
            own CRS.
        append: add the layer to an output that exists; its other layers stay as they are.
        overwrite_layer: the same, and replace a layer of that name.
        overwrite: replace an output that exists.
        progress: called with (parts read, parts in all), once for each pass over the mask.

    Raises:
        UsageError: an argument is out of range or for the other kind, or the output is one of the
            inputs.
        InputError: an input cannot be read, is no mask, has no georeference, or the confidence
            lies on another grid.
        OutputError: the output exists, or cannot be written.
    """
    started = time.perf_counter()
    lines = LineOptions(
        min_length=min_length,
        spur=SPUR if spur is None else spur,
        simplify=simplify,
        bridge_gaps=bridge_gaps,
        bridge_confidence=FLOOR if bridge_confidence is None else bridge_confidence,
        nodes=nodes,
    )
    polygons = PolygonOptions(min_area=min_area, smooth=smooth, simplify=simplify)
    given = {
        "polygons": {"`min_area`": min_area != 0, "`smooth`": smooth},
        "centerlines": {
            "`min_length`": min_length != 0,
            "`spur`": spur is not None,
            "`bridge_gaps`": bridge_gaps != 0,
            "`bridge_confidence`": bridge_confidence is not None,
            "`nodes`": nodes,
        },
    }
    _check_kind(kind, given)
    _check_numbers(
        {
            "sieve": sieve,
            "largest hole": fill_holes,
            "smallest area": min_area,
            "least length": min_length,
            "length of spurs": lines.spur,
            "longest gap": bridge_gaps,
            "tolerance of simplify": simplify,
        }
    )
    if not 0 <= lines.bridge_confidence <= 1:
        raise UsageError(f"least confidence {lines.bridge_confidence:g} of a bridge: give 0 to 1")
    if bridge_gaps and confidence is None and threshold is None:
        raise UsageError(
            "`bridge_gaps` asks the confidence where a road goes on; add `confidence=FILE`"
        )
    if confidence is None and threshold is None and (scale != "auto" or nodata is not None):
        raise UsageError(
            "`scale` and `nodata` say how confidences are stored, and the input is a mask; leave "
            "them out, or add `threshold` or `confidence`"
        )
    stored: dict[str, Any] = {"scale": scale, "nodata": nodata, "allow_vrt": allow_vrt}
    if layer is not None:
        check_layer_name(layer)
        if nodes:
            check_layer_name(layer + NODES)
    source = find_raster(mask, allow_vrt=allow_vrt)
    measured = None if confidence is None else find_raster(confidence, allow_vrt=allow_vrt)
    inputs = [source] if measured is None else [source, measured]
    layer = layer or layer_name_from(Path(source.name).stem, kind, longest=MOST - len(NODES))
    existing = _existing(append, overwrite_layer, overwrite)
    target = check_vector_output(
        _output_of(source, output, format),
        existing=existing,
        form=format,
        layers=[layer, *([layer + NODES] if nodes else [])],
        inputs=[one.location for one in inputs if not one.remote],
    )
    destination = None if dst_crs is None else crs_of(dst_crs)
    form = format_of(target, format)
    if form.crs is not None and destination not in (None, crs_of(form.crs)):
        raise UsageError(
            f"{target}: a {form.title} is in {form.crs} by its standard; leave `dst_crs` "
            f"{dst_crs} out, or write another format"
        )
    metadata = _metadata(
        source,
        {"kind": kind, "threshold": threshold, "sieve": sieve, "fill_holes": fill_holes}
        | asdict(polygons if kind == "polygons" else lines),
    )

    with ExitStack() as stack:
        found, scene = _opened(
            stack, source, measured, beside=target, bidx=bidx, threshold=threshold,
            progress=progress, **stored,
        )  # fmt: skip
        units = _units_of(found, allow_pixel_coords)
        pixel = pixel_side(found.box, units)
        band = stack.enter_context(
            sieved_mask(
                found,
                regions=sieve,
                holes=max(sieve, math.ceil(fill_holes / pixel**2)),
                # As thinning sees it, and as polygons are.
                diagonal=kind == "centerlines",
                beside=target,
            )
        )
        same: dict[str, Any] = {"name": layer, "metadata": metadata, "progress": progress}
        if kind == "polygons":
            drawn = draw_polygons(band, scene, units, polygons, **same)
        else:
            drawn = draw_centerlines(band, scene, units, lines, **same)

    crs: Any = band.grid.crs if band.grid.has_transform else None
    layers = drawn.layers
    if destination is None and crs is not None and form.crs is not None:
        destination = crs_of(form.crs)
    if destination is not None:
        if crs is None:
            raise InputError(
                f"{band.name}: has no CRS, so nothing can be brought to {dst_crs}; assign one with "
                "gdal_edit -a_srs, or leave `dst_crs` out"
            )
        own = crs_of(crs.to_wkt())
        layers = tuple(
            replace(one, geometry=to_crs(one.geometry, own, destination)) for one in layers
        )
        crs = destination
    # With pyogrio come a hundred megabytes, which are not there yet when memory is at its highest:
    # while GDAL makes the polygons.
    from geothresh.vector.writing import write_vectors

    types = write_vectors(
        target, layers, crs=crs.to_wkt() if crs else None, existing=existing, form=format
    )
    return VectorizeResult(
        output=target,
        layer=layer,
        nodes_layer=layers[1].name if len(layers) > 1 else None,
        kind=kind,
        geometry_type=types[0],
        crs=crs.to_string() if crs else None,
        features=len(layers[0].geometry),
        left_out=drawn.left_out,
        foreground_pixels=band.spec.foreground,
        area=drawn.area,
        perimeter=drawn.perimeter,
        length=drawn.length,
        nodes=drawn.nodes,
        bridges=drawn.bridges,
        length_unit=units.suffix,
        fields=tuple(layers[0].attributes),
        seconds=time.perf_counter() - started,
    )


def _opened(
    stack: ExitStack,
    mask: RasterSource,
    confidence: RasterSource | None,
    *,
    beside: Path,
    bidx: int | None,
    threshold: float | None,
    progress: Progress | None,
    **stored: Any,
) -> tuple[Mask, Scene | None]:
    """The mask and the confidences, which are those that the mask is cut from, or on its grid."""
    if threshold is None:
        opened = stack.enter_context(
            open_mask(mask, bidx=bidx, allow_vrt=stored["allow_vrt"], progress=progress)
        )
        found, scene = stack.enter_context(plain_mask(opened, beside=beside)), None
    else:
        scene = stack.enter_context(open_scene(mask, bidx=bidx, **stored))
        found = stack.enter_context(cut_scene(scene, threshold, beside=beside, progress=progress))
    if confidence is not None:
        scene = stack.enter_context(open_scene(confidence, **stored))
        scene.require_grid_of(found)
    return found, scene


def _check_kind(kind: str, given: Mapping[str, Mapping[str, bool]]) -> None:
    """Refuse what is for the other kind: it would do nothing, and be thought to have done it."""
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r} is not known; use {' or '.join(KINDS)}")
    for other, options in given.items():
        for option, there in options.items():
            if there and other != kind:
                raise UsageError(
                    f"{option} is not for {kind}; leave it out, or choose `kind={other}`"
                )


def _check_numbers(numbers: Mapping[str, float]) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{name} {number:g}: give 0 or a positive number")


def _existing(append: bool, overwrite_layer: bool, overwrite: bool) -> Existing:
    if overwrite and (append or overwrite_layer):
        raise UsageError(
            "`overwrite` replaces the whole file, `append` and `overwrite_layer` keep its other "
            "layers; give one of them"
        )
    if overwrite_layer:
        return Existing.REPLACE_LAYER
    if append:
        return Existing.ADD
    return Existing.REPLACE if overwrite else Existing.REFUSE


def _output_of(
    source: RasterSource, output: str | os.PathLike[str] | None, form: str | None
) -> Path:
    if output is not None:
        return Path(os.fspath(output))
    if source.remote:
        raise UsageError(f"{source.name}: is not a local file; say with `output` where to write")
    path = Path(source.name) if "://" not in source.name else Path(source.location)
    return path.with_suffix(ending_of(form))


def _units_of(mask: Mask, allow_pixel_coords: bool) -> MapUnits:
    if mask.grid.has_transform:
        return MapUnits.of(mask.grid.crs.to_wkt() if mask.grid.crs else None)
    if allow_pixel_coords:
        return MapUnits.of(None, pixels=True)
    found = "only control points or RPCs" if mask.grid.is_georeferenced else "no georeference"
    raise InputError(
        f"{mask.name}: has {found}, so that polygons have no place on the map; georeference it, or "
        "add `allow_pixel_coords=True` to write columns and rows"
    )


def _metadata(source: RasterSource, options: Mapping[str, Any]) -> dict[str, str]:
    """How a layer came about, as text that is kept with it."""
    told = {"version": __version__, "mask": Path(source.name).name, **options}
    return {
        f"geothresh_{name}": "none" if value is None else str(value) for name, value in told.items()
    }
