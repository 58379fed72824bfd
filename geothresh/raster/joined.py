"""Join many masks on one pixel grid into a temporary mask.

Polygons and thinning need one raster. The files are copied to a temporary mask of their union,
window by window: sparse and compressed, it takes a thousandth of its pixels in bytes, and memory
does not grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.options import Progress
from geothresh.raster.georeference import Georeference
from geothresh.raster.grids import Surface, surfaces_of
from geothresh.raster.mask import Mask, MaskSpec, count_mask, decided_value
from geothresh.raster.paths import RasterSource
from geothresh.raster.rewriting import rewritten
from geothresh.raster.surface import OpenScenes, SurfaceReader, crs_normaliser
from geothresh.types import BoolArray
from geothresh.windows import PixelWindow, RasterSize, RegularGrid

# Side of the windows in which masks are joined; a multiple of the temporary mask's block size.
_SIDE = 2048


def windows_of(size: RasterSize) -> list[PixelWindow]:
    """Square windows that cover a raster, row by row."""
    return list(RegularGrid(size=size, part_height=_SIDE, part_width=_SIDE).windows())


def one_surface(boxes: Sequence[GeoBox]) -> Surface:
    """The surface of rasters that must lie on one pixel grid.

    Raises:
        InputError: a raster has no georeference, or they lie on several grids.
    """
    for box in boxes:
        if not box.has_transform and len(boxes) > 1:
            raise InputError(
                f"{box.name}: has no georeference, so that it has no place beside the others; "
                "georeference it"
            )
    surfaces = surfaces_of(boxes)
    if len(surfaces) > 1:
        first, other = (boxes[surface.members[0]].name for surface in surfaces[:2])
        raise InputError(
            f"{other}: is not on the pixel grid of {first} ({len(boxes)} files on {len(surfaces)} "
            "grids); name those of one grid, or warp them to one"
        )
    return surfaces[0]


@contextmanager
def joined_mask(
    sources: Sequence[RasterSource],
    *,
    bidx: int | None,
    beside: Path,
    progress: Progress | None = None,
) -> Iterator[Mask]:
    """Join many masks to one; where they overlap, the first mask with data is used.

    The foreground value is decided once for all masks, as for a single one (`open_mask`).

    Args:
        sources: the masks.
        bidx: the band, counted from 1; required for masks with several bands.
        beside: a path; the temporary mask is written to its directory.
        progress: called with (files counted, number of files), then with (windows joined, number of
            windows).

    Raises:
        InputError: a file cannot be read or is no mask, or they lie on several pixel grids.
        OutputError: the temporary mask cannot be written.
    """
    counted = []
    for done, source in enumerate(sources, 1):
        counted.append(count_mask(source, bidx))
        if progress:
            progress(done, len(sources))
    normalised = crs_normaliser()
    surface = one_surface([replace(mask.box, crs=normalised(mask.box.crs)) for mask in counted])
    name = surface.box.name
    value = decided_value(name, counted)
    specs = [replace(mask.spec, value=value) for mask in counted]
    box = Georeference.of_box(surface.box)
    windows = windows_of(box.size)

    def parts(reader: SurfaceReader[MaskSpec]) -> Iterator[tuple[PixelWindow, BoolArray]]:
        for done, window in enumerate(windows, 1):
            yield window, reader.read(window)[0] > 0
            if progress:
                progress(done, len(windows))

    with (
        OpenScenes() as scenes,
        rewritten(
            name, box, parts(SurfaceReader(surface.placement, specs, scenes)), beside
        ) as mask,
    ):
        yield mask
