"""Connect to Dask: start worker processes on this machine, or join a running cluster.

Own workers take turns with the GPUs (CUDA_VISIBLE_DEVICES; no torch here), and ignore Ctrl-C
(SIGINT), which goes to all processes of a terminal, of which one alone is to answer it. A worker
that is told to ignore it once it is up has had seconds before that in which it did not. A blocked
signal is inherited by threads and processes, and through exec, so that a worker is deaf from its
first instruction on; the main thread, which blocks it for the start of one thread, loses none.

https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import platform
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import dask
from dask.distributed import Client, LocalCluster, Nanny
from distributed.comm.core import CommClosedError
from distributed.core import Status
from distributed.utils import LoopRunner

from geothresh.errors import ClusterError, UsageError, warn
from geothresh.machine import usable_cores
from geothresh.mosaic.protocols import Scheduler, Workers

_FAULTS = logging.getLogger("geothresh.faults")
"""Faults inside libraries that come back as an exception as well, or of what is ending: no news,
unless somebody looks for an error (--debug)."""
# How the tracker of multiprocessing begins its complaint.
_LEAKS = "ignore:resource_tracker:UserWarning"
Answer = TypeVar("Answer")

_LOGGER = logging.getLogger(__name__)
WORKERLESS_SECONDS = 60.0
"""How long a cluster may be without any worker."""
LOST = "the scheduler of the Dask cluster was lost; start the cluster again"
_CONNECT_SECONDS = 30.0
_STARTS = 4
"""Attempts to start own workers."""
_SOON_SECONDS = 0.05
"""How often is looked whether workers are there, or gone."""
_ENDED = (Status.closed, Status.failed)
# Each server of Dask's in this process would look fifty times a second whether its loop is late,
# and twice at the machine, which nobody asks for: 2 % of a core for two workers, more for more.
_LOOKS = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "10s",
}
_ALIKE = ("geothresh", "dask", "distributed", "numpy")
"""Packages of which client and workers must have the same versions."""


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> list[str]:
    """The GPUs of NVIDIA's that a process may use, by the names CUDA_VISIBLE_DEVICES has."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(k) for k in range(len(list(devices.glob("nvidia[0-9]*"))))]
    return [name.strip() for name in chosen.split(",") if name.strip()]


def environment_of_worker(number: int, gpus: list[str]) -> dict[str, str]:
    """Environment variables of a worker process: all GPUs, its own one first.

    Workers take turns, and use the first GPU that they see. Nothing where there are not several.
    """
    if len(gpus) < 2:
        return {}
    own = number % len(gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[own:] + gpus[:own])}


