"""Units of a run over many files: parts of a surface, each made by itself, by anybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from geothresh.addresses import Address
from geothresh.durability import Journal, finished_outputs, left_by_another
from geothresh.durability.record import FinishedUnit, MadeFile
from geothresh.errors import InputError
from geothresh.files import make_directory
from geothresh.many.options import LAYERS
from geothresh.mosaic import TileMemory, load_refiner
from geothresh.options import Progress
from geothresh.raster.surface import OpenScenes, SurfacePart
from geothresh.run.jobs import Job, Method
from geothresh.run.outputs import OutputFiles, check_raster
from geothresh.run.staging import send_finished, work_place

FACTS = (
    "valid", "foreground_before", "foreground_after", "changed", "tiles_refined", "tiles_skipped",
    "infinities",
)  # fmt: skip
"""What is counted of a unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of a surface, what is made of it, and how: small and picklable."""

    name: str
    """Of its outputs: NAME_mask.tif."""
    part: SurfacePart
    method: Method
    digest: str
    """Of all that its outputs depend on."""
    directory: Path
    """Where its outputs go."""
    layers: tuple[str, ...]
    """Which are written."""
    replaces: bool
    """Whether outputs that exist may be replaced."""
    address: Address | None = None
    """To what they are sent; the directory is that of the machine where they are made then."""
    shares_tiles: bool
    """Whether many of its tiles are those of its neighbours too, and are remembered for them."""
    anew: bool
    """Whether what an interrupted run of other inputs or options left is thrown away."""

    def path(self, layer: str) -> Path:
        """The output with a layer."""
        return output_path(self.directory, self.name, layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitMade:
    """A unit that is finished: what its worker reports."""

    name: str
    finished: FinishedUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailed:
    """A unit that cannot be made of its inputs."""

    name: str
    reason: str
    """One line."""


def output_path(directory: Path, name: str, layer: str) -> Path:
    """Where a layer of a unit is written."""
    return directory / output_name(name, layer)


def output_name(name: str, layer: str) -> str:
    """What the file with a layer of a unit is called."""
    return f"{name}_{layer}.tif"


def make_unit(
    unit: Unit, scenes: OpenScenes, memory: TileMemory, progress: Progress | None = None
) -> UnitMade:
    """Refine a part of a surface, and put its outputs in place.

    Args:
        unit: the part.
        scenes: opens the files.
        memory: of the tiles that units made before have shared with it.
        progress: as of `refine`.

    Raises:
        GeothreshError: as `refine`.
    """
    writing = unit.method.writing
    if unit.address is not None:
        unit = replace(unit, directory=work_place(unit.address))
        make_directory(unit.directory, parents=True)
    files = _checked_files(unit)
    scene = unit.part.open(scenes)
    method = unit.method
    if unit.shares_tiles:
        refiner = memory.of(method.chosen.refiner)
        method = replace(method, chosen=replace(method.chosen, refiner=refiner))
    if unit.address is not None:  # nothing goes beside an object
        method = replace(method, writing=replace(writing, style=False))
    job = Job(scene=scene, files=files, method=method, part=unit.part, unit=unit.digest)
    keep = writing.resume and bool(unit.method.chosen.digest)
    fingerprint = job.fingerprint()
    restart = writing.restart or (unit.anew and left_by_another(files.mask, fingerprint))
    with Journal(files.mask, fingerprint, restart=restart, keep=keep) as journal:
        job.make(journal, progress)
        made = {
            path.name: MadeFile.of(path, journal.digests[str(path.absolute())])
            for path in files.rasters
        }
        facts = {name: journal.total(name) for name in FACTS}
        if unit.address is not None:
            for path in files.rasters:
                leave = writing.overwrite or unit.replaces
                send_finished(path, unit.address / path.name, replace=leave)
        journal.finish()
    if unit.address is not None:
        for path in files.rasters:
            path.unlink(missing_ok=True)
    done = FinishedUnit(digest=unit.digest, files=made, facts=facts)
    return UnitMade(name=unit.name, finished=done)


def _checked_files(unit: Unit) -> OutputFiles:
    """The outputs of a unit, checked as those of `refine`."""
    writing = unit.method.writing
    others = {layer: unit.path(layer) if layer in unit.layers else None for layer in LAYERS[1:]}
    files = OutputFiles(
        mask=unit.path("mask"), **others, vector=None, report=None, manifest=None
    )  # fmt: skip
    ours = finished_outputs(files.mask) if writing.resumes else frozenset()
    sources = [placed.spec.source for placed in (unit.part.own, *unit.part.others)]
    for path in files.rasters:
        overwrite = writing.overwrite or unit.replaces or path.absolute() in ours
        # What is not sent yet is nobody's.
        overwrite = overwrite or unit.address is not None
        check_raster(path, sources, overwrite=overwrite, cleared=True)
    return files


@dataclass(frozen=True, slots=True)
class MakeUnit:
    """Makes units in worker processes: `geothresh.mosaic.fleet.Work`."""

    skip_bad: bool
    """Whether bad inputs are told of, rather than end the run."""

    def __call__(
        self, unit: Unit, /, *, cores: int | None, stopped: Callable[[], bool]
    ) -> UnitMade | UnitFailed:
        """Make one."""

        def watch(done: int, total: int) -> None:
            if stopped():
                raise RunEnded

        chosen = unit.method.chosen
        refiner = load_refiner(chosen.refiner, cores=cores).refiner
        compute = replace(unit.method.compute, workers=0, scheduler=None)
        method = replace(unit.method, compute=compute, chosen=replace(chosen, refiner=refiner))
        unit = replace(unit, method=method)
        return try_unit(unit, _scenes(), _memory(), watch, skip_bad=self.skip_bad)


class RunEnded(Exception):
    """Raised inside a unit whose run has ended elsewhere; never seen by callers."""


@cache
def _scenes() -> OpenScenes:
    """Those of a worker process."""
    return OpenScenes()


@cache
def _memory() -> TileMemory:
    """That of a worker process."""
    return TileMemory()


def try_unit(
    unit: Unit,
    scenes: OpenScenes,
    memory: TileMemory,
    progress: Progress | None,
    *,
    skip_bad: bool,
) -> UnitMade | UnitFailed:
    """`make_unit`, of which a bad input is told, if it is to be skipped."""
    try:
        return make_unit(unit, scenes, memory, progress)
    except InputError as error:
        if not skip_bad:
            raise
        return UnitFailed(name=unit.name, reason=str(error))
