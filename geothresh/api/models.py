"""Load a model as a function of numpy tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from geothresh.errors import UsageError
from geothresh.fields import Text, checked, known
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.nn.refiner import ModelSource
from geothresh.options import Backend, BatchSize, Compute, Precision

if TYPE_CHECKING:
    from geothresh.nn.backends import CompiledRefiner
    from geothresh.nn.refiner import TorchRefiner

_COMPUTE = known(Compute)


@checked(
    model=Text(or_path=True),
    **{name: _COMPUTE[name].accepts for name in ("device", "precision", "batch_size", "backend")},
)
def load_model(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = "auto",
    backend: Backend = "torch",
    compiled: bool = False,
) -> TorchRefiner | CompiledRefiner:
    """Load a packaged model or a model file as a refiner of numpy tiles.

    It is the network alone. `refine` and `refine_array`, also when they are given the loaded model,
    smooth its tiles and mix its output with them where its card says so (``model.scope.smooth`` and
    ``strength``).

    Args:
        model: a packaged model's name, or a model file.
        device: auto, cpu, cuda, cuda:i or mps; backends other than torch take auto for cpu.
        precision: number format inside the network: auto, fp32, bf16 or fp16.
        batch_size: tiles per forward pass; auto: 1 on a CPU, 16 on a GPU.
        backend: the library that runs the network: torch, onnxruntime or openvino.
        compiled: whether torch compiles the network at its first call, for batches of this size.

    Returns:
        A function of (N, T, T) float32 tiles in [0, 1], which returns refined tiles of that shape.

    Raises:
        ModelError: the model is missing, damaged or not a geothresh model.
        InputError: the device does not exist.
        UsageError: the backend is not installed, or lacks the device or the precision; torch finds
            no compiler.

    Example:
        >>> model = load_model("roads", device="cpu")
        >>> model(np.zeros((1, 512, 512), np.float32)).shape
        (1, 512, 512)
    """
    source = ModelSource.find(
        model, device=device, precision=precision, batch_size=batch_size, backend=backend
    )
    if compiled and backend != "torch":
        raise UsageError(f"`compiled` and `backend={backend}`: torch alone compiles")
    return replace(source, compiled=compiled).load()
