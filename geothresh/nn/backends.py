"""Inference backends other than torch: ONNX Runtime and OpenVINO.

Both run the ONNX graph of `geothresh.nn.onnx_graph`, compiled once per tile size. The torch backend
is in `geothresh.nn.refiner`. The libraries are imported when they are called. torch is never
imported: that would take longer than refining a small scene.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Protocol, get_args

import numpy as np

from geothresh.errors import InputError, UsageError
from geothresh.machine import usable_threads
from geothresh.nn.config import NetworkConfig
from geothresh.nn.device import Batches, Device, cpu_precision
from geothresh.nn.onnx_graph import INPUT, Weights, threshnet_graph
from geothresh.nn.scope import UNKNOWN, ModelScope
from geothresh.options import Backend, BatchSize, Precision
from geothresh.types import Float32Array

#: Packages that a backend needs besides torch, and the extra that installs each package.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}
_EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "openvino": "openvino"}

Forward = Callable[[Float32Array], Float32Array]
"""Refines (B, 1, H, W) float32 in [0, 1] to the same shape, for one H and W."""
# Compiled networks that are kept, one per tile size. A run has one tile size.
_KEPT = 2
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# ONNX Runtime's log level for errors only: warnings concern the graph, which users cannot change.
_ERRORS = 3


def require_backend(backend: str) -> None:
    """Check that a backend is known and its packages are installed, without importing them.

    Raises:
        UsageError: the backend is unknown, or a package is missing.
    """
    if backend not in _PACKAGES:
        known = ", ".join(get_args(Backend))
        raise UsageError(f"backend {backend!r} is unknown; say one of {known}")
    require_packages(f"backend {backend}", *_PACKAGES[backend])


def require_packages(what: str, *packages: str) -> None:
    """Raise UsageError where one of these optional packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        # The extra of the last package installs all of them.
        raise UsageError(
            f"{what}: needs a package that is not installed ({', '.join(missing)}); "
            f"run: pip install 'geothresh[{_EXTRAS[packages[-1]]}]'"
        )


@cache
def versioned(backend: Backend) -> str:
    """A backend's name and version: the last bits of its results depend on both.

    Cached, because it takes milliseconds and is called for each of many rasters.

    Raises:
        UsageError: the backend is not installed.
    """
    require_backend(backend)
    if backend == "torch":
        return f"torch {version('torch')}"
    # Taken from the module, because the distribution has several names (onnxruntime-gpu).
    return f"{backend} {importlib.import_module(backend).__version__}"


class Library(Protocol):
    """An inference library, set up for one device and precision."""

    @property
    def device(self) -> Device:
        """Where the network runs."""
        ...

    @property
    def precision(self) -> Precision:
        """fp32 or bf16: the number format inside the network."""
        ...

    def compile(self, graph: bytes) -> Forward:
        """Give a function that runs an ONNX graph: (B, 1, H, W) float32 in, the same shape out.

        One thread at a time may call the function. `geothresh.nn.device.Batches` recognises the
        errors that it raises when a batch does not fit in memory.
        """
        ...


