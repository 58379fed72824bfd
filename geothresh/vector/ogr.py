"""Write a layer with OGR. This module imports pyogrio, which takes a hundred megabytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
from pyogrio import raw

from geothresh.vector.formats import ogr_path
from geothresh.vector.layers import Layer
from geothresh.vector.spill import Shapes, parts_of, wkb_of

OGR_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FieldError,
)
"""Errors of pyogrio when it writes a file."""


# Drivers that store metadata of a layer; GeoJSON stores a description only.
_DESCRIBED = ("GPKG", "FlatGeobuf", "GeoJSON")


def write_layer(
    path: Path,
    layer: Layer,
    kind: str,
    geometry: Shapes,
    crs: str | None,
    *,
    driver: str,
    **options: str,
) -> None:
    """Write a layer with OGR; a GeoPackage is written in parts, to bound the memory.

    Args:
        path: the file.
        layer: the layer whose name, attributes and metadata are written.
        kind: geometry type, from `of_one_type`.
        geometry: (n,) geometries, from `of_one_type`.
        crs: the CRS as WKT, None if it is not known.
        driver: name of the OGR driver.
        **options: layer creation options of the driver.

    Raises:
        DataSourceError, DataLayerError, FieldError: the file cannot be written, see `OGR_ERRORS`.
        UsageError: pyogrio would take `path` for the address of another file.
    """
    in_parts = driver == "GPKG"
    described = driver in _DESCRIBED
    if described and layer.description:
        options["DESCRIPTION"] = layer.description
    for part in parts_of(geometry) if in_parts else [slice(None)]:
        first = part.start in (None, 0)
        raw.write(
            ogr_path(path),
            geometry=wkb_of(geometry, part),
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
