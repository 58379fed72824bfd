"""Write indexes of the outputs of many files: each layer as one raster, for GDAL and QGIS."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from geothresh.files import write_text
from geothresh.many.inputs import TILE_INDEX
from geothresh.many.options import Many
from geothresh.many.places import Destination
from geothresh.many.planning import PlannedSurface, PlannedUnit
from geothresh.many.units import output_path
from geothresh.raster.creation import BandFormat
from geothresh.raster.virtual import VirtualSource, virtual_raster
from geothresh.run.outputs import describe


def write_indexes(
    destination: Destination,
    surfaces: Sequence[PlannedSurface],
    units: Collection[PlannedUnit],
    many: Many,
) -> tuple[Path | str, ...]:
    """Write ``mask.vrt`` and ``mask.gti.gpkg``, and indexes of the other layers.

    If there are several surfaces, each has indexes of its own: ``mask_1.vrt`` and so on. A tile
    index needs a CRS and north-up pixels, and is not written without them.

    Args:
        destination: where the outputs are; paths in the indexes are relative to it.
        surfaces: the surfaces.
        units: the finished units.
        many: says which layers are written.

    Raises:
        OutputError: an index cannot be written or uploaded.
    """
    written: list[Path | str] = []
    by_home: dict[int, list[PlannedUnit]] = {}
    for unit in units:
        by_home.setdefault(id(unit.home), []).append(unit)
    for number, home in enumerate(surfaces, 1):
        mine = by_home.get(id(home))
        if mine is None:
            continue
        end = "" if len(surfaces) == 1 else f"_{number}"
        for layer in many.written:
            band = home.method.bands[layer]
            made = _write(destination.directory, f"{layer}{end}", layer, home, mine, band)
            if destination.address is None:  # objects have no sidecar files
                describe(dict.fromkeys(made, band), style=home.method.writing.style)
            written += map(destination.keep, made)
    return tuple(written)


def _write(
    directory: Path,
    name: str,
    layer: str,
    home: PlannedSurface,
    units: Sequence[PlannedUnit],
    band: BandFormat,
) -> list[Path]:
    whole = home.surface.box
    files = [output_path(directory, unit.name, layer).name for unit in units]
    vrt = directory / f"{name}.vrt"
    sources = [
        VirtualSource(location=file, window=unit.window)
        for file, unit in zip(files, units, strict=True)
    ]
    write_text(vrt, virtual_raster(whole, band, sources))
    a, b, c, d, e, f = whole.transform
    if not whole.has_transform or whole.crs is None or b or d or a < 0 or e > 0:
        return [vrt]
    # Imported here because it loads geopandas.
    from geothresh.vector.tile_index import IndexedRaster, write_tile_index

    index = directory / f"{name}{TILE_INDEX}"
    boxes = [
        replace(
            whole, size=unit.window.size,
            transform=(a, b, c + a * unit.window.col, d, e, f + e * unit.window.row),
        )
        for unit in units
    ]  # fmt: skip
    write_tile_index(
        index,
        [IndexedRaster(location=f, box=box) for f, box in zip(files, boxes, strict=True)],
        whole=whole, dtype=band.dtype, nodata=band.nodata,
    )  # fmt: skip
    return [vrt, index]
