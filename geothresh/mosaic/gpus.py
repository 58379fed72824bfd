"""Assign the GPUs of this machine to its worker processes (CUDA_VISIBLE_DEVICES). No torch here.

https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


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
