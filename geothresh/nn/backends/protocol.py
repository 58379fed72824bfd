"""Protocol of an inference library; each implementation has a module beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from geothresh.options import Precision
from geothresh.types import Float32Array

if TYPE_CHECKING:
    import torch

Forward = Callable[[Float32Array], Float32Array]
"""(B, 1, H, W) float32 in [0, 1] to the same, for one H and W."""


class Library(Protocol):
    """An inference library, set up for one device and precision."""

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        ...

    @property
    def precision(self) -> Precision:
        """fp32 or bf16: the number format inside the network."""
        ...

    def compile(self, graph: bytes) -> Forward:
        """A function that runs an ONNX graph.

        The function raises MemoryError where a batch does not fit.
        """
        ...


def out_of_memory(error: Exception) -> bool:
    """Whether an error means out of memory; the libraries have no exception type for it."""
    text = str(error).lower()
    return any(part in text for part in ("bad_alloc", "failed to allocate", "out of memory"))
