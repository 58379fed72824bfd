"""Write a layer with OGR. Importing this loads pyogrio, which takes a hundred megabytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import shapely
from pyogrio import raw

from geothresh.vector.formats import ogr_path
from geothresh.vector.layers import Layer
from geothresh.vector.units import Geometries

OGR_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FieldError,
)


# Drivers that store metadata of a layer; GeoJSON stores a description only.
_DESCRIBED = ("GPKG", "FlatGeobuf", "GeoJSON")
# Points of the geometries written at once: 16 bytes each, and as much again as WKB.
_POINTS = 1 << 20


def write_layer(
    path: Path,
    layer: Layer,
    kind: str,
    geometry: Geometries,
    crs: str | None,
    *,
    driver: str,
    **options: str,
) -> None:
    """Write a layer with OGR; a GeoPackage in parts, to bound the memory.

    Args:
        path: the file.
        layer: whose attributes and metadata are written.
        kind, geometry: from `of_one_type`.
        crs: as WKT, None where it is not known.
        driver: of OGR.
        **options: of the driver, for the layer.
    """
    in_parts = driver == "GPKG"
    described = driver in _DESCRIBED
    if described and layer.description:
        options["DESCRIPTION"] = layer.description
    for part in parts_of(geometry) if in_parts else [slice(None)]:
        first = part.start in (None, 0)
        raw.write(
            ogr_path(path),
            geometry=shapely.to_wkb(geometry[part]),
            field_data=[np.ascontiguousarray(v[part]) for v in layer.attributes.values()],
            fields=list(layer.attributes),
            layer=layer.name,
            driver=driver,
            geometry_type=kind,
            promote_to_multi=False,
            crs=crs,
            layer_metadata=dict(layer.metadata) or None if described and first else None,
            layer_options=options if first else None,
            append=not first,
        )


def parts_of(geometry: Geometries) -> list[slice]:
    """Slices that together are all geometries, each of about a million points; at least one."""
    points = np.cumsum(shapely.get_num_coordinates(geometry))
    cuts = np.searchsorted(points, np.arange(_POINTS, points[-1] if len(points) else 0, _POINTS))
    bounds = np.unique(np.concatenate([[0], cuts, [len(geometry)]]))
    if len(bounds) == 1:
        return [slice(0, 0)]
    return [slice(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
