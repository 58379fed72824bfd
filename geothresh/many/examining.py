"""Examine many files before any pixel is looked at, and put them together into surfaces."""

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
    decide_together,
    merged_warnings,
)

# Of a raster that is cut into pieces, where nothing grows with the whole.
_MOST_IN_PIECES = 10**14


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Files of which all but pixels was checked."""

    specs: tuple[SceneSpec, ...]
    """How each is read; scalings are decided."""
    boxes: tuple[GeoBox, ...]
    """Where each lies."""
    bad: tuple[BadFile, ...]
    """Those that are left out."""


def examine_all(sources: Sequence[RasterSource], reading: Reading, many: Many) -> Examination:
    """Open each file, check it, and decide how all are read.

    Raises:
        InputError, UsageError: as `refine`, for the first bad file; with `skip_bad` only where
            none is left.
    """
    most = MOST_PIXELS if many.piece is None else _MOST_IN_PIECES
    bad: list[BadFile] = []

    def leave_out(source: RasterSource, error: InputError) -> None:
        if not many.skip_bad:
            raise error
        bad.append(BadFile(name=source.name, reason=str(error)))

    with merged_warnings([source.name for source in sources]):
        found: list[Examined] = []
        for source, one in zip(sources, examine_each(sources, reading, most), strict=True):
            if isinstance(one, InputError):
                leave_out(source, one)
            else:
                found.append(one)
        read = _decided(found, reading, leave_out, separately=many.separately)
    left = [one for one in found if one in read]
    if not left:
        raise InputError(f"no raster is left to refine; {bad[0].reason}")
    normalised = crs_normaliser()
    boxes = tuple(
        GeoBox(
            size=one.box.size, transform=one.box.transform, crs=normalised(one.box.crs),
            name=one.box.name,
        )
        for one in left
    )  # fmt: skip
    return Examination(specs=tuple(read[one] for one in left), boxes=boxes, bad=tuple(bad))


def _decided(
    files: Sequence[Examined],
    reading: Reading,
    leave_out: Callable[[RasterSource, InputError], None],
    *,
    separately: bool,
) -> dict[Examined, SceneSpec]:
    """How each file is read: as all together say, or separately each as it says itself."""

    def bad(one: Examined, error: InputError) -> None:
        leave_out(one.spec.source, error)

    if not separately:
        return decide_together(files, reading, on_bad=bad)
    decided: dict[Examined, SceneSpec] = {}
    for one in files:
        try:
            decided |= decide_together([one], reading)
        except InputError as error:
            bad(one, error)
    return decided


def group(files: Examination, *, separately: bool) -> list[Surface]:
    """Put files together into surfaces.

    Raises:
        InputError: one of several has no georeference.
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
        """Take a surface, how each of its members is read, in their order, and what opens them."""
        super().__init__(surface.placement, specs, scenes)
        self.box = Georeference.of_box(surface.box)
        self.name = surface.box.name
