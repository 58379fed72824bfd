"""Resources of the machine: the processor cores that this process may use, and what they know."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Processor cores that this process may run on.

    Fewer than there are under taskset, in a container with a cpuset, or in a job of a cluster's
    batch system.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_threads() -> int:
    """Threads for a computation: the cores, or as many as OMP_NUM_THREADS says.

    Libraries built on OpenMP, as torch is, take as many of themselves.
    """
    # "4,2" stands for 4 threads, each of which may start 2.
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else usable_cores()


def has_bf16() -> bool | None:
    """Whether the processor has AVX-512's instructions for bf16; None where nothing tells.

    Linux tells.
    """
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
