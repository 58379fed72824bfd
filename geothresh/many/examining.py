"""Examine many files before any pixel is refined, and group them into surfaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.many.inputs import BadFile
from geothresh.many.options import Many
from geothresh.options import Reading
from geothresh.raster.alike import examine_each
from geothresh.raster.checks import MOST_PIXELS
from geothresh.raster.georeference import Georeference
from geothresh.raster.grids import Surface, surfaces_of
from geothresh.raster.paths import RasterSource
from geothresh.raster.scene import Examined, SceneSpec
from geothresh.raster.surface import (
    OpenScenes,
    SurfaceReader,
    crs_normaliser,
    decide_each,
    decide_together,
    merged_warnings,
)

# Most pixels of a raster that is cut into pieces: memory does not grow with the whole raster.
_MOST_IN_PIECES = 10**14


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Files whose metadata is checked and whose scaling is decided."""

    specs: tuple[SceneSpec, ...]
    """How each file is read."""
    boxes: tuple[GeoBox, ...]
    """Size, transform and CRS of each file."""
    bad: tuple[BadFile, ...]
    """Files that are left out."""


def examine_all(sources: Sequence[RasterSource], reading: Reading, many: Many) -> Examination:
    """Open and check each file, and decide how all are read.

    Raises:
        InputError, UsageError: see `refine`; for the first bad file, or with `skip_bad` only if no
            file is left.
    """
    most = MOST_PIXELS if many.piece is None else _MOST_IN_PIECES
    bad: list[BadFile] = []

    def leave_out(source: RasterSource, error: InputError) -> None:
        if not many.skip_bad:
            raise error
        bad.append(BadFile(name=source.name, reason=str(error)))

    with merged_warnings([source.name for source in sources]):
        usable: list[Examined] = []
        for source, result in zip(sources, examine_each(sources, reading, most), strict=True):
            if isinstance(result, InputError):
                leave_out(source, result)
            else:
                usable.append(result)
        specs = _decided(usable, reading, leave_out, separately=many.separately)
    left = [file for file in usable if file in specs]
    if not left:
        raise InputError(f"no raster is left to refine; {bad[0].reason}")
    normalised = crs_normaliser()
    boxes = tuple(
        GeoBox(
            size=file.box.size, transform=file.box.transform, crs=normalised(file.box.crs),
            name=file.box.name,
        )
        for file in left
    )  # fmt: skip
    return Examination(specs=tuple(specs[file] for file in left), boxes=boxes, bad=tuple(bad))


def _decided(
    files: Sequence[Examined],
    reading: Reading,
    leave_out: Callable[[RasterSource, InputError], None],
    *,
    separately: bool,
) -> dict[Examined, SceneSpec]:
    """Decide how each file is read: from all files together, or from each file separately."""

    def bad(file: Examined, error: InputError) -> None:
        leave_out(file.spec.source, error)

    decide = decide_each if separately else decide_together
    return decide(files, reading, on_bad=bad)


def group(files: Examination, *, separately: bool) -> list[Surface]:
    """Group files into surfaces.

    Raises:
        InputError: there are several files, and one has no georeference.
    """
    if separately or len(files.boxes) == 1:
        return [
            replace(surface, members=(index,))
            for index, box in enumerate(files.boxes)
            for surface in surfaces_of([box])
        ]
    for box in files.boxes:
        if not box.has_transform:
            raise InputError(
                f"{box.name}: has no georeference, so that it has no place beside the others; "
                "georeference it, or add `separately=True`"
            )
    return surfaces_of(files.boxes)


class WholeSurface(SurfaceReader[SceneSpec]):
    """All confidences of a surface as one raster; its files are opened when they are needed."""

    def __init__(self, surface: Surface, specs: Sequence[SceneSpec], scenes: OpenScenes) -> None:
        """Read a surface.

        Args:
            surface: the surface.
            specs: how each of its members is read, in order.
            scenes: opens the files.
        """
        super().__init__(surface.placement, specs, scenes)
        self.box = Georeference.of_box(surface.box)
        self.name = surface.box.name
