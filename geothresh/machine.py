"""Resources of the machine: processor cores that are ours, what they know, freed memory."""

from __future__ import annotations

import ctypes
import os
import sys
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


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _MAPPED_BYTES = 2**30, 2**25
"""Free bytes at the end of the heap from which on they are given back, and the size from which on
an array is memory of its own; 32 MB are the most that glibc takes."""


def keep_freed_memory() -> None:
    """Have the memory of freed arrays kept for the next ones, for the rest of this process.

    glibc gives arrays of some megabytes back to the system when they are freed, and the next ones
    of their size come page by page anew: a fifth of the time that a tile takes beside the network,
    which a GPU waits for. Other C libraries are left as they are. The process keeps what it has
    once had: up to a gigabyte.

    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):  # others number their parameters otherwise
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
