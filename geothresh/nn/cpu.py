"""Thread pools that run torch on a CPU, with the cores shared out among them.

Every thread that calls torch gets a pool of OpenMP threads of its own. Once there are more of these
than cores, GNU OpenMP puts them to sleep at each barrier instead of letting them wait, and all
passes take nearly twice as long: so torch is called by threads of this module alone, which share
the cores out among them.

A second core for a pass gains little: the two hundred short steps of a network end at a barrier
each, where the cores wait for one another, for long if something else is using one of them, such
as the reading of the next tiles. So each core has a tile of its own, as far as memory goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

from geothresh.nn.config import NetworkConfig

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_MOST_PASSES, _MOST_LARGE_PASSES = 16, 4
"""A pass takes some 15 MB, or 250 MB where its first level has the resolution of the tile."""


class ComputeThreads:
    """A pool of threads that run torch, each with its share of the cores."""

    def __init__(self, passes: int, cores: int | None = None) -> None:
        """Start the threads; what torch keeps for all others stays as it is.

        Args:
            passes: Calls that go on at the same time; further ones wait.
            cores: To be shared out among them; by default all that torch takes.
        """
        self.passes = passes
        self._pool = ThreadPoolExecutor(passes, thread_name_prefix="geothresh-torch")
        if passes > 1 or cores is not None:
            self._share_out(cores)

    def _share_out(self, cores: int | None) -> None:
        import torch

        threads = torch.get_num_threads()
        share = max(1, (cores or threads) // self.passes)
        all_there = threading.Barrier(self.passes)

        def begin() -> None:
            all_there.wait()
            # Asked first: a thread that torch meets for the first time gets the number of all.
            torch.get_num_threads()
            torch.set_num_threads(share)
            all_there.wait()

        try:
            for future in [self._pool.submit(begin) for _ in range(self.passes)]:
                future.result()
        finally:
            # Threads keep the number that they have set, which is also what new ones begin with.
            torch.set_num_threads(threads)

    def run(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run ``call`` on one of the threads, and wait for it."""
        return self._pool.submit(call, *args, **kwargs).result()


def compute_threads(passes: int = 1, cores: int | None = None) -> ComputeThreads:
    """The pool of this process for so many passes at once; a single pass has all cores."""
    return _shared(passes, cores)


@cache
def _shared(passes: int, cores: int | None) -> ComputeThreads:
    # However it is asked for: the cache tells named arguments from others.
    return ComputeThreads(passes, cores)


def passes_at_once(config: NetworkConfig, cores: int | None = None) -> int:
    """Number of concurrent passes that gives the highest throughput on so many cores.

    All have the same number of cores, on which the last bit of a result in fp32 depends.
    """
    import torch

    cores = cores or torch.get_num_threads()
    most = min(cores, _MOST_PASSES if config.shuffle > 1 else _MOST_LARGE_PASSES)
    return max(range(1, most + 1), key=lambda passes: (cores // passes * passes, passes))
