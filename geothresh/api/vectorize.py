"""Vectorise a mask: polygons or centrelines, in a GeoPackage or another format."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geothresh._version import __version__
from geothresh.addresses import Address
from geothresh.errors import InputError, UsageError, warn
from geothresh.fields import Value, checked, decisive, plain, require_only
from geothresh.many.examining import WholeSurface, examine_all
from geothresh.many.inputs import Rasters, find_rasters
from geothresh.many.options import Many
from geothresh.options import READ_WHOLE, PathLike, Progress, Reading
from geothresh.raster.joined import joined_mask, one_surface, windows_of
from geothresh.raster.mask import Mask, open_mask, strips
from geothresh.raster.provenance import Provenance
from geothresh.raster.regions import sieved_mask
from geothresh.raster.rewriting import Confidences, cut_scene
from geothresh.raster.scene import Scene, open_scene
from geothresh.raster.surface import OpenScenes
from geothresh.run.directories import with_directories
from geothresh.run.staging import staged
from geothresh.vector.centerlines import pixel_side
from geothresh.vector.drawing import NODES, draw_layers
from geothresh.vector.formats import (
    MOST_CHARACTERS,
    VectorFormat,
    check_layer_name,
    ending_of,
    format_of,
    layer_name_from,
)
from geothresh.vector.layers import Layer
from geothresh.vector.options import Centerlines, Foreground, Kind, Polygons, VectorWriting
from geothresh.vector.outputs import Existing, check_vector_output
from geothresh.vector.reprojection import crs_of, short_name, to_crs
from geothresh.vector.spill import spilling
from geothresh.vector.units import ROUNDING, MapUnits


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizeResult:
    """Path, layers and statistics of what was written."""

    output: Path | str
    """The GeoPackage, or file of another format; a text if in an object store."""

    layer: str
    """The layer in it."""

    nodes_layer: str | None
    """The layer with the nodes between centrelines, if it was asked for."""

    kind: Kind
    """Polygons or centrelines."""

    geometry_type: str
    """``Polygon`` or ``LineString``; a multi-part type where a simplified polygon could not be
    valid otherwise, or a feature crosses the 180th meridian."""

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
    """Centrelines that bridge a gap of the mask; None for polygons."""

    length_unit: str
    """``m``; ``units`` where the unit of the CRS is unknown, ``px`` for pixel coordinates."""

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
        return {**plain(self), "area_unit": self.area_unit}


@checked(draw=Value((Polygons, Centerlines)))
@with_directories
def vectorize(
    mask: PathLike | Sequence[PathLike] | Any,
    output: PathLike | None = None,
    *,
    confidence: PathLike | Sequence[PathLike] | Any | None = None,
    draw: Polygons | Centerlines = Polygons(),
    foreground: Foreground = Foreground(),
    reading: Reading = Reading(),
    writing: VectorWriting = VectorWriting(),
    progress: Progress | None = None,
) -> VectorizeResult:
    """Write the foreground of a mask as polygons or centrelines to a GeoPackage or another file.

    Polygons: each 4-connected region becomes one valid polygon along its pixel edges, whole across
    all blocks, with the attributes ``area_m2``, ``perimeter_m`` (holes included) and
    ``compactness`` (4 pi area / perimeter squared) of the polygon as it is written,
    ``rect_length_m``, ``rect_width_m`` and ``orientation_deg`` (from north towards east) of its
    minimum rotated rectangle, and ``confidence_mean``, ``confidence_min`` and ``confidence_p10``
    over the valid pixels of the region.

    Centrelines: the foreground is thinned (Guo and Hall 1989) to lines from node to node, the same
    whatever the size of the raster; they are smoothed by at most a pixel. Attributes are
    ``length_m``, ``width_m`` and ``width_min_m`` (full width of the mask: mean and least along the
    line), ``confidence_mean``, ``confidence_min`` and ``confidence_p10`` along the line.

    Lengths and areas, of attributes and of options, are measured in the plane of a projected CRS,
    and on the ellipsoid for longitude and latitude. Without a CRS they are ``area_units2`` and so
    on, in pixel coordinates ``area_px2``.

    Args:
        mask: GeoTIFF, path or open rasterio dataset: 1 = foreground, 0 = background, 255 =
            nodata. Where only 0 and 255 occur and 255 is not tagged as nodata, 255 is foreground.
            Or many masks on one pixel grid, which are read as one, so that features are whole
            across their borders: a sequence of paths, a directory of GeoTIFFs, ``@list.txt`` with
            one name a line, a GDAL tile index (.gti.gpkg).
        output: the file to write; by default the mask's name with the ending ``.gpkg``, beside it.
            Required for many masks.
        confidence: one or many rasters on the mask's grid. With a threshold, `mask` itself by
            default.
        draw: polygons or centrelines, and their options.
        foreground: the threshold where `mask` holds confidences, and what is removed or filled.
        reading: band of `mask`; scale and nodata of the confidences.
        writing: layer, format and CRS of the output, and what happens to a file that exists.
        progress: called with (parts read, parts in all), once for each pass over the mask.

    Returns:
        The file and its layers, and the number, length or area of the features.

    Raises:
        UsageError: options contradict each other, or the output is one of the inputs.
        InputError: an input cannot be read, is no mask, has no georeference, or the confidence
            lies on another grid.
        OutputError: the output exists, or cannot be written.

    Example:
        >>> draw = Centerlines(nodes=True, bridge_gaps=30)
        >>> vectorize("mask.tif", "roads.gpkg", draw=draw, confidence="refined.tif").features
        211
    """
    started = time.perf_counter()
    cut = foreground.threshold is not None
    _require_use(draw, reading, confident=cut or confidence is not None)
    inputs = [find_rasters(mask, allow_vrt=reading.allow_vrt)]
    if confidence is not None:
        inputs.append(find_rasters(confidence, allow_vrt=reading.allow_vrt))
    named = _output_of(inputs[0], output, writing.format)
    with ExitStack() as outer:
        file = outer.enter_context(_local(named, inputs, writing))
        target = _Target.of(inputs, file, draw, writing)
        spill = outer.enter_context(spilling(target.path))
        with ExitStack() as stack:
            found, scene = _opened(stack, inputs, foreground, reading, target.path, progress)
            units = _units_of(found, writing.allow_pixel_coords)
            target.require_crs(found)
            band = stack.enter_context(_sieved(found, units, foreground, draw, target.path))
            drawn = draw_layers(
                band, scene, units, draw, name=target.layers[0],
                metadata=_metadata(inputs, draw, foreground), progress=progress, spill=spill,
            )  # fmt: skip
        layers, crs = target.placed(drawn.layers, band)
        # Imported late, when what it takes to draw is out of memory: pyogrio takes a hundred
        # megabytes.
        from geothresh.vector.writing import write_vectors

        types = write_vectors(
            target.path, layers, crs=crs.to_wkt() if crs else None, existing=writing.existing,
            form=target.form.name, style=writing.style,
        )  # fmt: skip
    return VectorizeResult(
        output=named,
        layer=layers[0].name,
        nodes_layer=layers[1].name if len(layers) > 1 else None,
        kind=draw.kind,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """The vector output, checked before any work."""

    path: Path
    form: VectorFormat
    layers: tuple[str, ...]
    """Names: of polygons or lines, and of the nodes where they are asked for."""
    crs: Any
    """CRS (pyproj) that the vectors are brought to; None = the mask's own."""

    @classmethod
    def of(
        cls,
        inputs: Sequence[Rasters],
        output: Path,
        draw: Polygons | Centerlines,
        writing: VectorWriting,
    ) -> _Target:
        """Errors as `vectorize`."""
        # A layer that is added to a file is named after its mask.
        named = Path(inputs[0].name) if writing.append else output
        most = MOST_CHARACTERS - len(NODES)
        layer = writing.layer or layer_name_from(named.stem, draw.kind, longest=most)
        layers: tuple[str, ...] = (layer,)
        if isinstance(draw, Centerlines) and draw.nodes:
            layers = (layer, check_layer_name(layer + NODES))
        path = check_vector_output(
            output, existing=writing.existing,
            form=writing.format, layers=layers,
            inputs=[file for one in inputs for file in one.local],
        )  # fmt: skip
        form = format_of(path, writing.format)
        asked = None if writing.dst_crs is None else crs_of(writing.dst_crs)
        only = None if form.crs is None else crs_of(form.crs)
        if only is not None and asked not in (None, only):
            raise UsageError(
                f"{path}: a {form.title} is in {form.crs} by its standard; leave `dst_crs` "
                f"{writing.dst_crs} out, or write another format"
            )
        return cls(path=path, form=form, layers=layers, crs=asked)

    def require_crs(self, mask: Mask) -> None:
        """Refuse a mask without a CRS if the output is in a given one; warn of pixel coordinates.

        Raises:
            InputError: the mask has no CRS.
        """
        if mask.box.has_transform and mask.box.parsed_crs is not None:
            return
        if self.crs is not None:
            raise InputError(
                f"{mask.name}: has no CRS, so nothing can be brought to {short_name(self.crs)}; "
                "assign one with gdal_edit -a_srs, or leave `dst_crs` out"
            )
        if mask.box.has_transform:
            self.form.require_crs(mask.name, None)
        elif self.form.crs is not None:
            warn(
                f"{self.path}: columns and rows in a {self.form.title}, which GDAL and QGIS take "
                "for longitudes and latitudes; write .gpkg for them"
            )

    def placed(self, layers: Sequence[Layer], mask: Mask) -> tuple[Sequence[Layer], Any]:
        """Layers of a mask in the CRS of the output, and that CRS; None = unknown.

        Raises:
            InputError: a feature has no place in the CRS of the output.
        """
        own = mask.box.parsed_crs if mask.box.has_transform else None
        if own is None:
            return layers, None
        there = self.crs
        if there is None and self.form.crs is not None:
            there = crs_of(self.form.crs)
        if there is None:
            return layers, own
        here = crs_of(own.to_wkt())
        moved = [replace(one, geometry=to_crs(one.geometry, here, there)) for one in layers]
        return moved, there


