"""Write and read GeoParquet files with spatially ordered row groups and a bounding box column.

Features that are near each other are in one row group. A reader that needs a part of a country
looks at the statistics of the bounding box column, and skips all row groups outside of it. Row
groups are written and read back one at a time, so that memory holds one of them and the layer.

The format is GeoParquet 1.1.0, https://geoparquet.org/releases/v1.1.0/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

from geothresh.types import Int64Array
from geothresh.vector.layers import Layer
from geothresh.vector.spill import Shapes, bounds_of, parts_of, wkb_of
from geothresh.vector.units import Geometries

_GEOMETRY, _BOX = "geometry", "bbox"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def in_spatial_order(geometry: Shapes) -> Int64Array:
    """The order of geometries along a Hilbert curve, so that near ones mostly follow each other.

    Args:
        geometry: (n,) geometries; n may be 0.

    Returns:
        (n,) indices of the geometries in that order.
    """
    if not len(geometry):
        return np.zeros(0, np.int64)
    # The import takes half a second, and only this function needs it.
    import geopandas

    bounds = bounds_of(geometry)
    middles = (bounds[:, :2] + bounds[:, 2:]) / 2
    around = (*middles.min(axis=0), *middles.max(axis=0))
    along = [
        geopandas.GeoSeries(shapely.points(middles[part])).hilbert_distance(around).to_numpy()
        for part in parts_of(geometry)
    ]
    return np.argsort(np.concatenate(along), kind="stable")


def write_geoparquet(
    file: Path,
    layer: Layer,
    kind: str,
    geometry: Shapes,
    crs: str | None,
    *,
    order: Int64Array,
    groups: Sequence[slice],
) -> None:
    """Write a layer with its attributes; its provenance is the metadata key ``geothresh``.

    Args:
        file: the file.
        layer: the layer whose attributes, description and metadata are written.
        kind: geometry type, from `of_one_type`.
        geometry: (n,) geometries, from `of_one_type`.
        crs: the CRS as WKT, None if it is not known.
        order: (n,) indices of the features in the order in which they are written.
        groups: slices of `order`, each of which becomes a row group.
    """
    import pyarrow
    import pyarrow.parquet

    numbers = {name: pyarrow.array(values[:0]) for name, values in layer.attributes.items()}
    box = pyarrow.struct([(side, pyarrow.float64()) for side in _SIDES])
    fields = [pyarrow.field(name, empty.type) for name, empty in numbers.items()]
    fields += [pyarrow.field(_GEOMETRY, pyarrow.binary()), pyarrow.field(_BOX, box)]
    told = {"description": layer.description, **layer.metadata}
    schema = pyarrow.schema(
        fields,
        {"geo": json.dumps(_metadata(kind, geometry, crs)), "geothresh": json.dumps(told)},
    )
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in groups:
            some = order[group]
            sides = shapely.bounds(geometry[some]).reshape(-1, 4)
            columns = [
                # Missing numbers are NaN in numpy, and null in the file.
                pyarrow.array(values[some], from_pandas=True)
                for values in layer.attributes.values()
            ]
            columns.append(pyarrow.array(wkb_of(geometry, some), pyarrow.binary()))
            columns.append(pyarrow.StructArray.from_arrays(list(sides.T), fields=list(box)))
            writer.write_table(pyarrow.table(columns, schema))


def _metadata(kind: str, geometry: Shapes, crs: str | None) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [kind],
        "crs": None if crs is None else CRS.from_user_input(crs).to_json_dict(),
        "covering": {_BOX: {side: [_BOX, side] for side in _SIDES}},
    }
    if len(geometry):
        bounds = bounds_of(geometry)
        column["bbox"] = [*bounds[:, :2].min(axis=0).tolist(), *bounds[:, 2:].max(axis=0).tolist()]
    return {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}


def read_geometries(file: Path) -> Iterator[Geometries]:
    """Read the geometries of a file, one row group at a time.

    Yields:
        (k,) geometries of a row group.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as source:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group, columns=[_GEOMETRY])
            found: Geometries = shapely.from_wkb(table[_GEOMETRY].to_numpy())
            yield found
