"""Connect to Dask: start worker processes on this machine, or join a running cluster.

Workers that are started here share the GPUs in turn (by CUDA_VISIBLE_DEVICES, without torch). They
ignore Ctrl-C (SIGINT): it goes to all processes of a terminal, and only the main process must
answer it. A worker that ignored it only after its start would be killed by it during the first
seconds. A blocked signal is inherited by threads and processes, also through exec, so a worker
ignores it from its first instruction on. The main thread blocks it only while it starts one thread,
and answers a signal of that time afterwards.

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
from geothresh.machine import nvidia_gpus, usable_cores
from geothresh.mosaic.protocols import Scheduler, Workers

_FAULTS = logging.getLogger("geothresh.faults")
"""Logs faults inside libraries that are also raised, or that come from ending the cluster. They are
shown with --debug only."""
# Filter for the warning of multiprocessing's resource tracker about leaks.
_LEAKS = "ignore:resource_tracker:UserWarning"
Answer = TypeVar("Answer")

_LOGGER = logging.getLogger(__name__)
WORKERLESS_SECONDS = 60.0
"""Seconds that a cluster may be without any worker."""
LOST = "the scheduler of the Dask cluster was lost; start the cluster again"
_CONNECT_SECONDS = 30.0
_STARTS = 4
"""Attempts to start worker processes."""
_SOON_SECONDS = 0.05
"""Seconds between checks whether workers have started or ended."""
_ENDED = (Status.closed, Status.failed)
# By default, each server of Dask in this process checks its event loop fifty times a second, and
# monitors the system twice a second. That takes 2 % of a core for two workers, and nothing uses it.
_CHECK_INTERVALS = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "10s",
}
_ALIKE = ("geothresh", "dask", "distributed", "numpy")
"""Packages whose versions must be the same in client and workers."""


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> list[str]:
    """The NVIDIA GPUs that a process may use, by their names in CUDA_VISIBLE_DEVICES."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(k) for k in range(nvidia_gpus(devices))]
    return [name.strip() for name in chosen.split(",") if name.strip()]


def environment_of_worker(number: int, gpus: list[str]) -> dict[str, str]:
    """Environment variables of a worker process: all GPUs, with that of the worker first.

    A worker uses the first GPU that it sees. Empty if there are fewer than two GPUs.
    """
    if len(gpus) < 2:
        return {}
    own = number % len(gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[own:] + gpus[:own])}


@contextmanager
def loop_without_interrupts() -> Iterator[Any]:
    """Run Tornado's event loop in a thread that blocks SIGINT, for all that is started there, too.

    Errors in the loop that nothing else catches are logged as information by ``geothresh.faults``.
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
    """Block SIGINT in this thread; a signal of that time is answered at the end."""
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

    It is started here because starting it unblocks SIGINT in its thread. It removes the semaphores
    of a run that is killed; its warning about that is silenced.
    """
    if not hasattr(resource_tracker, "ensure_running"):
        return
    quiet = [] if _FAULTS.isEnabledFor(logging.INFO) else [_LEAKS]
    sys.warnoptions.extend(quiet)  # the tracker inherits this
    try:
        resource_tracker.ensure_running()
    finally:
        for option in quiet:
            sys.warnoptions.remove(option)


def _note(loop: Any, context: dict[str, Any]) -> None:
    _FAULTS.info("%s", context["message"], exc_info=context.get("exception"))