def _require_use(draw: Polygons | Centerlines, reading: Reading, *, confident: bool) -> None:
    """Refuse options that would be ignored."""
    require_only(reading, *READ_WHOLE, why="is for `geothresh refine`")
    if confident:
        return
    if isinstance(draw, Centerlines) and draw.bridge_gaps:
        raise UsageError(
            "`bridge_gaps` asks the confidence where a road goes on; add `confidence=FILE`"
        )
    if reading.scale != "auto" or reading.nodata is not None:
        raise UsageError(
            "`scale` and `nodata` say how confidences are stored, and the input is a mask; leave "
            "them out, or add `threshold` or `confidence`"
        )


def _local(
    output: Path | str, inputs: Sequence[Rasters], writing: VectorWriting
) -> AbstractContextManager[Path]:
    """The file that is written here, and sent if it is an object."""
    if Address.of(output) is not None and writing.existing.keeps:
        raise UsageError(
            f"{output}: layers can be added to a local GeoPackage, not to an object; leave "
            "`append` and `overwrite_layer` out, or fetch it first"
        )
    locations = [source.location for one in inputs for source in one.sources]
    return staged(output, overwrite=writing.existing is Existing.REPLACE, inputs=locations)


def _output_of(mask: Rasters, output: PathLike | None, form: str | None) -> Path | str:
    if output is not None:
        address = Address.of(output)
        return Path(os.fspath(output)) if address is None else address.name
    if mask.several:
        raise UsageError(f"{mask.name}: is many masks; say with `output` where to write")
    (source,) = mask.sources
    return source.beside(ending_of(form), "vectors")


