"""Load model files, and refine numpy tiles with them.

Only `TorchRefiner` imports torch, when it is created; other backends do not need it. A
`ModelSource` is sent to worker processes as a path and a digest. Each process loads the model once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geothresh.machine import keep_freed_memory
from geothresh.nn.backends import require_backend
from geothresh.nn.compiling import compile_in_place, compiler_errors_reported, require_compiler
from geothresh.nn.config import NetworkConfig
from geothresh.nn.device import (
    GPU_BATCH,
    Batches,
    compute_threads,
    devices_of,
    full_memory_reported,
    lost_device_reported,
    passes_at_once,
    pick_device,
    pick_dtype,
    precision_name,
    require_whole_patches,
)
from geothresh.nn.modelfile import (
    digest,
    load_arrays,
    load_weights,
    naming,
    read_card,
    require_digest,
)
from geothresh.nn.packaged import DEFAULT_MODEL, find_model
from geothresh.nn.scope import UNKNOWN, ModelScope
from geothresh.options import Backend, BatchSize, Precision
from geothresh.types import Float32Array

if TYPE_CHECKING:
    import torch

    from geothresh.nn.backends import CompiledRefiner
    from geothresh.nn.cuda import StreamPool
    from geothresh.nn.network import ThreshNet

_USUAL_TILE = 512
"""Tile side with which the memory of a GPU is measured: the default of `refine`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Description from which any process can load a model: picklable, a few hundred bytes."""

    path: str
    """Absolute path of the model file."""
    sha256: str
    """Digest of the file, which is checked when the model is loaded."""
    patch: int
    """Side P of the model's patch, in pixels."""
    scope: ModelScope = UNKNOWN
    """What the model was trained for."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:i or mps."""
    precision: Precision = "auto"
    batch_size: BatchSize = "auto"
    """Tiles per forward pass; auto: 1 on a CPU, on a GPU 16 or as many as fit."""
    all_gpus: bool = True
    """Whether ``cuda`` and ``auto`` use all visible GPUs; worker processes use only the first."""
    backend: Backend = "torch"
    """The library that runs the network."""
    compiled: bool = False
    """Whether torch compiles the network for its batch shape."""

    @classmethod
    def find(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: BatchSize = "auto",
        all_gpus: bool = True,
        backend: Backend = "torch",
    ) -> ModelSource:
        """Find a model and read its card, without torch.

        Raises:
            ModelError: the file is missing or not a geothresh model.
            UsageError: the backend is not installed.
        """
        require_backend(backend)
        path = find_model(model).absolute()
        card = read_card(path)
        with naming(path):
            scope = ModelScope.of_card(card.training)
        return cls(
            path=str(path),
            sha256=digest(path),
            patch=card.config.patch,
            scope=scope,
            device=device,
            precision=precision,
            batch_size=batch_size,
            all_gpus=all_gpus,
            backend=backend,
        )

    @property
    def name(self) -> str:
        """The file name without its extension; for packaged models, their name."""
        return Path(self.path).stem

    def load(self, *, cores: int | None = None) -> TorchRefiner | CompiledRefiner:
        """Load the model onto its device.

        Args:
            cores: processor cores that it may use; by default all that its library uses.

        Raises:
            ModelError: the file has changed since `find`, or is damaged.
            InputError: the device does not exist.
            UsageError: the backend is not installed, or does not support the device or the
                precision; or torch finds no compiler.
        """
        require_digest(self.path, self.sha256)
        config = read_card(self.path).config
        make: partial[TorchRefiner] | partial[CompiledRefiner]
        if self.backend == "torch":
            make = partial(TorchRefiner, load_weights(self.path, config), all_gpus=self.all_gpus)
        else:
            from geothresh.nn.backends import CompiledRefiner

            make = partial(CompiledRefiner, load_arrays(self.path, config), backend=self.backend)
        refiner = make(
            config,
            name=self.name,
            sha256=self.sha256,
            scope=self.scope,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            cores=cores,
        )
        if self.compiled and isinstance(refiner, TorchRefiner):
            refiner.compile()
        return refiner


