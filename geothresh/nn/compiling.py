"""`torch.compile` of a network's forward pass: when it pays, whether it is possible, its errors.

torch generates kernels for one network and one batch shape, and fuses all operations between two
convolutions to one kernel. Compiling takes from half a minute to some minutes. torch keeps the code
in its default cache for later runs. Results differ from those of the plain pass by rounding, so a
run records in tags and fingerprint that it was compiled.

https://docs.pytorch.org/docs/stable/generated/torch.compile.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from geothresh.errors import UsageError
from geothresh.nn.config import NetworkConfig
from geothresh.nn.device import out_of_memory

if TYPE_CHECKING:
    import torch

    from geothresh.nn.network import ThreshNet

_LOGGER = logging.getLogger("geothresh.nn")
PAYS_FROM = 20_000
"""Compiling the full network for a GPU pays from this many tiles on: it takes up to 30 s and saves
1.4 ms a tile, measured on an H200 (docs/performance.md)."""


def pays(config: NetworkConfig, *, device: Callable[[], str], n_tiles: int) -> bool:
    """Whether compiling pays for a run of this many tiles; decides ``auto``.

    It pays only on CUDA, from `PAYS_FROM` tiles on, for networks at full resolution: with smaller
    networks the GPU waits for the host anyway. On a CPU, a pass of the packaged models becomes a
    seventh faster, which makes up for the time of compiling only after thousands of tiles.

    Args:
        config: the sizes of the network.
        device: gives the type of the device, cpu, cuda or mps; called only if it decides.
        n_tiles: tiles of the whole raster; 0 if unknown.
    """
    if n_tiles < PAYS_FROM or config.shuffle > 1 or device() != "cuda":
        _LOGGER.info(
            "compile auto: not compiled; it pays from %d tiles on (here %d), on a GPU with CUDA, "
            "for a network at full resolution", PAYS_FROM, n_tiles,
        )  # fmt: skip
        return False
    return True


@cache
def lacking_compiler(device: str, /) -> str | None:
    """Why torch cannot compile for a type of device on this machine; None if it can.

    A function of one line is compiled as a test; it needs the same tools as a network.
    """
    import torch

    try:
        # An array of 64, because vectorised code needs more of the compiler than a single number.
        numbers = torch.zeros(64, device=device)
        options = compiler_options(device)
        torch.compile(_one_more, dynamic=False, fullgraph=True, options=options)(numbers)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return _first_line(error)
    return None


def _one_more(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def require_compiler(device: str) -> None:
    """Raise UsageError if torch cannot compile for a type of device."""
    reason = lacking_compiler(device)
    if reason is not None:
        raise UsageError(_refusal(device, reason))


@contextmanager
def compiler_errors_reported(device: str) -> Iterator[None]:
    """Context manager around a first pass that turns errors of torch's compiler into UsageErrors.

    Raises:
        UsageError: the compiler failed. There is no silent fallback to the plain pass.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise UsageError(_refusal(device, _first_line(error))) from error


def compile_in_place(network: ThreshNet) -> None:
    """Have the next forward pass compiled, for the shape of its batch only.

    torch's compiler fuses biases, sums and ReLUs by itself, and does not know the fused kernels of
    the plain pass, so these are replaced by separate steps.
    """
    from geothresh.nn.network import take_apart

    take_apart(network)
    device = next(network.parameters()).device.type
    network.compile(dynamic=False, fullgraph=True, options=compiler_options(device))


def compiler_options(device: str) -> dict[str, str | int | bool | Callable[..., Any]] | None:
    """Options of torch's compiler: on CPUs, the vector length in bits.

    By default torch chooses the longest vectors, but its cache does not distinguish lengths.
    Kernels for vectors of 256 bits (from another machine with the same cache, or with
    ATEN_CPU_CAPABILITY=avx2) were built again for 512 bits, and wrote past the ends of their
    arrays. Options are part of the cache's key. Observed with torch 2.13.
    """
    import torch

    if device != "cpu":
        return None
    bits = {"AVX2": 256, "AVX512": 512}.get(torch.backends.cpu.get_cpu_capability())
    return None if bits is None else {"cpp.simdlen": bits}


def _refusal(device: str, reason: str) -> str:
    needed = "a C++ compiler such as g++" if device == "cpu" else "triton and a C compiler"
    return (
        f"`compile=yes`: torch cannot compile for {device} here ({reason}); install {needed}, or "
        "say `compile=no`"
    )


def _first_line(error: BaseException) -> str:
    """The first line of a compiler's error, which may have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