class CompiledRefiner:
    """Refines tiles with ThreshNet: (B, T, T) float32 in [0, 1] to the same shape.

    Calls from several threads wait for one another. The library uses as many threads for a forward
    pass as torch would.
    """

    def __init__(
        self,
        weights: Weights,
        config: NetworkConfig,
        *,
        backend: Backend,
        name: str = "unnamed",
        sha256: str = "",
        scope: ModelScope = UNKNOWN,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: BatchSize = "auto",
        cores: int | None = None,
    ) -> None:
        """Load the library; the network is compiled when the first tile is refined.

        ``cores`` is the number of threads of a pass on a CPU, by default `usable_threads`.

        Raises:
            UsageError: the backend's packages are not installed, or it does not support this
                device or precision.
            InputError: the device is not there.
        """
        require_backend(backend)
        self.backend = backend
        self.name = name
        self.digest = sha256
        self.scope = scope
        self.config = config
        self.patch = config.patch
        self._library = library(backend, device, precision, threads=cores or usable_threads())
        self._batches = Batches(batch_size, self._library.device)
        self._weights = weights
        self._networks: OrderedDict[tuple[int, int], Forward] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def device(self) -> Device:
        """Where the network runs."""
        return self._library.device

    @property
    def precision(self) -> Precision:
        """fp32 or bf16: the number format inside the network."""
        return self._library.precision

    @property
    def batch_size(self) -> int:
        """Tiles in a forward pass: as requested, or fewer where these did not fit in memory."""
        return self._batches.size

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles (B, T, T) of confidences in [0, 1]; a batch that does not fit is halved.

        Raises:
            ModelError: T is not a multiple of the patch, or not even one tile fits in memory.
        """
        with self._lock:
            forward = self._compiled(*tiles.shape[-2:])
            return self._batches.run(
                lambda batch: forward(np.ascontiguousarray(batch, np.float32)[:, None])[:, 0], tiles
            )

    def _compiled(self, height: int, width: int) -> Forward:
        network = self._networks.pop((height, width), None)
        if network is None:
            graph = threshnet_graph(self._weights, self.config, height=height, width=width)
            if len(self._networks) == _KEPT:
                self._networks.popitem(last=False)
            network = self._library.compile(graph.SerializeToString())
        self._networks[height, width] = network
        return network


def library(backend: Backend, device: str, precision: Precision, *, threads: int) -> Library:
    """Load the library of a backend for a device and a precision.

    Raises:
        UsageError: the backend does not support the device or the precision.
    """
    chosen = OnnxRuntime if backend == "onnxruntime" else OpenVino
    return chosen(device, precision, threads=threads)


class OnnxRuntime:
    """ONNX Runtime for one device; see `Library`."""

    precision: Precision = "fp32"

    def __init__(self, device: str, precision: Precision, *, threads: int) -> None:
        """Set up ONNX Runtime; the device auto means cpu.

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
        """See `Library`."""
        import onnxruntime

        # Builds for Windows send telemetry by default.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = _ERRORS
        provider: str | tuple[str, dict[str, str]] = _CPU
        if self.device.type == "cuda":
            # TF32 would round the mantissas of an fp32 network to 10 bits.
            provider = (_CUDA, {"device_id": str(self.device.index or 0), "use_tf32": "0"})
        session = onnxruntime.InferenceSession(graph, options, providers=[provider])
        # ONNX Runtime silently runs everything on the CPU if the CUDA provider cannot start.
        if self.device.type == "cuda" and _CUDA not in session.get_providers():
            raise InputError(
                f"device {self.device}: ONNX Runtime cannot start CUDA; check its versions of CUDA "
                "and cuDNN, or say `device=cpu`"
            )

        def forward(tiles: Float32Array) -> Float32Array:
            (refined,) = session.run(None, {INPUT: tiles})
            return refined  # type: ignore[no-any-return] # onnxruntime has no types

        return forward


def _picked(device: str) -> Device:
    import onnxruntime

    if device in ("auto", "cpu"):
        return Device("cpu")
    asked = re.fullmatch(r"cuda(?::(\d+))?", device)
    if asked is None:
        raise UsageError(
            f"device {device!r}: ONNX Runtime runs on cpu and cuda[:i] here; say one of these, or "
            "take another backend"
        )
    if _CUDA not in onnxruntime.get_available_providers():
        raise InputError(
            f"device {device}: this ONNX Runtime was built without CUDA; install onnxruntime-gpu "
            "in its place, or say `device=cpu`"
        )
    return Device("cuda", None if asked[1] is None else int(asked[1]))


class OpenVino:
    """OpenVINO on the CPU; see `Library`."""

    def __init__(self, device: str, precision: Precision, *, threads: int) -> None:
        """Set up OpenVINO for the device auto or cpu.

        Raises:
            UsageError: another device, or a precision that this CPU lacks.
        """
        import openvino

        if device not in ("auto", "cpu"):
            raise UsageError(
                f"device {device!r}: OpenVINO runs on the cpu here; say cpu, or take another "
                "backend"
            )
        self.device = Device("cpu")
        self._core = openvino.Core()
        self.precision = cpu_precision(precision)
        bf16 = self.precision == "bf16"
        if bf16 and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            # OpenVINO would silently use fp32.
            raise UsageError(
                "precision bf16: this CPU has no instructions for it that OpenVINO knows; say auto "
                "or fp32"
            )
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
        """See `Library`."""
        network = self._core.compile_model(self._core.read_model(graph), "CPU", self._settings)
        request = network.create_infer_request()

        def forward(tiles: Float32Array) -> Float32Array:
            # Copied, because the next call writes into the same memory.
            return np.array(request.infer([tiles], share_inputs=True)[0], np.float32)

        return forward
