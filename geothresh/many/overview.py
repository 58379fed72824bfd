"""Describe many confidence rasters, and how they would be read together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from geothresh.errors import InputError
from geothresh.geobox import GeoBox
from geothresh.machine import usable_cores
from geothresh.many.inputs import BadFile, list_inputs
from geothresh.options import PathLike, Progress, Reading
from geothresh.raster.alike import examine_each
from geothresh.raster.checks import MOST_PIXELS
from geothresh.raster.grids import surfaces_of
from geothresh.raster.scene import BandKind, Examined, SceneSpec
from geothresh.raster.surface import (
    crs_normaliser,
    decide_each,
    decide_together,
    merged_warnings,
)
from geothresh.run.scene_info import ComparedModel, SceneInfo, describe

# More threads gain nothing, because decoding alternates with Python code.
_MOST_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyInfo:
    """Metadata of many scenes, as `refine_many` uses it."""

    files: tuple[SceneInfo, ...]
    """Files that can be read, in the order in which they were named."""
    bad: tuple[BadFile, ...]
    """Files that cannot be used, and why."""
    pixels: int
    """Pixels of all files."""
    grids: int
    """Number of pixel grids of the files; each grid is a surface in `refine_many`."""
    unplaced: int
    """Number of files without a transform, which are on no grid."""

    def as_dict(self) -> dict[str, Any]:
        """Give the metadata as JSON types."""
        return {
            "files": [file.as_dict() for file in self.files],
            "bad": [{"name": file.name, "reason": file.reason} for file in self.bad],
            "pixels": self.pixels,
            "grids": self.grids,
            "unplaced": self.unplaced,
        }


def look_at_each(
    named: Sequence[PathLike], reading: Reading, compared: ComparedModel, progress: Progress
) -> ManyInfo:
    """Describe all files that are named; see `geothresh.info`."""
    found = list_inputs(named, allow_vrt=reading.allow_vrt)
    reasons: dict[str, str] = {}

    def leave_out(name: str, error: InputError) -> None:
        reasons[name] = str(error)

    def look(spec: SceneSpec) -> SceneInfo | InputError:
        try:
            with spec.open() as opened:
                return describe(opened, compared)
        except InputError as error:
            return error

    names = [source.name for source in found.sources]
    files: list[SceneInfo] = []
    boxes: list[GeoBox] = []
    normalised = crs_normaliser()
    with merged_warnings(names):
        sound: list[Examined] = []
        examinations = examine_each(found.sources, reading, MOST_PIXELS)
        for number, (name, result) in enumerate(zip(names, examinations, strict=True), 1):
            progress(number, len(names))
            if isinstance(result, InputError):
                leave_out(name, result)
            else:
                sound.append(result)
        specs = _decided(sound, reading, leave_out)
        left = [file for file in sound if file in specs]
        pool = ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS))
        try:
            infos = pool.map(look, [specs[file] for file in left])
            for number, (file, info) in enumerate(zip(left, infos, strict=True), 1):
                progress(number, len(left))
                if isinstance(info, InputError):
                    leave_out(file.spec.source.name, info)
                    continue
                files.append(info)
                if file.box.has_transform:
                    boxes.append(replace(file.box, crs=normalised(file.box.crs)))
        finally:
            pool.shutdown(cancel_futures=True)
    return ManyInfo(
        files=tuple(files),
        bad=(*found.bad, *(BadFile(name=n, reason=reasons[n]) for n in names if n in reasons)),
        pixels=sum(info.height * info.width for info in files),
        grids=len(surfaces_of(boxes)),
        unplaced=len(files) - len(boxes),
    )


def _decided(
    files: Sequence[Examined], reading: Reading, leave_out: Callable[[str, InputError], None]
) -> dict[Examined, SceneSpec]:
    """Decide how each file is read, together for files that store values in the same way.

    If the values of some files are not confidences, each file is decided separately, to find them.
    Files of uint8 always fit; the others are then read as they would be together.
    """
    kinds: dict[BandKind, list[Examined]] = {}
    for file in files:
        kinds.setdefault(file.kind, []).append(file)
    decided: dict[Examined, SceneSpec] = {}

    def bad(file: Examined, error: InputError) -> None:
        leave_out(file.spec.source.name, error)

    for alike in kinds.values():
        try:
            decided |= decide_together(alike, reading, on_bad=bad)
        except InputError:
            decided |= decide_each(alike, reading, on_bad=bad)
    return decided