def _opened(
    stack: ExitStack,
    inputs: Sequence[Rasters],
    foreground: Foreground,
    reading: Reading,
    beside: Path,
    progress: Progress | None,
) -> tuple[Mask, Confidences | None]:
    """The mask, and the confidences that it is cut from, or that lie on its grid, if any."""
    mask, *others = inputs
    scene: Confidences | None = None
    same: dict[str, Any] = {"beside": beside, "progress": progress}
    if foreground.threshold is not None:
        scene = _confidences(stack, mask, reading)
        windows = (
            strips(scene.size, scene.layout.part_height)
            if isinstance(scene, Scene)
            else windows_of(scene.box.size)
        )
        cut = cut_scene(scene, foreground.threshold, windows=windows, **same)
        found = stack.enter_context(cut)
    elif mask.several:
        found = stack.enter_context(joined_mask(mask.sources, bidx=reading.bidx, **same))
    else:
        found = stack.enter_context(
            open_mask(mask.sources[0], bidx=reading.bidx, progress=progress)
        )
    for confidence in others:
        # The band is the mask's.
        scene = _confidences(stack, confidence, replace(reading, bidx=None))
        scene.box.require_same(found.box)
    return found, scene


def _confidences(stack: ExitStack, rasters: Rasters, reading: Reading) -> Confidences:
    """Open confidences, one raster or many as one."""
    if not rasters.several:
        return stack.enter_context(open_scene(rasters.sources[0], reading))
    files = examine_all(rasters.sources, reading, Many())
    surface = one_surface(files.boxes)
    specs = tuple(files.specs[index] for index in surface.members)
    return WholeSurface(surface, specs, stack.enter_context(OpenScenes()))


