"""Resources of the machine: usable processor cores, bf16, GPUs, and the memory of freed arrays."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def usable_cores() -> int:
    """Processor cores that this process may run on.

    These are fewer than all under taskset, in a container with a cpuset, or in a job of a batch
    system.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_threads() -> int:
    """Threads for a computation: OMP_NUM_THREADS if it is set, else the number of usable cores.

    Libraries that use OpenMP, such as torch, choose the same number by themselves.
    """
    # "4,2" means 4 threads, each of which may start 2.
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else usable_cores()


def has_bf16() -> bool | None:
    """Whether the processor has the bf16 instructions of AVX-512; None if unknown.

    It is known on Linux only.
    """
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None


def nvidia_gpus(devices: Path = Path("/dev")) -> int:
    """Number of NVIDIA GPUs that the Linux kernel lists, usable or not."""
    return len(list(devices.glob("nvidia[0-9]*")))


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _MAPPED_BYTES = 2**30, 2**25
"""Free bytes at the end of the heap from which on glibc returns them to the system, and size
above which an array is mapped separately; glibc accepts at most 32 MB for the latter."""


def keep_freed_memory() -> None:
    """Keep the memory of freed arrays for later arrays, for the rest of this process.

    glibc returns freed arrays of some megabytes to the system, and later arrays of that size are
    mapped again page by page. That takes a fifth of the time of a tile outside the network, for
    which a GPU waits. The process keeps up to a gigabyte of freed memory. Other C libraries are not
    changed.

    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):  # other libraries have other parameter numbers
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
