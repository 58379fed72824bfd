"""Choose device and number format (dtype) from their names. Imports torch when called."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from geothresh.errors import DeviceLostError, GeothreshWarning, InputError, UsageError
from geothresh.options import Precision

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """Torch device of a name; ``auto`` takes a GPU that works, else the CPU.

    Args:
        name: auto, cpu, cuda, cuda:i or mps; ``cuda`` without a number stands for all GPUs, see
            `devices_of`.

    Raises:
        UsageError: there is no such name.
        InputError: the device is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if _has_nvidia_gpu():
            warnings.warn(
                "the GPU of this machine cannot be used and the network runs on the CPU, many "
                "times slower; check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES, or say "
                "`device=cpu`",
                GeothreshWarning,
                stacklevel=3,
            )
            return torch.device("cpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r} is unknown; say auto, cpu, cuda, cuda:0 or mps") from (
            error
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name!r} is unknown; say auto, cpu, cuda, cuda:0 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name}: {torch.cuda.device_count()} CUDA devices are there; say auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name}: Metal is not available here; say auto or cpu")
    return device


def devices_of(device: torch.device) -> list[torch.device]:
    """All GPUs for ``cuda`` without a number, else the device itself."""
    import torch

    if device != torch.device("cuda"):
        return [device]
    return [torch.device("cuda", k) for k in range(torch.cuda.device_count())]


@contextmanager
def lost_device_reported(device: torch.device) -> Iterator[None]:
    """Turn the loss of a device inside this block into an error of ours.

    Raises:
        DeviceLostError: the device itself has failed. The run ends: on another one the rest of
            its pixels would be of another number format than those before.
    """
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        said = " ".join(str(error).splitlines()[:1])
        raise DeviceLostError(
            f"device {device}: is lost ({said}); look at it with nvidia-smi, and run again"
        ) from error


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Number format (dtype) of a network on a device.

    ``auto`` takes bf16 where it is native, else fp16 on CUDA and fp32 elsewhere.

    Raises:
        UsageError: the precision is unknown, or is fp16 on a CPU.
    """
    import torch

    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        # A CPU without bf16 instructions emulates them, far slower than fp32.
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        raise UsageError(f"precision {precision!r} is unknown; say auto, {', '.join(dtypes)}")
    chosen = dtypes[precision]
    if chosen is torch.float16 and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; say auto, fp32 or bf16")
    return chosen


def precision_name(dtype: torch.dtype) -> Precision:
    """Name of a dtype: the inverse of `pick_dtype`."""
    names: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    return names[str(dtype).removeprefix("torch.")]


def _has_nvidia_gpu() -> bool:
    """Whether the kernel shows a GPU of NVIDIA's, usable or not."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
