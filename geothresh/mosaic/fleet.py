"""Run whole units of work on the worker processes of a Dask cluster, without sending pixels.

Each worker has one unit at a time, so it is known which unit a worker died of. A unit that kills
several workers is set aside.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from dask.distributed import Client, Future, get_worker, wait

from geothresh.errors import ClusterError
from geothresh.mosaic.clients import (
    LOST,
    WORKERLESS_SECONDS,
    client_of_run,
    cores_of_worker,
    is_stopped,
    start_missing,
    workerless,
)
from geothresh.mosaic.protocols import Scheduler, Workers

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)

MOST_DEATHS = 3
"""A unit is set aside when this many workers have died of it."""
_LOOK_SECONDS = 1.0
"""Seconds between checks whether workers have died while units run."""


class Work(Protocol[Given, Made]):
    """A function that does one unit; picklable."""

    def __call__(self, unit: Given, /, *, cores: int | None, stopped: Callable[[], bool]) -> Made:
        """Do one unit.

        Args:
            unit: the unit; it is picklable, and so is the result.
            cores: processor cores that may be used; None = all.
            stopped: whether the run has ended elsewhere, so that the unit is not needed any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Deadly(Generic[Unit]):
    """A unit of work that killed every worker that had it."""

    unit: Unit
    deaths: int


def _do(work: Work[Unit, Result], unit: Unit, run: str, cores: int | None) -> Result:
    mine = get_worker().state.nthreads if cores is None else cores
    return work(unit, cores=mine, stopped=partial(is_stopped, run))


def run_units(
    work: Work[Unit, Result], units: Iterable[Unit], where: Workers | Scheduler
) -> Iterator[Result | Deadly[Unit]]:
    """Do units on workers of this machine or on a running cluster, one at a time on each worker.

    Args:
        work: does one unit; an exception of it ends the run.
        units: the units, taken as workers become free.
        where: the workers.

    Returns:
        The results, in the order in which they are finished, and the units that are deadly.

    Raises:
        ClusterError: the scheduler or all workers were lost, or cannot be reached.
        UsageError: the cluster has other versions.
    """
    workers = where.number if isinstance(where, Workers) else 0
    cores = cores_of_worker(workers) if workers else None
    run = uuid.uuid4().hex
    with client_of_run(where, run) as client:
        fleet = _Fleet(client=client, work=work, workers=workers, cores=cores, id=run)
        yield from fleet.do(iter(units))


@dataclass(eq=False, slots=True, kw_only=True)
class _Fleet(Generic[Unit, Result]):
    """One run of units on the workers of a client."""

    client: Client
    work: Work[Unit, Result]
    workers: int
    """Number of local workers to keep alive; 0 for a running cluster."""
    cores: int | None
    id: str
    _running: dict[Future[Any], tuple[str, Unit]] = field(default_factory=dict)
    """Address of the worker and unit, by future."""
    _again: list[Unit] = field(default_factory=list)
    _deaths: dict[int, int] = field(default_factory=dict)
    """Number of workers that died of a unit, by the unit's ``id()``. Units are kept while they may
    be done again."""
    _looked: float = field(default_factory=time.monotonic)
    """Time of the last check for workers that have died."""

    def do(self, units: Iterator[Unit]) -> Iterator[Result | Deadly[Unit]]:
        """Do all units."""
        more = True
        while True:
            more = self._fill(units) if more or self._again else more
            if not self._running:
                if not more and not self._again:
                    return
                self._wait_for_workers()
                continue
            yield from self._finished()

    def _fill(self, units: Iterator[Unit]) -> bool:
        """Give each idle worker a unit; False if there are no more units."""
        busy = {address for address, _ in self._running.values()}
        for address in self.client.nthreads():
            if address in busy:
                continue
            unit = self._again.pop() if self._again else next(units, None)
            if unit is None:
                return False
            future = self.client.submit(
                _do, self.work, unit, self.id, self.cores, pure=False, retries=0,
                workers=[address], allow_other_workers=False,
            )  # fmt: skip
            self._running[future] = (address, unit)
        return True

    def _finished(self) -> Iterator[Result | Deadly[Unit]]:
        """Wait a moment for results, and handle units whose worker has died."""
        try:
            with self.client.as_current():
                done = wait(
                    list(self._running), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED"
                )
        except TimeoutError:
            if self.client.status != "running":
                raise ClusterError(LOST) from None
            yield from self._lost_units()
            return
        # With short units every wait brings a result, so the timeout above never comes.
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            yield from self._lost_units()
        for future in done.done:
            address, unit = self._running[future]
            if future.status == "error" and _is_death(future):
                yield from self._handle_death(future, unit)
                continue
            del self._running[future]
            self._deaths.pop(id(unit), None)
            yield future.result()

    def _lost_units(self) -> Iterator[Deadly[Unit]]:
        self._looked = time.monotonic()
        alive = self.client.nthreads()
        for future, (address, unit) in list(self._running.items()):
            if address not in alive and not future.done():
                future.cancel()
                yield from self._handle_death(future, unit)
        start_missing(self.client, self.workers)

    def _handle_death(self, future: Future[Any], unit: Unit) -> Iterator[Deadly[Unit]]:
        """Schedule a unit again whose worker has died, or give it as deadly."""
        del self._running[future]
        deaths = self._deaths[id(unit)] = self._deaths.get(id(unit), 0) + 1
        if deaths < MOST_DEATHS:
            self._again.append(unit)
        else:
            del self._deaths[id(unit)]  # another unit may get this id() later
            yield Deadly(unit, deaths)

    def _wait_for_workers(self) -> None:
        """Wait until there is a worker."""
        began = time.monotonic()
        while not self.client.nthreads():
            if self.client.status != "running":
                raise ClusterError(LOST)
            if time.monotonic() - began > WORKERLESS_SECONDS:
                raise workerless()
            start_missing(self.client, self.workers)
            time.sleep(_LOOK_SECONDS)


def _is_death(future: Future[Any]) -> bool:
    """Whether a future failed because its worker died, and not by an exception of its task."""
    from distributed import KilledWorker
    from distributed.scheduler import NoValidWorkerError

    return isinstance(future.exception(), KilledWorker | NoValidWorkerError)