def _sieved(
    mask: Mask, units: MapUnits, foreground: Foreground, draw: Polygons | Centerlines, beside: Path
) -> AbstractContextManager[Mask]:
    pixels = foreground.fill_holes / pixel_side(mask.box, units) ** 2
    # A hole of exactly this area stays.
    holes = math.ceil(pixels * (1 - ROUNDING))
    return sieved_mask(
        mask,
        regions=foreground.sieve,
        holes=max(foreground.sieve, holes),
        # 8-connected for thinning, 4-connected for polygons.
        diagonal=isinstance(draw, Centerlines),
        beside=beside,
    )


def _units_of(mask: Mask, allow_pixel_coords: bool) -> MapUnits:
    if mask.box.has_transform:
        return MapUnits.of(mask.box.crs)
    if allow_pixel_coords:
        return MapUnits.of(None, pixels=True)
    found = "only control points or RPCs" if mask.box.is_georeferenced else "no georeference"
    raise InputError(
        f"{mask.name}: has {found}, so that polygons have no place on the map; georeference it, or "
        "add `allow_pixel_coords=True` to write columns and rows"
    )


def _metadata(
    inputs: Sequence[Rasters], draw: Polygons | Centerlines, foreground: Foreground
) -> dict[str, str]:
    """Metadata of a layer that says how it was made."""
    mask = inputs[0]
    # With a threshold the mask is cut from confidences, which are measured too.
    measured = inputs[-1] if len(inputs) > 1 or foreground.threshold is not None else None
    made = Provenance.of(mask.sources[0])
    told: dict[str, Any] = {
        "version": __version__,
        "mask": Path(mask.name).name,
        "confidence": "" if measured is None else Path(measured.name).name,
        "model": made.model,
        "model_sha256": made.sha256,
        "theme": made.theme,
        "kind": draw.kind,
    }
    told |= decisive(foreground, draw)
    return {
        f"geothresh_{name}": "none" if value is None else str(value)
        for name, value in told.items()
        if value != ""
    }
