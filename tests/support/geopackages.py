"""Squares written to a GeoPackage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyogrio import list_layers
from pyproj import CRS

from geothresh.vector.layers import Layer
from geothresh.vector.writing import write_geopackage

UTM = CRS.from_epsg(32633).to_wkt()


def squares(count: int) -> Any:
    left = np.arange(count) * 2.0
    return shapely.box(left, 0.0, left + 1.0, 1.0)


def write(path: Path, count: int = 3, **options: Any) -> str:
    geometry = options.pop("geometry", squares(count))
    attributes = {"area_m2": np.arange(len(geometry)) + 0.5}
    arguments = {"name": "roads", "attributes": attributes, "kind": "Polygon", **options}
    how = {name: arguments.pop(name) for name in ("crs", "existing") if name in arguments}
    layer = Layer(geometry=geometry, **arguments)
    (written,) = write_geopackage(path, [layer], **{"crs": UTM, **how})
    return written


def layers_of(path: Path) -> list[str]:
    return [str(name) for name in list_layers(path)[:, 0]]


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
