"""Units of a run over many files: parts of a surface that any process can make independently."""

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
from geothresh.run.staging import send_finished, work_directory_of

FACTS = (
    "valid", "foreground_before", "foreground_after", "changed", "tiles_refined", "tiles_skipped",
    "infinities",
)  # fmt: skip
"""Names of the counts of a unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit of work: a part of a surface, its outputs and how they are made; picklable."""

    name: str
    """Stem of the names of its outputs: NAME_mask.tif."""
    part: SurfacePart
    """The pixels to refine, and the files to read."""
    method: Method
    """How they are refined."""
    digest: str
    """Digest of everything that its outputs depend on."""
    directory: Path
    """Directory of its outputs."""
    layers: tuple[str, ...]
    """Names of the layers to write."""
    replaces: bool
    """Whether existing outputs may be replaced."""
    address: Address | None = None
    """Where its outputs are uploaded to. They are then made in a work directory of the machine that
    makes the unit, and not in `directory`."""
    shares_tiles: bool
    """Whether its neighbours need many of its tiles, which are cached for them."""
    anew: bool
    """Whether work of an interrupted run with other inputs or options is deleted."""

    def path(self, layer: str) -> Path:
        """Path of the output with a layer."""
        return output_path(self.directory, self.name, layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitMade:
    """Report about a finished unit."""

    name: str
    """Name of the unit."""
    finished: FinishedUnit
    """The entry for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailed:
    """Report about a unit whose input is bad."""

    name: str
    """Name of the unit."""
    reason: str
    """The error, in one line."""


def output_path(directory: Path, name: str, layer: str) -> Path:
    """Path of the output with a layer of a unit."""
    return directory / output_name(name, layer)


def output_name(name: str, layer: str) -> str:
    """File name of the output with a layer of a unit."""
    return f"{name}_{layer}.tif"


def make_unit(
    unit: Unit, scenes: OpenScenes, memory: TileMemory, progress: Progress | None = None
) -> UnitMade:
    """Refine a unit, and write its outputs.

    Args:
        unit: the unit.
        scenes: opens the files.
        memory: the cache of tiles that it may share with other units.
        progress: see `refine`.

    Raises:
        GeothreshError: see `refine`.
    """
    writing = unit.method.writing
    if unit.address is not None:
        unit = replace(unit, directory=work_directory_of(unit.address))
        make_directory(unit.directory, parents=True)
    files = _checked_files(unit)
    scene = unit.part.open(scenes)
    method = unit.method
    if unit.shares_tiles:
        refiner = memory.of(method.chosen.refiner)
        method = replace(method, chosen=replace(method.chosen, refiner=refiner))
    if unit.address is not None:  # objects have no sidecar files
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
                replace_object = writing.overwrite or unit.replaces
                send_finished(path, unit.address / path.name, replace=replace_object)
        journal.finish()
    if unit.address is not None:
        for path in files.rasters:
            path.unlink(missing_ok=True)
    done = FinishedUnit(digest=unit.digest, files=made, facts=facts)
    return UnitMade(name=unit.name, finished=done)


def _checked_files(unit: Unit) -> OutputFiles:
    """The outputs of a unit, with the checks of `refine`."""
    writing = unit.method.writing
    others = {layer: unit.path(layer) if layer in unit.layers else None for layer in LAYERS[1:]}
    files = OutputFiles(
        mask=unit.path("mask"), **others, vector=None, report=None, manifest=None
    )  # fmt: skip
    ours = finished_outputs(files.mask) if writing.resumes else frozenset()
    sources = [placed.spec.source for placed in (unit.part.own, *unit.part.others)]
    for path in files.rasters:
        overwrite = writing.overwrite or unit.replaces or path.absolute() in ours
        # A local file that is not uploaded yet may always be replaced.
        overwrite = overwrite or unit.address is not None
        check_raster(path, sources, overwrite=overwrite, cleared=True)
    return files


@dataclass(frozen=True, slots=True)
class MakeUnit:
    """Makes units in worker processes, see `geothresh.mosaic.fleet.Work`."""

    skip_bad: bool
    """Whether a bad input gives a `UnitFailed` instead of ending the run."""

    def __call__(
        self, unit: Unit, /, *, cores: int | None, stopped: Callable[[], bool]
    ) -> UnitMade | UnitFailed:
        """Make a unit."""

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
    """The open scenes of a worker process."""
    return OpenScenes()


@cache
def _memory() -> TileMemory:
    """The tile cache of a worker process."""
    return TileMemory()


def try_unit(
    unit: Unit,
    scenes: OpenScenes,
    memory: TileMemory,
    progress: Progress | None,
    *,
    skip_bad: bool,
) -> UnitMade | UnitFailed:
    """Make a unit; with `skip_bad`, a bad input gives a `UnitFailed`."""
    try:
        return make_unit(unit, scenes, memory, progress)
    except InputError as error:
        if not skip_bad:
            raise
        return UnitFailed(name=unit.name, reason=str(error))
