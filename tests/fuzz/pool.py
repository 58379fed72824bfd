"""Processes that run cases; one that dies or hangs is told and replaced."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tests.fuzz.cases import Outcome, load_models_once, run_case

HANGS = 60.0
"""Seconds after which a case is taken to hang."""
MEMORY = 6 << 30
"""Bytes of address space of a process: of libraries alone there are 3 GB."""
_CASES_EACH = 1000
"""A process is replaced after so many, so that no leak of a library adds up."""

Task = tuple[str, int]

# What libtiff and libgeotiff print by themselves, past GDAL's handlers and so past geothresh.
_BEYOND_US = (
    b"_tiffSeekProc: Invalid argument.\n",
    b"internal_proj_uom_get_info_from_database: Cannot find proj.db\n",
)


def serve(connection: Connection, seed: int, seeds: dict[str, list[str]], folder: Path) -> None:
    """Run the cases that come, in this process, until None does."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What libraries write by themselves must be caught too: nothing of it belongs on a terminal.
    folder.mkdir(parents=True)
    stray = os.open(folder / "stray", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(stray, descriptor)
    load_models_once()
    while (task := connection.recv()) is not None:
        place = folder / "case"
        start = os.fstat(stray).st_size
        outcome = run_case(*task, seed=seed, seeds=seeds, folder=place)
        sys.stdout.flush()
        sys.stderr.flush()
        written = os.pread(stray, 100_000, start)
        for line in _BEYOND_US:
            written = written.replace(line, b"")
        os.chdir(folder)
        if outcome.problem is None and written:
            outcome = Outcome(
                kind=outcome.kind, number=outcome.number, command=outcome.command,
                code=outcome.code, seconds=outcome.seconds,
                problem=f"written past the command line: {written[:500]!r}",
            )  # fmt: skip
        if outcome.problem is None:
            shutil.rmtree(place)
        connection.send(outcome)
        if outcome.problem is not None:
            # Until the parent has what is there.
            connection.recv()
            shutil.rmtree(place)


TARGET = serve
"""What runs in the processes."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    folder: Path
    task: Task | None = None
    since: float = 0.0
    done: int = 0


Keep = Callable[[Outcome, Path], None]
"""Called with a finding and the folder where its files are."""


def run_all(  # noqa: C901, PLR0915 - the pool's whole life, from start to end
    tasks: Iterable[Task],
    *,
    seed: int,
    seeds: dict[str, list[str]],
    folder: Path,
    workers: int,
    keep: Keep,
    hangs: float = HANGS,
    starting: float = 60.0,
) -> Iterator[Outcome]:
    """Run cases in so many processes, and give their outcomes as they come.

    Args:
        tasks: kinds and numbers of cases.
        seed, seeds: as for `run_case`.
        folder: where the processes work.
        workers: how many there are.
        keep: takes the findings.
        hangs: seconds that a case may take.
        starting: seconds that a process may take to load its libraries.
    """
    context = multiprocessing.get_context("spawn")
    waiting = iter(tasks)
    alive: list[_Worker] = []
    count = 0

    def start() -> _Worker:
        nonlocal count
        ours, theirs = context.Pipe()
        place = folder / f"worker{count}"
        count += 1
        process = context.Process(target=TARGET, args=(theirs, seed, seeds, place), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, place)

    def feed(worker: _Worker) -> bool:
        worker.task = next(waiting, None)
        worker.since = time.monotonic()
        worker.connection.send(worker.task)
        return worker.task is not None

    def end(worker: _Worker, *, kill: bool) -> None:
        alive.remove(worker)
        if kill:
            worker.process.kill()
        worker.process.join()
        worker.connection.close()

    def replace() -> None:
        worker = start()
        alive.append(worker)
        if not feed(worker):
            end(worker, kill=False)

    for _ in range(workers):
        replace()
    try:
        while alive:
            ready = wait([worker.connection for worker in alive], timeout=1.0)
            for worker in list(alive):
                assert worker.task is not None
                kind, number = worker.task
                late = time.monotonic() - worker.since
                # Loading the libraries is no hang of the first case.
                allowed = hangs if worker.done else hangs + starting
                if worker.connection in ready:
                    try:
                        outcome = worker.connection.recv()
                    except EOFError:
                        worker.process.join()
                        outcome = Outcome(
                            kind=kind, number=number, command="?",
                            code=worker.process.exitcode or 0, seconds=late,
                            problem=f"the process died: {worker.process.exitcode}",
                        )  # fmt: skip
                        keep(outcome, worker.folder / "case")
                        end(worker, kill=False)
                        replace()
                        yield outcome
                        continue
                    worker.done += 1
                    if outcome.problem is not None:
                        keep(outcome, worker.folder / "case")
                        worker.connection.send(True)
                    if worker.done == _CASES_EACH:
                        worker.connection.send(None)
                        end(worker, kill=False)
                        replace()
                    elif not feed(worker):
                        end(worker, kill=False)
                    yield outcome
                elif late > allowed:
                    outcome = Outcome(
                        kind=kind, number=number, command="?", code=-9, seconds=late,
                        problem=f"no end after {allowed:.0f} s",
                    )  # fmt: skip
                    keep(outcome, worker.folder / "case")
                    end(worker, kill=True)
                    replace()
                    yield outcome
    finally:
        for worker in list(alive):
            end(worker, kill=True)