@contextmanager
def loop_without_interrupts() -> Iterator[Any]:
    """Tornado's event loop, running in a thread that blocks SIGINT, as all that is started there.

    What goes wrong in it unseen by anybody is logged as information by ``geothresh.faults``.
    """
    _start_tracker()
    runner = LoopRunner()
    try:
        with _interrupts_blocked():
            runner.start()
        loop = runner.loop
        loop.add_callback(loop.asyncio_loop.set_exception_handler, _note)
        yield loop
    finally:
        runner.stop()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep SIGINT from this thread; one that came meanwhile is answered at the end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield  # Windows: workers share the console's Ctrl-C
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start multiprocessing's resource tracker, which removes leaked semaphores.

    Here, because it unblocks SIGINT in the thread that starts it. A run that is killed leaves some
    semaphores to it; that it removes them is no warning of ours.
    """
    if not hasattr(resource_tracker, "ensure_running"):
        return
    quiet = [] if _FAULTS.isEnabledFor(logging.INFO) else [_LEAKS]
    sys.warnoptions.extend(quiet)  # which the tracker inherits
    try:
        resource_tracker.ensure_running()
    finally:
        for option in quiet:
            sys.warnoptions.remove(option)


def _note(loop: Any, context: dict[str, Any]) -> None:
    _FAULTS.info("%s", context["message"], exc_info=context.get("exception"))


def cores_of_worker(workers: int) -> int:
    """Processor cores for each of so many own workers."""
    return max(1, usable_cores() // workers)


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Client of a local cluster of worker processes, which end with this block.

    Raises:
        ClusterError: all have died at each of several starts.
    """
    with (
        tempfile.TemporaryDirectory(prefix="geothresh-") as scratch,
        dask.config.set(_LOOKS),
        _quiet_dask(),  # until the loop has ended: what it breaks off tells of that
        loop_without_interrupts() as loop,
        _OwnCluster(loop, workers, scratch) as cluster,
        # Straight from the workers: the scheduler, in this process too, would copy all of it.
        Client(cluster, set_as_default=False, direct_to_workers=True) as client,
    ):
        try:
            cluster.scale(workers)
            _wait_for_first(cluster, client, workers)
            yield client
        except BaseException:
            cluster.end_at_once()
            raise


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Silence the log of distributed: what matters comes back as an exception."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class _OwnCluster(LocalCluster):
    """Local cluster whose workers can be killed at any time, also while they start."""

    def __init__(self, loop: Any, workers: int, scratch: str) -> None:
        """Start a scheduler in the thread of `loop`, for so many workers."""
        self._nannies: list[Nanny] = []
        self._own_loop = loop
        cores = cores_of_worker(workers)
        super().__init__(  # type: ignore[no-untyped-call]
            loop=loop,
            n_workers=0,
            # As many as may be in the model, and one that reads and weights meanwhile.
            threads_per_worker=cores + 1,
            processes=True,
            worker_class=self._nanny,
            host="127.0.0.1",
            # A port that is free; without a dashboard, a small page of health remains.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,  # chunks in flight are bounded by the run: nothing is to be spilled
            local_directory=scratch,
            silence_logs=logging.CRITICAL,  # what matters comes back as an exception
            env={name: str(cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        )

    def _nanny(self, *arguments: Any, **options: Any) -> Nanny:
        gpu = environment_of_worker(len(self._nannies), visible_gpus())
        options["env"] = {**options.get("env", {}), **gpu}
        nanny = Nanny(*arguments, **options)
        self._nannies.append(nanny)
        return nanny

    def end_at_once(self) -> None:
        """Kill all workers, which own nothing, so that `close` waits for none.

        Else it would wait for those that start until they are there, and for those that work until
        they are done with it.
        """
        self._own_loop.add_callback(self._end_at_once)

    async def _end_at_once(self) -> None:
        while left := [nanny for nanny in self._nannies if nanny.status not in _ENDED]:
            for nanny in left:
                if nanny.status != Status.closing:
                    nanny.close_gracefully("the run ends")  # or it would start another one
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
            await asyncio.sleep(_SOON_SECONDS)


def _wait_for_first(cluster: LocalCluster, client: Client, workers: int) -> None:
    """Wait until there is a worker; one that dies at the start is no failure.

    Raises:
        ClusterError: all have died at each of several starts.
    """
    starts = 1
    while not client.nthreads():
        nannies = cluster.workers.values()  # of those whose start is over
        if nannies and not any(nanny.is_alive() for nanny in nannies):
            if starts == _STARTS:
                raise ClusterError(
                    f"{workers} workers: processes died in each of {_STARTS} attempts to start "
                    "them; use fewer, or make room in memory"
                )
            starts += 1
            start_missing(client, workers)
        time.sleep(_SOON_SECONDS)


def start_missing(client: Client, workers: int) -> None:
    """Restart workers of an own cluster whose nannies gave up, as when they died while starting."""
    cluster = client.cluster
    if cluster is None or len(client.nthreads()) >= workers:
        return
    # Nannies start a worker again, but not one that died before it was there.
    dead = [name for name, nanny in cluster.workers.items() if not nanny.is_alive()]
    try:
        if dead:
            cluster.sync(cluster.scale_down, dead)
    except RuntimeError as error:
        # One that was being started died as well: the next look finds it.
        _LOGGER.info("a worker died while others were started again (%s)", error)
    cluster.scale(workers)


@contextmanager
def running_client(scheduler: Scheduler) -> Iterator[Client]:
    """Client of a running cluster; checks that its workers have the same versions.

    Raises:
        UsageError: it has not, or the address is none.
        ClusterError: the scheduler cannot be reached, or has no workers.
    """
    address = scheduler.address
    host = _host(address)
    if address.startswith("tcp:") and not _is_this_machine(host):
        warn(
            f"scheduler {address}: the connection is neither encrypted nor authenticated; whoever "
            "reaches it can run code on all workers: use tls:// outside a network that you trust"
        )
    with _quiet_dask():
        try:
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"scheduler {address}: cannot be reached within {_CONNECT_SECONDS:g} s "
                f"({error}); check address and network"
            ) from error
        with client:
            _require_same_versions(client, address)
            yield client


@contextmanager
def client_of_run(where: Workers | Scheduler, run: str) -> Iterator[Client]:
    """Client for one run: of worker processes that end with this block, or of a running cluster.

    Args:
        where: the workers.
        run: the run's identifier, for `is_stopped`.

    Raises:
        ClusterError: the scheduler or all workers were lost, or cannot be reached.
        UsageError: the cluster's versions are other ones.
    """
    own = isinstance(where, Workers)
    opened = local_client(where.number) if isinstance(where, Workers) else running_client(where)
    with opened as client:
        try:
            yield client
        except (CancelledError, CommClosedError) as error:
            # Nobody cancels here: the client has lost its scheduler.
            raise ClusterError(LOST) from error
        except BaseException:
            # Workers of our own end at once. Others', which go on, need not do so with this run.
            if not own and client.status == "running":
                client.run(_stop, run, on_error="ignore")
            raise


_stopped: deque[str] = deque(maxlen=64)
"""In a worker: the last runs that failed elsewhere. A worker may serve many, one after another."""


def _stop(run: str) -> None:
    _stopped.append(run)


def is_stopped(run: str) -> bool:
    """In a worker: whether a run has failed elsewhere, so that its results are not wanted."""
    return run in _stopped


def workerless() -> ClusterError:
    """The error of a cluster that has been without workers for too long."""
    return ClusterError(
        f"the Dask cluster has had no worker for {WORKERLESS_SECONDS:g} s; start some"
    )


def ask_workers(
    scheduler: Scheduler, function: Callable[..., Answer], *arguments: Any
) -> list[Answer]:
    """Call a function on each worker of a running cluster, and return the results.

    Raises:
        UsageError, ClusterError: as `running_client`; and whatever the function raises.
    """
    with running_client(scheduler) as client:
        try:
            return list(client.run(function, *arguments).values())
        except OSError as error:
            raise ClusterError(
                f"scheduler {scheduler.address}: lost a worker while it was asked ({error}); run "
                "again"
            ) from error


def _host(address: str) -> str:
    advice = f"scheduler {address!r}: give tcp://HOST:PORT or tls://HOST:PORT"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise UsageError(advice) from error
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not port:
        raise UsageError(advice)
    return parts.hostname


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _ALIKE}


