"""Run the units of a plan: keep finished ones, do others here or on workers, and record them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from geothresh.durability.record import FinishedUnit, Record
from geothresh.durability.resuming import require_same_run
from geothresh.errors import OutputError, UsageError, names, number_of, warn
from geothresh.files import remove_stale
from geothresh.many.indexes import Indexes
from geothresh.many.inputs import BadFile
from geothresh.many.options import Many
from geothresh.many.places import Destination, is_whole
from geothresh.many.planning import PlannedUnit, in_turn
from geothresh.many.units import MakeUnit, Unit, UnitFailed, UnitMade, output_name, try_unit
from geothresh.mosaic import Threads, TileMemory, where_asked
from geothresh.options import Compute, Progress, Writing
from geothresh.raster.surface import OpenScenes


@dataclass(eq=False, slots=True, kw_only=True)
class Run:
    """A run over the units of a plan, with the open record of their directory."""

    destination: Destination
    units: Sequence[PlannedUnit]
    many: Many
    compute: Compute
    writing: Writing
    record: Record
    indexes: Indexes
    progress: Progress | None
    done: dict[str, PlannedUnit] = field(default_factory=dict)
    """Finished units, by name."""
    kept: set[str] = field(default_factory=set)
    """Names of finished units that an earlier run has made."""
    bad: list[BadFile] = field(default_factory=list)
    """Files whose units cannot be made."""
    set_aside: list[str] = field(default_factory=list)
    """Names of units that killed every worker."""
    removed: list[str] = field(default_factory=list)
    """Names of units of earlier runs that are not in the plan any more."""
    _replaced: set[str] = field(default_factory=set)
    _tiles_done: int = 0
    _tiles: int = 0

    @property
    def directory(self) -> Path:
        """The local directory of the outputs and the record."""
        return self.destination.directory

    def do(self) -> None:
        """Do all units that are not finished.

        Raises:
            UsageError: the directory holds outputs of other inputs or options, which may not be
                replaced.
            OutputError: an output exists that no such run has made, or cannot be written.
            GeothreshError: a unit failed, see `refine`; finished units are kept.
        """
        shared = self.units[0].home.shared
        anew = self.writing.restart or (self.writing.overwrite and self.record.complete)
        free = self.many.update or self.writing.overwrite or self.writing.restart
        if self.record.method is not None and self.record.finished and not free:
            require_same_run(
                self.directory, self.record.method, shared, error=UsageError, anew="`update`"
            )
        self._check_others()
        waiting = self._unfinished(anew=anew, free=free)
        self.indexes.check(overwrite=self.writing.overwrite)
        self.record.begin(shared)
        remove_stale(self.directory)
        self._remove_others(waiting)
        self.indexes.remove_others(self.indexes.names)
        self._tiles = sum(unit.tiles for unit in self.units)
        self._tiles_done = sum(unit.tiles for unit in self.done.values())
        with self._noting():
            self._make(waiting)
        # Leftovers of workers that were killed meanwhile.
        remove_stale(self.directory)
        # In the order of the plan, not in that of finishing.
        self.done = {unit.name: unit for unit in self.units if unit.name in self.done}

    def _check_others(self) -> None:
        """Refuse a directory with outputs of other inputs, unless these are to be removed."""
        planned = {unit.name for unit in self.units}
        self.removed = [name for name in self.record.finished if name not in planned]
        if self.removed and not self.many.update:
            raise UsageError(
                f"{self.directory}: holds outputs of {number_of(len(self.removed), 'other scene')} "
                f"({names(self.removed, 3)}); choose another directory, or add `update=True` to "
                "remove those that nobody has changed"
            )

    def _remove_others(self, waiting: Sequence[PlannedUnit]) -> None:
        """Remove unchanged outputs that are not written any more: of other units and layers."""
        finished = self.record.finished
        left = {name: finished[unit] for unit in self.removed for name in finished[unit].files}
        for unit in waiting:
            entry = finished.get(unit.name)
            if entry is not None:
                written = {output_name(unit.name, layer) for layer in self.many.written}
                left |= {name: entry for name in entry.files if name not in written}
        existing = self.destination.existing(left) if left else set()
        changed = []
        for name, entry in left.items():
            if name in existing and self.destination.is_as_made(name, entry):
                self.destination.remove(name)
            elif name in existing:
                changed.append(name)
        if changed:
            warn(
                f"{number_of(len(changed), 'output')} of an earlier run ({names(changed, 3)}) "
                "changed since, so that they are kept; remove those that you do not need"
            )
        for unit_name in self.removed:
            self.record.drop(unit_name)

    def _unfinished(self, *, anew: bool, free: bool) -> list[PlannedUnit]:
        """The units to do; finished ones are added to `done`."""
        layers = self.many.written
        files = self.destination.existing(
            output_name(unit.name, layer) for unit in self.units for layer in layers
        )
        waiting = []
        for unit in self.units:
            entry = self.record.finished.get(unit.name)
            existing = [
                name for layer in layers if (name := output_name(unit.name, layer)) in files
            ]
            if entry is not None and not anew and self._is_kept(unit, entry, free=free):
                self.done[unit.name] = unit
                self.kept.add(unit.name)
                continue
            if existing:
                self._require_ours(unit, entry, existing)
            waiting.append(unit)
        return waiting

    def _is_kept(self, unit: PlannedUnit, entry: FinishedUnit, *, free: bool) -> bool:
        """Whether a recorded unit is unchanged; UsageError if it changed and `free` is False."""
        if entry.digest == unit.digest():
            return is_whole(self.destination, entry)
        if free:
            return False
        raise UsageError(
            f"{self.destination.output(unit.name, 'mask')}: was made of other inputs, or "
            "beside others, or with other options; add `update=True` to make anew what "
            "has changed, or choose another directory"
        )

    def _require_ours(
        self, unit: PlannedUnit, entry: FinishedUnit | None, existing: Sequence[str]
    ) -> None:
        """Refuse to replace outputs that no such run has made, unless `overwrite` is given."""
        if self.writing.overwrite:
            return
        if entry is not None:
            ours = all(self.destination.is_as_made(name, entry) for name in existing)
        else:
            digest = unit.digest()
            ours = all(self.destination.is_of(name, unit.name, digest) for name in existing)
        if not ours:
            raise OutputError(
                f"{self.destination.address or self.directory}/{existing[0]}: exists already, and "
                "is not as a run like this has left it; choose another directory or add "
                "`overwrite=True`"
            )
        self._replaced.add(unit.name)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Add a note to an exception that ends the run: how many outputs are kept."""
        try:
            yield
        except BaseException as error:
            if self.done:
                error.add_note(
                    f"{len(self.done)} of {len(self.units)} outputs are finished, and are kept by "
                    "the same command"
                )
            raise

    def _make(self, waiting: Sequence[PlannedUnit]) -> None:
        where = where_asked(self.compute.workers, self.compute.scheduler)
        planned = {unit.name: unit for unit in waiting}
        waiting = in_turn(waiting)
        if isinstance(where, Threads):
            memory = TileMemory()
            with OpenScenes() as scenes:
                for unit in waiting:
                    made = try_unit(
                        self._unit(unit), scenes, memory,
                        partial(self._watch, self._tiles_done), skip_bad=self.many.skip_bad,
                    )  # fmt: skip
                    self._take(unit, made)
            return
        if not waiting:
            return
        from geothresh.mosaic.fleet import Deadly, run_units

        work = MakeUnit(self.many.skip_bad)
        for result in run_units(work, map(self._unit, waiting), where):
            if isinstance(result, Deadly):
                self.set_aside.append(result.unit.name)
            else:
                self._take(planned[result.name], result)

    def _unit(self, planned: PlannedUnit) -> Unit:
        return Unit(
            name=planned.name, part=planned.part(), method=planned.home.method,
            digest=planned.digest(), directory=self.directory, address=self.destination.address,
            layers=self.many.written, replaces=planned.name in self._replaced,
            shares_tiles=planned.shares_tiles, anew=self.many.update or self.writing.overwrite,
        )  # fmt: skip

    def _take(self, unit: PlannedUnit, made: UnitMade | UnitFailed) -> None:
        if isinstance(made, UnitFailed):
            self.bad.append(BadFile(name=unit.source, reason=made.reason))
        else:
            self.record.add(made.name, made.finished)
            self.done[unit.name] = unit
            self.destination.keep_record(now=False)
        self._watch(self._tiles_done, unit.tiles, unit.tiles)
        self._tiles_done += unit.tiles

    def _watch(self, before: int, done: int, of: int) -> None:
        if self.progress is not None:
            self.progress(before + done, self._tiles)
