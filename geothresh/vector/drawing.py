"""Make the vector layers of a mask: polygons, or centrelines and their nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.options import Progress
from geothresh.raster.features import confidence_sums, mask_outlines
from geothresh.raster.mask import Mask
from geothresh.raster.rewriting import Confidences
from geothresh.skeleton.bridging import bridged
from geothresh.skeleton.graph import centerline_network
from geothresh.vector.centerlines import (
    CONFIDENCE_FIELDS,
    PixelGround,
    make_centerlines,
    pixel_side,
)
from geothresh.vector.layers import Layer, rounded
from geothresh.vector.options import Centerlines, Polygons
from geothresh.vector.polygons import PolygonBatch, make_polygons
from geothresh.vector.spill import Spill
from geothresh.vector.units import MapUnits
from geothresh.windows import PixelWindow

#: The layer of nodes has the name of the layer of centrelines and this suffix.
NODES = "_nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Layers of polygons or lines, and their statistics."""

    layers: tuple[Layer, ...]
    """The layer of polygons or centrelines; then that of the nodes, if they are wanted."""
    left_out: int
    """Number of polygons or lines left out, as they were too small or too short."""
    area: float | None = None
    """Area of all polygons, in the unit of `MapUnits.area_field`; None for centrelines."""
    perimeter: float | None = None
    """Perimeter of all polygons, in the unit of length; None for centrelines."""
    length: float | None = None
    """Length of all centrelines, in the unit of length; None for polygons."""
    nodes: int | None = None
    """Number of nodes of centrelines; None for polygons."""
    bridges: int | None = None
    """Number of bridged gaps; None for polygons."""


def draw_layers(
    mask: Mask,
    scene: Confidences | None,
    units: MapUnits,
    draw: Polygons | Centerlines,
    *,
    name: str,
    metadata: Mapping[str, str],
    progress: Progress | None,
    spill: Spill | None = None,
) -> Drawn:
    """Draw the foreground as polygons, or as centrelines with or without their nodes.

    Args:
        mask: the open mask.
        scene: the confidence raster on the same grid; None = layers have no confidences, and no
            gaps are bridged.
        units: units of the map coordinates.
        draw: options of polygons or of centrelines, which choose what is drawn.
        name: name of the layer.
        metadata: metadata of the layer.
        progress: called with (parts read, parts in all).
        spill: file that stores the polygons, see `make_polygons`.

    Raises:
        InputError: a raster cannot be read, or the polygons do not cover the foreground.
        OutputError: the file of polygons cannot be written or read.
        UsageError: the gaps to bridge are too long.
    """
    same: dict[str, Any] = {"name": name, "metadata": metadata, "progress": progress}
    if isinstance(draw, Centerlines):
        return _centerlines(mask, scene, units, draw, **same)
    return _polygons(mask, scene, units, draw, spill=spill, **same)


def _polygons(
    mask: Mask,
    scene: Confidences | None,
    units: MapUnits,
    options: Polygons,
    *,
    name: str,
    metadata: Mapping[str, str],
    progress: Progress | None,
    spill: Spill | None,
) -> Drawn:
    # The generator is closed here. After an interruption it could otherwise be collected when its
    # GDAL environments no longer exist.
    with closing(mask_outlines(mask)) as outlines:
        polygons = make_polygons(
            outlines,
            box=mask.box,
            units=units,
            min_area=options.min_area,
            smooth=options.smooth,
            simplify=options.simplify,
            spill=spill,
        )
    _require_all_pixels(mask, polygons)
    rectangle_length, rectangle_width = units.rectangle_fields
    attributes = {
        units.area_field: polygons.area,
        units.perimeter_field: polygons.perimeter,
        "compactness": polygons.compactness,
        rectangle_length: polygons.length,
        rectangle_width: polygons.width,
        "orientation_deg": polygons.orientation,
    }
    if scene is not None:
        sums = confidence_sums(mask, scene, progress=progress)
        rows = sums.rows(polygons.first_pixel)
        values = (sums.mean, sums.least, sums.tenth)
        attributes |= zip(CONFIDENCE_FIELDS, (one[rows] for one in values), strict=True)
    return Drawn(
        layers=(
            Layer(
                name=name,
                kind="Polygon",
                geometry=polygons.geometry,
                attributes=rounded(attributes, pixel=pixel_side(mask.box, units)),
                metadata=metadata,
            ),
        ),
        left_out=polygons.left_out,
        area=math.fsum(polygons.area),
        perimeter=math.fsum(polygons.perimeter),
    )


def _centerlines(
    mask: Mask,
    scene: Confidences | None,
    units: MapUnits,
    options: Centerlines,
    *,
    name: str,
    metadata: Mapping[str, str],
    progress: Progress | None,
) -> Drawn:
    size, box = mask.size, mask.box
    confidence = None if scene is None else partial(_confidences, scene)
    network = centerline_network(mask.foreground, size, confidence=confidence, progress=progress)
    network = network.pruned(options.spur)
    if options.bridge_gaps and confidence is not None:
        network = bridged(
            network,
            confidence,
            size,
            reach=options.bridge_gaps,
            floor=options.bridge_confidence,
            ground=PixelGround(box=box, units=units),
        )
    lines = make_centerlines(
        network,
        box=box,
        units=units,
        confident=confidence is not None,
        min_length=options.min_length,
        simplify=options.simplify,
    )
    layers = [
        Layer(
            name=name,
            kind="LineString",
            geometry=lines.geometry,
            attributes=rounded(
                lines.attributes(units, bridges=options.bridge_gaps > 0),
                pixel=pixel_side(box, units),
            ),
            metadata=metadata,
        )
    ]
    if options.nodes:
        layers.append(
            Layer(
                name=name + NODES,
                kind="Point",
                geometry=lines.nodes,
                attributes={"degree": lines.degree},
                metadata=metadata,
            )
        )
    return Drawn(
        layers=tuple(layers),
        left_out=lines.left_out,
        length=math.fsum(lines.length),
        nodes=len(lines.nodes),
        bridges=int(np.count_nonzero(lines.bridged)),
    )


def _confidences(scene: Confidences, window: PixelWindow) -> NDArray[np.float32]:
    values, valid = scene.read(window)
    return np.where(valid, values, np.float32(np.nan))


def _require_all_pixels(mask: Mask, polygons: PolygonBatch) -> None:
    if polygons.pixels != mask.spec.foreground:
        raise InputError(
            f"{mask.name}: the polygons cover {polygons.pixels} pixels, but "
            f"{mask.spec.foreground} were foreground when they were counted: the file was changed "
            "meanwhile or is damaged in a way that GDAL does not tell, or the disk is full; if it "
            "is none of these, please report this with the mask"
        )
