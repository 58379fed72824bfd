"""ONNX Runtime, in fp32, on CPUs and, where its build for CUDA is installed, on NVIDIA's GPUs."""

from __future__ import annotations

import re

import torch

from geothresh.errors import InputError, UsageError
from geothresh.nn.backends.graph import INPUT
from geothresh.nn.backends.protocol import Forward, out_of_memory
from geothresh.options import Precision
from geothresh.types import Float32Array

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# Errors alone: its warnings are about the graph's form, and nothing that a user could mend.
_ERRORS = 3


class OnnxRuntime:
    """ONNX Runtime for one device; see `geothresh.nn.backends.protocol.Library`."""

    precision: Precision = "fp32"

    def __init__(self, device: str, precision: Precision, *, threads: int) -> None:
        """Take a device (auto means cpu), a precision and the threads of a forward pass.

        Raises:
            UsageError: a device other than cpu and cuda[:i], or a precision other than fp32.
            InputError: this build of ONNX Runtime has no CUDA.
        """
        if precision not in ("auto", "fp32"):
            raise UsageError(
                f"precision {precision}: ONNX Runtime has fp32 alone; say fp32, or take another "
                "backend"
            )
        self.device = _picked(device)
        self._threads = threads

    def compile(self, graph: bytes) -> Forward:
        """A function that runs an ONNX graph; it may be called by one thread at a time."""
        import onnxruntime

        # Its builds for Windows send some.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = _ERRORS
        provider: str | tuple[str, dict[str, str]] = _CPU
        if self.device.type == "cuda":
            # TF32 would round the numbers of an fp32 network to 10 bits.
            provider = (_CUDA, {"device_id": str(self.device.index or 0), "use_tf32": "0"})
        session = onnxruntime.InferenceSession(graph, options, providers=[provider])
        # What a provider lacks it leaves to the CPU, and where it cannot start, everything.
        if self.device.type == "cuda" and _CUDA not in session.get_providers():
            raise InputError(
                f"device {self.device}: ONNX Runtime cannot start CUDA; check its versions of CUDA "
                "and cuDNN, or say `device=cpu`"
            )

        def forward(tiles: Float32Array) -> Float32Array:
            try:
                (refined,) = session.run(None, {INPUT: tiles})
            except Exception as error:  # its errors have no base of their own
                if out_of_memory(error):
                    raise MemoryError(str(error)) from error
                raise
            return refined  # type: ignore[no-any-return]

        return forward


def _picked(device: str) -> torch.device:
    import onnxruntime

    if device in ("auto", "cpu"):
        return torch.device("cpu")
    if re.fullmatch(r"cuda(:\d+)?", device) is None:
        raise UsageError(
            f"device {device!r}: ONNX Runtime runs on cpu and cuda[:i] here; say one of these, or "
            "take another backend"
        )
    if _CUDA not in onnxruntime.get_available_providers():
        raise InputError(
            f"device {device}: this ONNX Runtime was built without CUDA; install onnxruntime-gpu "
            "in its place, or say `device=cpu`"
        )
    return torch.device(device)
