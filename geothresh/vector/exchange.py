"""Write the formats that hold one layer: FlatGeobuf, GeoJSON, GeoParquet and shapefiles.

A file is written to a temporary folder beside the output. Then its geometries are read back and
compared, and the file is renamed. A shapefile consists of several files; its ``.shp`` is renamed
after all others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio import raw

from geothresh.errors import OutputError
from geothresh.files import create_beside, discard, publish
from geothresh.sidecars import put_style
from geothresh.vector.formats import VectorFormat, ogr_path
from geothresh.vector.geoparquet import in_spatial_order, read_geometries, write_geoparquet
from geothresh.vector.layers import Layer, Mismatch
from geothresh.vector.ogr import OGR_ERRORS, write_layer
from geothresh.vector.spill import Shapes, of_one_type, parts_of, taken
from geothresh.vector.styles import style_of
from geothresh.vector.units import Geometries

# Most characters of a field name in a shapefile, and abbreviations for longer names.
_DBF_NAME = 10
_SHORTER = {
    "perimeter": "perim",
    "confidence": "conf",
    "compactness": "compact",
    "orientation": "orient",
    "width_min": "wid_min",
    "rect_length": "rect_len",
    "rect_width": "rect_wid",
    "_units": "_un",
}
# Shapely's numbers of MultiLineStrings and MultiPolygons.
_MULTI = (5, 6)
#: Coordinates of GeoJSON have 7 decimals of a degree: about a centimetre.
_DEGREES = 1e-7


def write_file(
    target: Path, layer: Layer, *, form: VectorFormat, crs: str | None, style: bool = True
) -> str:
    """Write a layer to a file; an existing `target` is replaced only after the check.

    Args:
        target: the file, checked by `geothresh.vector.outputs.check_vector_output`.
        layer: the layer.
        form: the format; any but GeoPackage.
        crs: the CRS of the geometries as WKT, None if it is not known. If the format allows only
            one CRS, it must be that one.
        style: whether to write a style for QGIS, too. It is written before `target`.

    Returns:
        The geometry type of the file: the kind of the layer, or the Multi type of that kind.

    Raises:
        OutputError: the file cannot be written, other geometries are read back from it, or
            features are too small for its decimals.
    """
    in_degrees = form.crs is not None and crs is not None
    tolerance = _DEGREES if in_degrees else 0.0
    if form.name == "shapefile":
        layer = replace(layer, attributes={_short(k): v for k, v in layer.attributes.items()})
    kind, geometry = of_one_type(layer.geometry, layer.kind)
    with _folder_beside(target) as folder:
        file = folder / f"{layer.name}{target.suffix.lower()}"
        try:
            if form.driver:
                options = {"RFC7946": "YES"} if in_degrees else {}
                write_layer(file, layer, kind, geometry, crs, driver=form.driver, **options)
                found = shapely.from_wkb(raw.read(ogr_path(file), columns=[])[2])
                # A FlatGeobuf has its features in the order of its spatial index.
                _compare(
                    np.asarray(found, object), geometry[:], tolerance=tolerance,
                    sort=form.name == "flatgeobuf",
                )  # fmt: skip
            else:
                _write_parquet(file, layer, kind, geometry, crs)
        except (*OGR_ERRORS, OSError) as error:
            text = " ".join(str(error).replace(str(folder), str(target.parent)).split())
            raise OutputError(
                f"{target}: the {form.title} could not be written ({text}); is the disk full? "
                "nothing was left behind"
            ) from error
        except _Degenerate as error:
            raise OutputError(
                f"{target}: {error} in {form.title}: pixels are smaller than its 7 decimals of a "
                "degree, about 1 cm, can show; write .gpkg; nothing was left behind"
            ) from error
        except Mismatch as error:
            raise OutputError(
                f"{target}: the {form.title} does not hold what was written: {error}; is the disk "
                "full? nothing was left behind"
            ) from error
        if form.part_endings:
            # Killed between two renames, a run would leave old geometries with new attributes.
            target.unlink(missing_ok=True)
        for ending in form.part_endings:
            part, there = file.with_suffix(ending), target.with_suffix(ending)
            if part.exists():
                publish(part, there)
            else:
                # This part is of the old file, for example a CRS that the new file does not have.
                there.unlink(missing_ok=True)
        for ending in form.index_endings:
            target.with_suffix(ending).unlink(missing_ok=True)
        put_style(target, style_of(layer) if style else None, "vector")
        publish(file, target)
    return kind


def _write_parquet(file: Path, layer: Layer, kind: str, geometry: Shapes, crs: str | None) -> None:
    """Write a GeoParquet file in spatial order, then read it back and compare; by row groups.

    Raises:
        Mismatch: other geometries are read back.
    """
    order = in_spatial_order(geometry)
    groups = parts_of(taken(geometry, order))
    write_geoparquet(file, layer, kind, geometry, crs, order=order, groups=groups)
    count = 0
    for group, found in zip(groups, read_geometries(file), strict=False):
        _compare(found, geometry[order[group]], tolerance=0.0, sort=False)
        count += len(found)
    if count != len(geometry):
        raise Mismatch(f"{count} of {len(geometry)} features")


def _compare(found: Geometries, geometry: Geometries, *, tolerance: float, sort: bool) -> None:
    """Compare geometries that were read back with those that were written.

    Rings may begin at another corner or have another direction.

    Args:
        found: geometries that were read back.
        geometry: geometries that were written.
        tolerance: unit of the last decimal of the file's coordinates; 0 = they are not rounded.
        sort: whether the file may have the features in another order.

    Raises:
        Mismatch: they differ.
        _Degenerate: polygons or lines have lost a dimension by rounding.
    """
    if len(found) != len(geometry):
        raise Mismatch(f"{len(found)} of {len(geometry)} features")
    ours, theirs = (_normal(one) for one in (geometry, found))
    if sort:
        ours, theirs = (one[np.argsort(shapely.to_wkb(one))] for one in (ours, theirs))
    differs = ~shapely.equals_exact(ours, theirs, tolerance=2 * tolerance)
    if tolerance:
        flat = ~shapely.is_missing(theirs) & (_dimension(theirs) != _dimension(ours))
        if flat.any():
            raise _Degenerate(f"{np.count_nonzero(flat):,} of {len(geometry):,} features collapse")
        # Different corners may be rounded to the same one, which removes it: compare shapes.
        apart = shapely.hausdorff_distance(ours[differs], theirs[differs])
        # The distance to a missing or empty geometry is NaN.
        differs[differs] = ~(apart <= 2 * tolerance)
    if differs.any():
        count = np.count_nonzero(differs)
        raise Mismatch(f"{count} of {len(geometry)} features have other corners")


class _Degenerate(Exception):
    """Features that rounding has made lines or points."""


def _dimension(geometry: Geometries) -> NDArray[np.int64]:
    """Dimension of each geometry, -1 for a collection of several dimensions."""
    mixed = shapely.get_type_id(geometry) == shapely.GeometryType.GEOMETRYCOLLECTION
    dimension: NDArray[np.int64] = np.where(mixed, -1, shapely.get_dimensions(geometry))
    return dimension


def _normal(geometry: Geometries) -> Geometries:
    """Each geometry in its normal form; a Multi geometry of one part becomes that part."""
    normal: Geometries = shapely.normalize(shapely.force_2d(geometry))
    kinds = shapely.get_type_id(normal)
    one = np.isin(kinds, _MULTI) & (shapely.get_num_geometries(normal) == 1)
    normal[one] = shapely.get_geometry(normal[one], 0)
    return normal


def _short(name: str) -> str:
    """The name of a field in a shapefile, of at most ten characters."""
    for long, short in _SHORTER.items():
        name = name.replace(long, short)
    return name[:_DBF_NAME]


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, which is removed with its content when the block ends."""
    temporary = create_beside(target)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            yield temporary.parent
    finally:
        discard(temporary)
