"""Refiner that compiles the network with another library than torch, once per tile size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from geothresh.nn.backends import require_backend
from geothresh.nn.backends.graph import require_multiple, threshnet_graph
from geothresh.nn.backends.protocol import Forward, Library
from geothresh.nn.batching import Batches
from geothresh.nn.config import NetworkConfig
from geothresh.nn.cpu import compute_threads
from geothresh.nn.scope import UNKNOWN, ModelScope
from geothresh.options import Backend, BatchSize, Precision
from geothresh.types import Float32Array

if TYPE_CHECKING:
    import torch

# A run has one size of tile; a process that serves several sizes keeps as many networks.
_KEPT = 2


class CompiledRefiner:
    """Refines tiles with ThreshNet: (B, T, T) float32 in [0, 1] to the same.

    Calls from several threads wait for one another. The library takes as many threads for one
    forward pass as torch would.
    """

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
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
        """Take a network, of which nothing is compiled before the first tile.

        ``cores`` are the threads of a pass on a CPU, by default as many as torch would take.

        Raises:
            UsageError: the backend's packages are not installed, or it lacks this device or
                precision.
            InputError: the device is not there.
        """
        require_backend(backend)
        self.backend = backend
        self.name = name
        self.digest = sha256
        self.scope = scope
        self.config = config
        self.patch = config.patch
        threads = cores or compute_threads().run(_torch_threads)
        self._library = library(backend, device, precision, threads=threads)
        self._batches = Batches(batch_size, self._library.device)
        self._weights = {key: tensor.numpy() for key, tensor in weights.items()}
        self._networks: OrderedDict[tuple[int, int], Forward] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._library.device

    @property
    def precision(self) -> Precision:
        """fp32 or bf16: the number format inside the network."""
        return self._library.precision

    @property
    def batch_size(self) -> int:
        """Tiles in a forward pass: as asked for, less where that did not fit into memory."""
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
            require_multiple(self.config, height, width)
            graph = threshnet_graph(self._weights, self.config, height=height, width=width)
            if len(self._networks) == _KEPT:
                self._networks.popitem(last=False)
            network = self._library.compile(graph.SerializeToString())
        self._networks[height, width] = network
        return network


def library(backend: Backend, device: str, precision: Precision, *, threads: int) -> Library:
    """Load the library of a backend for a device and a precision.

    Raises:
        UsageError: it lacks them.
    """
    if backend == "onnxruntime":
        from geothresh.nn.backends.onnx_runtime import OnnxRuntime

        return OnnxRuntime(device, precision, threads=threads)
    from geothresh.nn.backends.open_vino import OpenVino

    return OpenVino(device, precision, threads=threads)


def _torch_threads() -> int:
    """As many as torch takes: the cores, or what OMP_NUM_THREADS leaves to each of the workers."""
    import torch

    return torch.get_num_threads()