def _require_same_versions(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERLESS_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"scheduler {address}: has no worker after {WORKERLESS_SECONDS:g} s; start some"
        ) from error
    own = _versions()
    versions: Any = client.get_versions()
    scheduler = versions["scheduler"]
    found = {
        "the scheduler": {
            "python": str(scheduler["host"]["python"]).split(".final")[0],
            "distributed": str(scheduler["packages"]["distributed"]),
        }
    }
    try:
        answers = client.run(_versions, on_error="return")
    except CommClosedError as error:
        raise ClusterError(
            f"scheduler {address}: was lost while versions were compared ({error}); check it and "
            "run again"
        ) from error
    for worker, answer in answers.items():
        if isinstance(answer, CommClosedError):
            continue  # lost since it was counted; a run sees to that
        if isinstance(answer, Exception):  # whatever the worker's unpickling raises
            raise UsageError(
                f"scheduler {address}: its workers cannot run geothresh ({answer}); install "
                f"geothresh {own['geothresh']} on every worker"
            ) from answer
        found[worker] = answer
    for place, packages in found.items():
        for name, there in packages.items():
            here = own[name]
            # Functions travel as byte code, which a minor version of Python may change.
            if name == "python" and here.split(".")[:2] == there.split(".")[:2]:
                continue
            if here != there:
                raise UsageError(
                    f"scheduler {address}: {place} has {name} {there}, this process has {here}; "
                    "install the same version on both"
                )
