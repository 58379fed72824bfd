"""OpenVINO, on CPUs, in fp32 or bf16.

Models reach it by `read_model`: `openvino.convert_model`, which takes torch's, reports each call to
its makers.
"""

from __future__ import annotations

import numpy as np
import torch

from geothresh.errors import UsageError
from geothresh.nn.backends.protocol import Forward, out_of_memory
from geothresh.nn.device import pick_dtype
from geothresh.options import Precision
from geothresh.types import Float32Array


class OpenVino:
    """OpenVINO on the CPU; see `geothresh.nn.backends.protocol.Library`."""

    def __init__(self, device: str, precision: Precision, *, threads: int) -> None:
        """Take a device (auto or cpu), a precision and the threads of a forward pass.

        Raises:
            UsageError: another device, or a precision that this CPU lacks.
        """
        import openvino

        if device not in ("auto", "cpu"):
            raise UsageError(
                f"device {device!r}: OpenVINO runs on the cpu here; say cpu, or take another "
                "backend"
            )
        self.device = torch.device("cpu")
        self._core = openvino.Core()
        # auto is bf16 where the CPU has instructions for it, as with torch.
        bf16 = pick_dtype(precision, self.device) is torch.bfloat16
        if bf16 and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            # OpenVINO would take fp32, and say nothing.
            raise UsageError(
                "precision bf16: this CPU has no instructions for it that OpenVINO knows; say auto "
                "or fp32"
            )
        self.precision: Precision = "bf16" if bf16 else "fp32"
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            # One tile at a time, on all threads.
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            # The threads that read and write need the cores too.
            "ENABLE_CPU_PINNING": False,
        }

    def compile(self, graph: bytes) -> Forward:
        """A function that runs an ONNX graph; it may be called by one thread at a time."""
        network = self._core.compile_model(self._core.read_model(graph), "CPU", self._settings)
        request = network.create_infer_request()

        def forward(tiles: Float32Array) -> Float32Array:
            try:
                # A copy: the next call writes into the same memory.
                return np.array(request.infer([tiles], share_inputs=True)[0], np.float32)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise MemoryError(str(error)) from error
                raise

        return forward
