"""Metadata of many confidence rasters, and how they would be read together."""

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
from geothresh.raster.surface import crs_normaliser, decide_together, merged_warnings
from geothresh.run.scene_info import ComparedModel, SceneInfo, describe

# More threads gain nothing, as decoding alternates with Python code.
_MOST_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyInfo:
    """Metadata of many scenes, as `refine_many` uses it."""

    files: tuple[SceneInfo, ...]
    """Those that can be read, in the order in which they were named."""
    bad: tuple[BadFile, ...]
    """Those that cannot be used, and why."""
    pixels: int
    """Pixels of all files."""
    grids: int
    """Pixel grids among them: each is a surface of its own in `refine_many`."""
    unplaced: int
    """Files without a transform, which are on no grid."""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            "files": [one.as_dict() for one in self.files],
            "bad": [{"name": one.name, "reason": one.reason} for one in self.bad],
            "pixels": self.pixels,
            "grids": self.grids,
            "unplaced": self.unplaced,
        }


def look_at_each(
    named: Sequence[PathLike], reading: Reading, compared: ComparedModel, progress: Progress
) -> ManyInfo:
    """Metadata of all files that are named; see `geothresh.info`."""
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
        for number, (name, one) in enumerate(zip(names, examinations, strict=True), 1):
            progress(number, len(names))
            if isinstance(one, InputError):
                leave_out(name, one)
            else:
                sound.append(one)
        specs = _decided(sound, reading, leave_out)
        left = [one for one in sound if one in specs]
        pool = ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS))
        try:
            looks = pool.map(look, [specs[one] for one in left])
            for number, (one, facts) in enumerate(zip(left, looks, strict=True), 1):
                progress(number, len(left))
                if isinstance(facts, InputError):
                    leave_out(one.spec.source.name, facts)
                    continue
                files.append(facts)
                if one.box.has_transform:
                    boxes.append(replace(one.box, crs=normalised(one.box.crs)))
        finally:
            pool.shutdown(cancel_futures=True)
    return ManyInfo(
        files=tuple(files),
        bad=(*found.bad, *(BadFile(name=n, reason=reasons[n]) for n in names if n in reasons)),
        pixels=sum(one.height * one.width for one in files),
        grids=len(surfaces_of(boxes)),
        unplaced=len(files) - len(boxes),
    )


def _decided(
    files: Sequence[Examined], reading: Reading, leave_out: Callable[[str, InputError], None]
) -> dict[Examined, SceneSpec]:
    """How each file is read, decided together for those that store values alike.

    Where the values of some fit no confidence, each is decided by itself, to tell which: apart from
    uint8, which always fits, the others are read as they would be together.
    """
    kinds: dict[BandKind, list[Examined]] = {}
    for one in files:
        kinds.setdefault(one.kind, []).append(one)
    decided: dict[Examined, SceneSpec] = {}

    def bad(one: Examined, error: InputError) -> None:
        leave_out(one.spec.source.name, error)

    for alike in kinds.values():
        try:
            decided |= decide_together(alike, reading, on_bad=bad)
        except InputError:
            for one in alike:
                try:
                    decided |= decide_together([one], reading)
                except InputError as error:
                    bad(one, error)
    return decided
