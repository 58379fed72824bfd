"""`torch.compile` of a network's forward pass: when it pays, whether it can, and its errors.

torch writes kernels for one network and one shape of batch, and joins what the network does between
two convolutions to one kernel each. A compiler turns them into code, which takes from half a minute
to some minutes once; torch keeps the code for later runs, where it keeps it by default. Results
differ from those of the plain pass by rounding, so a run says in tags and fingerprint that it was
compiled.

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
"""Tiles from which on compiling the full network for a GPU pays: up to 30 s for 1.4 ms a tile less,
by the figures of an H200 in docs/performance.md."""


def pays(config: NetworkConfig, *, device: Callable[[], str], n_tiles: int) -> bool:
    """Whether compiling pays for a run of so many tiles: what ``auto`` decides by.

    It does on CUDA alone, from `PAYS_FROM` tiles on, for networks at full resolution: others take
    so little of a GPU that it waits for the host. On a CPU a pass of the packaged models is a
    seventh quicker, which takes thousands of tiles to make up for the compiler's work.

    Args:
        config: of the network.
        device: gives its type: cpu, cuda or mps; called only where the rest does not decide.
        n_tiles: of the whole raster; 0 where that is not known.
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
    """Why torch cannot compile for a type of device on this machine; None where it can.

    A function of one line is compiled: that needs all that a network needs.
    """
    import torch

    try:
        # Vectorised code, for which a compiler is asked in more ways than for a single number.
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
    """Raise UsageError where nothing can be compiled for a type of device."""
    reason = lacking_compiler(device)
    if reason is not None:
        raise UsageError(_refusal(device, reason))


@contextmanager
def compiler_errors_reported(device: str) -> Iterator[None]:
    """Context manager around a first pass: what torch's compiler raises is a UsageError.

    Raises:
        UsageError: the compiler failed. The plain pass does not take its place unasked.
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
    """Have the next forward pass compiled, for the shape of its batch and no other.

    torch's compiler joins biases, sums and rectifiers with all else between two convolutions, and
    does not know the fused kernels that the plain pass has for them, so these are left out.
    """
    from geothresh.nn.network import take_apart

    take_apart(network)
    device = next(network.parameters()).device.type
    network.compile(dynamic=False, fullgraph=True, options=compiler_options(device))


def compiler_options(device: str) -> dict[str, str | int | bool | Callable[..., Any]] | None:
    """What torch's compiler is told: the length of this CPU's vectors, in bits.

    It takes the longest by itself, but its cache does not tell lengths apart: kernels made for
    vectors of 256 bits (another machine with the same cache, or ATEN_CPU_CAPABILITY=avx2) were
    built again for those of 512, and wrote past the ends of their arrays. Options are part of the
    cache's key. Measured with torch 2.13.
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
    """What a compiler's error says first, which may be many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
