"""Choose device and number format, divide a CPU's cores among threads, halve large batches.

torch is imported when it is needed. On a CPU, every thread that calls torch gets its own pool of
OpenMP threads. With more of these than cores, GNU OpenMP lets them sleep at each barrier instead of
spinning, and all passes take nearly twice as long. So only the threads of `ComputeThreads` call
torch, each with its share of the cores.

A second core for a pass gains little: each of the network's two hundred short steps ends at a
barrier, where the cores wait for the slowest one, such as one that also reads the next tiles. So
each core works on its own tile, as far as memory allows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

import numpy as np

from geothresh.errors import (
    DeviceLostError,
    GeothreshError,
    InputError,
    ModelError,
    UsageError,
    warn,
)
from geothresh.machine import has_bf16, nvidia_gpus
from geothresh.nn.config import NetworkConfig
from geothresh.options import BatchSize, Precision
from geothresh.types import Float32Array

if TYPE_CHECKING:
    import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_MOST_PASSES, _MOST_LARGE_PASSES = 16, 4
"""Most passes at once, and most with the first level at full resolution. They limit memory: a pass
takes about 15 MB, or 250 MB at full resolution."""
GPU_BATCH = 16
"""Tiles of a batch on a GPU, if they fit in its memory."""

_DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Number formats, and their names in torch."""
# Parts of messages about failed allocations: on CPUs (Linux and macOS, Windows, C++), in oneDNN, on
# Metal, in ONNX Runtime and in OpenVINO. Few of them have an exception type of their own.
_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "bad_alloc",
    "failed to allocate", "could not create a primitive",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """A device like `torch.device`, for libraries that run a network without torch."""

    type: str
    """cpu or cuda."""
    index: int | None = None
    """Index of the GPU; None = the first one."""

    def __str__(self) -> str:
        """The device as the option takes it, such as cuda:1."""
        return self.type if self.index is None else f"{self.type}:{self.index}"


def pick_device(name: str) -> torch.device:
    """The torch device of a name; ``auto`` chooses a GPU that works, else the CPU.

    Args:
        name: auto, cpu, cuda, cuda:i or mps; ``cuda`` without a number stands for all GPUs, see
            `devices_of`.

    Raises:
        UsageError: the name is unknown.
        InputError: this machine has no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if nvidia_gpus():
            warn(
                "the GPU of this machine cannot be used and the network runs on the CPU, many "
                "times slower; check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES, or say "
                "`device=cpu`"
            )
            return torch.device("cpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    unknown = f"device {name!r} is unknown; say auto, cpu, cuda, cuda:0 or mps"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(unknown) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(unknown)
    # torch keeps an index in a signed byte: cuda:128 becomes -128.
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
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
    """Context manager: report a GPU that fails inside this block as a `DeviceLostError`.

    Raises:
        DeviceLostError: the device itself has failed. The run ends instead of continuing on another
            device, which would compute the remaining pixels in another number format.
    """
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        reason = " ".join(str(error).splitlines()[:1])
        raise DeviceLostError(
            f"device {device}: is lost ({reason}); look at it with nvidia-smi, and run again"
        ) from error


@contextmanager
def full_memory_reported(device: torch.device, what: str, advice: str = "") -> Iterator[None]:
    """Context manager: report memory that runs out, and a lost GPU, as errors of geothresh.

    Args:
        device: the device.
        what: what is computed inside the block, such as ``a step of the training``.
        advice: options to change, as a part of the message that ends with a comma.

    Raises:
        ModelError: there was not enough memory.
        DeviceLostError: the device itself has failed.
    """
    with lost_device_reported(device):
        try:
            yield
        except GeothreshError:
            raise
        except Exception as error:  # see `out_of_memory`: the types have no common base class
            if not out_of_memory(error):
                raise
            elsewhere = "" if device.type == "cpu" else ", or say `device=cpu`"
            raise ModelError(
                f"{what} does not fit in the memory of {device}; {advice + ' ' if advice else ''}"
                f"end what else runs there{elsewhere}"
            ) from error


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format (dtype) of a network on a device.

    ``auto`` chooses bf16 if it is native, else fp16 on CUDA and fp32 elsewhere.

    Raises:
        UsageError: the precision is unknown, or is fp16 on a CPU.
    """
    import torch

    if device.type == "cpu":
        precision = cpu_precision(precision)
    elif precision == "auto" and device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if native else "fp16"
    elif precision == "auto":
        precision = "fp32"
    _require_format(precision)
    return cast("torch.dtype", getattr(torch, _DTYPES[precision]))


