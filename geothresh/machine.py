"""Resources of the machine: the processor cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Processor cores that this process may run on.

    Fewer than there are under taskset, in a container with a cpuset, or in a job of a cluster's
    batch system.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