def cores_of_worker(workers: int) -> int:
    """Processor cores of each worker, for a number of workers on this machine."""
    return max(1, usable_cores() // workers)


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Client of a local cluster of worker processes, which end with this block.

    Raises:
        ClusterError: all workers died in each of several attempts to start them.
    """
    with (
        tempfile.TemporaryDirectory(prefix="geothresh-") as scratch,
        dask.config.set(_CHECK_INTERVALS),
        _quiet_dask(),  # until the loop has ended, because aborted calls log errors
        loop_without_interrupts() as loop,
        _OwnCluster(loop, workers, scratch) as cluster,
        # Results come directly from the workers; the scheduler would copy all of them.
        Client(cluster, set_as_default=False, direct_to_workers=True) as client,
    ):
        try:
            cluster.scale(workers)
            _wait_for_first(cluster, client, workers)
            yield client
        except BaseException:
            cluster.kill_workers()
            raise


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Silence the log of distributed: errors that matter are raised as exceptions."""
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
        """Start a scheduler in the thread of `loop`, for a number of workers."""
        self._nannies: list[Nanny] = []
        self._own_loop = loop
        cores = cores_of_worker(workers)
        super().__init__(  # type: ignore[no-untyped-call]
            loop=loop,
            n_workers=0,
            # One thread per core for the model, and one that reads and weights tiles meanwhile.
            threads_per_worker=cores + 1,
            processes=True,
            worker_class=self._nanny,
            host="127.0.0.1",
            # A free port: without a dashboard, Dask still serves a small health page.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,  # no spilling: the run limits the chunks in flight
            local_directory=scratch,
            silence_logs=logging.CRITICAL,  # errors that matter are raised as exceptions
            env={name: str(cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        )

    def _nanny(self, *arguments: Any, **options: Any) -> Nanny:
        gpu = environment_of_worker(len(self._nannies), visible_gpus())
        options["env"] = {**options.get("env", {}), **gpu}
        nanny = Nanny(*arguments, **options)
        self._nannies.append(nanny)
        return nanny

    def kill_workers(self) -> None:
        """Kill all workers, so that `close` does not wait for them.

        `close` would wait until starting workers are up and until running tasks are done. Workers
        hold nothing that could be lost.
        """
        self._own_loop.add_callback(self._kill_workers)

    async def _kill_workers(self) -> None:
        while left := [nanny for nanny in self._nannies if nanny.status not in _ENDED]:
            for nanny in left:
                if nanny.status != Status.closing:
                    nanny.close_gracefully("the run ends")  # or it would start the worker again
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
            await asyncio.sleep(_SOON_SECONDS)


def _wait_for_first(cluster: LocalCluster, client: Client, workers: int) -> None:
    """Wait until a worker is up; workers that die while they start are started again.

    Raises:
        ClusterError: all workers died in each of several attempts to start them.
    """
    starts = 1
    while not client.nthreads():
        nannies = cluster.workers.values()  # those whose start has ended
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
    """Restart workers of a local cluster that died while they started; else do nothing."""
    cluster = client.cluster
    if cluster is None or len(client.nthreads()) >= workers:
        return
    # A nanny restarts its worker, but not one that died while it started.
    dead = [name for name, nanny in cluster.workers.items() if not nanny.is_alive()]
    try:
        if dead:
            cluster.sync(cluster.scale_down, dead)
    except RuntimeError as error:
        # A worker that was being started died as well: the next check finds it.
        _LOGGER.info("a worker died while others were started again (%s)", error)
    cluster.scale(workers)


@contextmanager
def running_client(scheduler: Scheduler) -> Iterator[Client]:
    """Client of a running cluster; checks that its workers have the same versions.

    Raises:
        UsageError: versions differ, or the address is invalid.
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
        UsageError: the cluster has other versions.
    """
    own = isinstance(where, Workers)
    opened = local_client(where.number) if isinstance(where, Workers) else running_client(where)
    with opened as client:
        try:
            yield client
        except (CancelledError, CommClosedError) as error:
            # geothresh cancels nothing here, so the client has lost its scheduler.
            raise ClusterError(LOST) from error
        except BaseException:
            # Local workers end with the block. Those of a running cluster are told to stop the run.
            if not own and client.status == "running":
                client.run(_stop, run, on_error="ignore")
            raise


_stopped: deque[str] = deque(maxlen=64)
"""In a worker: the last runs that failed elsewhere. A worker may serve many runs in turn."""


def _stop(run: str) -> None:
    _stopped.append(run)


def is_stopped(run: str) -> bool:
    """In a worker: whether a run has failed elsewhere, so that its results are not needed."""
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
        UsageError, ClusterError: see `running_client`. Exceptions of the function are raised, too.
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
    by_process = {
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
            continue  # the worker has died since; a run handles that
        if isinstance(answer, Exception):  # whatever the worker's unpickling raises
            raise UsageError(
                f"scheduler {address}: its workers cannot run geothresh ({answer}); install "
                f"geothresh {own['geothresh']} on every worker"
            ) from answer
        by_process[worker] = answer
    for process, packages in by_process.items():
        for name, theirs in packages.items():
            ours = own[name]
            # Functions are sent as byte code, which a minor version of Python may change.
            if name == "python" and ours.split(".")[:2] == theirs.split(".")[:2]:
                continue
            if ours != theirs:
                raise UsageError(
                    f"scheduler {address}: {process} has {name} {theirs}, this process has {ours}; "
                    "install the same version on both"
                )