def cpu_precision(precision: Precision) -> Precision:
    """The number format of a network on the CPU, in any library: fp32 or bf16.

    Raises:
        UsageError: the precision is unknown, or is fp16.
    """
    if precision == "auto":
        # A CPU without bf16 instructions emulates them, which is far slower than fp32.
        return "bf16" if cpu_has_bf16() else "fp32"
    _require_format(precision)
    if precision == "fp16":
        raise UsageError("precision fp16 needs a GPU; say auto, fp32 or bf16")
    return precision


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16."""
    supported = has_bf16()
    if supported is None:
        # torch is the only library with this test that is always installed.
        import torch

        supported = torch.cpu._is_avx512_bf16_supported()
    return supported


def _require_format(precision: str) -> None:
    if precision not in _DTYPES:
        raise UsageError(f"precision {precision!r} is unknown; say auto, {', '.join(_DTYPES)}")


def precision_name(dtype: torch.dtype) -> Precision:
    """The name of a dtype: the inverse of `pick_dtype`."""
    return next(name for name, in_torch in _DTYPES.items() if str(dtype) == f"torch.{in_torch}")


class ComputeThreads:
    """A pool of threads that run torch, each with its share of the cores."""

    def __init__(self, passes: int, cores: int | None = None) -> None:
        """Start the threads. The number of threads that torch uses elsewhere does not change.

        Args:
            passes: most calls at once; others wait.
            cores: processor cores that they share; by default all that torch uses.
        """
        self.passes = passes
        self._pool = ThreadPoolExecutor(passes, thread_name_prefix="geothresh-torch")
        if passes > 1 or cores is not None:
            self._share_out(cores)

    def _share_out(self, cores: int | None) -> None:
        import torch

        threads = torch.get_num_threads()
        share = max(1, (cores or threads) // self.passes)
        started = threading.Barrier(self.passes)

        def begin() -> None:
            started.wait()
            # The first call into torch sets this thread's number of threads to the default.
            torch.get_num_threads()
            torch.set_num_threads(share)
            started.wait()

        try:
            for future in [self._pool.submit(begin) for _ in range(self.passes)]:
                future.result()
        finally:
            # set_num_threads in a thread also changes the default of later threads.
            torch.set_num_threads(threads)

    def run(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run ``call`` on one of the threads, and wait for it."""
        return self._pool.submit(call, *args, **kwargs).result()


@cache
def compute_threads(passes: int, cores: int | None, /) -> ComputeThreads:
    """The pool for a number of passes at once, which the whole process shares."""
    return ComputeThreads(passes, cores)


def passes_at_once(config: NetworkConfig, cores: int | None = None) -> int:
    """The number of concurrent passes with the highest throughput on a number of cores.

    All passes get the same number of cores, because the last bit of an fp32 result depends on it.
    """
    import torch

    cores = cores or torch.get_num_threads()
    most = min(cores, _MOST_PASSES if config.shuffle > 1 else _MOST_LARGE_PASSES)
    return max(range(1, most + 1), key=lambda passes: (cores // passes * passes, passes))


def require_whole_patches(shape: tuple[int, ...], patch: int) -> None:
    """Raise ModelError if a shape is not (B, H, W) with H and W multiples of the patch."""
    if len(shape) != 3 or any(side < 1 or side % patch for side in shape[1:]):
        raise ModelError(
            f"tiles of shape {shape} do not suit a model with patch {patch}; take a tile size that "
            "is a multiple of it"
        )


class Batches:
    """Batch size of one network on one device; it is halved when memory runs out.

    Any number of threads may run at once.
    """

    def __init__(self, batch_size: BatchSize, device: torch.device | Device) -> None:
        """Start with a batch size of at least 1, or "auto": 1 on a CPU, 16 on a GPU.

        Raises:
            UsageError: the batch size is below 1.
        """
        if isinstance(batch_size, int) and batch_size < 1:
            raise UsageError(f"`batch_size` {batch_size}: say auto or a number of at least 1")
        # On a CPU a larger batch only costs memory; a GPU needs one to be busy.
        default = 1 if device.type == "cpu" else GPU_BATCH
        self.device = device
        self.size = batch_size if isinstance(batch_size, int) else default
        self._halving = threading.Lock()

    def run(
        self, forward: Callable[[Float32Array], Float32Array], tiles: Float32Array
    ) -> Float32Array:
        """Call `forward` on tiles (B, ..., T, T) batch by batch, and halve batches that do not fit.

        Returns:
            (B, T, T), the results of `forward`.

        Raises:
            ModelError: not even one tile fits in memory.
        """
        refined = np.empty((len(tiles), *tiles.shape[-2:]), np.float32)
        start = 0
        while start < len(tiles):
            size = self.size
            stop = min(start + size, len(tiles))
            try:
                refined[start:stop] = forward(tiles[start:stop])
            except Exception as error:  # errors of ONNX Runtime have no narrower base class
                if not out_of_memory(error):
                    raise
                self._halve(size, tiles.shape[-1], error)
            else:
                start = stop
        return refined

    def _halve(self, size: int, tile: int, error: Exception) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        if size == 1:
            raise ModelError(
                f"one tile of {tile} x {tile} does not fit in the memory of {self.device}; "
                "take a smaller `tile_size` or `device=cpu`"
            ) from error
        with self._halving:
            # Another thread may have halved it already.
            self.size = min(self.size, size // 2)


def is_of_device(error: Exception) -> bool:
    """Whether an error is one of the device: its memory has run out, or it has failed."""
    import torch

    return isinstance(error, torch.AcceleratorError) or out_of_memory(error)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of any of the libraries means that memory has run out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in _OUT_OF_MEMORY)
