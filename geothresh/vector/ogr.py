"""Writing with OGR. Whoever imports this waits for pyogrio and its hundred megabytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import shapely
from pyogrio import raw

from geothresh.vector.layers import Layer
from geothresh.vector.units import Geometries

OGR_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FieldError,
)


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
    """Write a layer with OGR.

    Args:
        path: the file.
        layer: whose attributes and metadata are written.
        kind, geometry: from `of_one_type`.
        crs: as WKT, None where it is not known.
        driver: of OGR.
        **options: of the driver, for the layer.
    """
    raw.write(
        str(path),
        geometry=shapely.to_wkb(geometry),
        field_data=[np.ascontiguousarray(values) for values in layer.attributes.values()],
        fields=list(layer.attributes),
        layer=layer.name,
        driver=driver,
        geometry_type=kind,
        promote_to_multi=False,
        crs=crs,
        layer_metadata=dict(layer.metadata) or None if driver == "GPKG" else None,
        layer_options=options,
    )