class TorchRefiner:
    """Refines tiles with ThreshNet: (B, T, T) float32 in [0, 1] to the same shape.

    The network is in evaluation mode and runs without gradients, so its statistics never change.
    Any number of threads may call it; `parallel_calls` calls run at once, and others wait.

    ``cuda`` without a number, and ``auto``, use all visible GPUs unless ``all_gpus`` is False. On a
    CPU the passes share ``cores``, by default all that torch uses.
    """

    backend: Backend = "torch"
    takes_views = True

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        config: NetworkConfig,
        *,
        name: str = "unnamed",
        sha256: str = "",
        scope: ModelScope = UNKNOWN,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: BatchSize = "auto",
        all_gpus: bool = True,
        cores: int | None = None,
    ) -> None:
        self.name = name
        self.digest = sha256
        self.scope = scope
        self.config = config
        self.patch = config.patch
        self.device = pick_device(device)
        self.dtype = pick_dtype(precision, self.device)
        self.compiled = False
        """Whether torch compiles the network: see `compile`."""
        self._batches = Batches(batch_size, self.device)
        on_cpu = self.device.type == "cpu"
        self._threads = compute_threads(passes_at_once(config, cores) if on_cpu else 1, cores)
        self._streams: StreamPool | None = None
        # On a GPU one pass measures how many tiles fit.
        with full_memory_reported(self.device, "the network"):
            self.network = self._threads.run(self._network, weights, self.device)
            if self.device.type == "cuda":
                gpus = devices_of(self.device)
                self._streams = self._stream_pool(
                    weights, gpus if all_gpus else gpus[:1], batch_size
                )
        self._first_passes: set[tuple[int, ...]] = set()
        self._compiling = threading.Lock()

    def _network(self, weights: dict[str, torch.Tensor], device: torch.device) -> ThreshNet:
        import torch

        from geothresh.nn.network import ThreshNet, fold_norms, lower_precision, memory_layout

        with torch.device("meta"):
            network = ThreshNet(self.config)
        network.load_state_dict(weights, assign=True)
        network.eval().requires_grad_(False)
        fold_norms(network)
        lower_precision(network, self.dtype)
        # torch's stubs do not allow memory_format together with a device.
        return network.to(device, memory_format=memory_layout(self.config))  # type: ignore[call-overload,no-any-return]

    def _stream_pool(
        self, weights: dict[str, torch.Tensor], gpus: list[torch.device], batch_size: BatchSize
    ) -> StreamPool:
        from geothresh.nn.cuda import StreamPool, batch_that_fits

        keep_freed_memory()
        first, *others = gpus
        networks = [(self.network, first)]
        networks += [(self._network(weights, device), device) for device in others]
        if batch_size == "auto":
            self._batches.size = min(
                batch_that_fits(network, device, most=GPU_BATCH, tile=_USUAL_TILE)
                for network, device in networks
            )
        return StreamPool.on(networks)

    def compile(self) -> None:
        """Have torch compile the network in the first call.

        It is compiled once, for batches of ``batch_size`` tiles of the first call's tile size.
        Smaller batches are padded with empty tiles.

        Raises:
            UsageError: torch cannot compile here.
        """
        require_compiler(self.device.type)
        self.compiled = True
        if self._streams is None:
            compile_in_place(self.network)
        else:
            self._streams.compile()

    @property
    def precision(self) -> Precision:
        """fp32, bf16 or fp16: the number format inside the network."""
        return precision_name(self.dtype)

    @property
    def parallel_calls(self) -> int:
        """Number of threads whose calls run at the same time."""
        return self._threads.passes if self._streams is None else len(self._streams)

    @property
    def batch_size(self) -> int:
        """Tiles in a forward pass: as requested, or fewer where these did not fit in memory."""
        return self._batches.size

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles (B, T, T) of confidences in [0, 1]; a batch that does not fit is halved.

        Raises:
            ModelError: T is not a multiple of the patch, or not even one tile fits in memory.
            DeviceLostError: the GPU has failed.
        """
        require_whole_patches(tiles.shape, self.patch)
        with lost_device_reported(self.device):
            if self._streams is None:
                return self._threads.run(self._batches.run, self._forward, tiles)
            with self._streams.free() as stream:
                # `most` is asked for anew in each batch, since a compiled network pads to it.
                return self._batches.run(
                    lambda batch: stream(batch, most=self._batches.size), tiles
                )

    def _forward(self, tiles: Float32Array) -> Float32Array:
        import torch

        from geothresh.nn.network import memory_layout

        n_tiles = len(tiles)
        if self.compiled:
            tiles = _padded(tiles, self.batch_size)
        # Moved to the device before the layout is set: a single channel has no layout that could be
        # changed here. Views of the raster are read-only, about which torch would warn.
        writable = np.require(tiles, np.float32, ["C", "W"])
        batch = torch.from_numpy(writable)[:, None].to(self.device)
        batch = batch.contiguous(memory_format=memory_layout(self.config))
        with torch.inference_mode():
            if self.compiled and tiles.shape not in self._first_passes:
                # Without the lock, several threads would compile at once.
                with self._compiling, compiler_errors_reported(self.device.type):
                    refined = self.network.refine(batch)
                    self._first_passes.add(tiles.shape)
            else:
                refined = self.network.refine(batch)
            return np.asarray(refined[:n_tiles, 0].cpu().numpy())


def _padded(tiles: Float32Array, size: int) -> Float32Array:
    """Pad tiles (B, T, T) with tiles of zeros to ``size`` tiles."""
    missing = size - len(tiles)
    if missing <= 0:
        return tiles
    return np.concatenate([tiles, np.zeros((missing, *tiles.shape[1:]), np.float32)])


def resolved(
    device: str, precision: Precision, backend: Backend = "torch"
) -> tuple[str, Precision]:
    """Resolve ``auto``: the device type and the number format that a network would get.

    The last bits of its output depend on both.

    Raises:
        InputError: the device does not exist.
        UsageError: the backend is not installed, or does not support the device or the precision.
    """
    if backend != "torch":
        from geothresh.nn.backends import library

        loaded = library(backend, device, precision, threads=1)
        return loaded.device.type, loaded.precision
    picked = pick_device(device)
    return picked.type, precision_name(pick_dtype(precision, picked))
