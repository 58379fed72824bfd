"""CUDA streams for inference: pinned buffers, and the network captured as CUDA graphs.

A graph launches all kernels of a pass with one call. Without it, a processor core is busy launching
the network's two hundred small kernels. With two streams on a GPU, one copies while the other
computes.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from geothresh.nn.compiling import compile_in_place, compiler_errors_reported
from geothresh.nn.network import ThreshNet
from geothresh.types import Float32Array

STREAMS_PER_DEVICE = 2
"""Streams on each GPU, each with its buffers and graphs; with two, copies and kernels overlap."""
_WARM_UPS = 2
"""Passes before a graph is captured: in these, libraries choose kernels and allocate memory."""
_capturing = threading.Lock()
"""Held while memory is measured or a graph is captured: other threads must not allocate then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """The network captured as a graph for one batch shape, and its buffers."""

    graph: torch.cuda.CUDAGraph
    host_in: torch.Tensor
    device_in: torch.Tensor
    device_out: torch.Tensor
    host_out: torch.Tensor


def recorded_size(n_tiles: int, *, most: int, compiled: bool = False) -> int:
    """Batch size of the graph that runs ``n_tiles``: 1, 2, a multiple of 4, or ``most``.

    A row of a scene is seldom a multiple of the batch size; with fewer sizes, more of a batch would
    be padding. A compiled network has one size, because each size takes half a minute to compile.
    """
    if compiled:
        return most
    return min(most, n_tiles if n_tiles <= 2 else -(-n_tiles // 4) * 4)


class GraphStream:
    """A CUDA stream that runs a network on tiles; called by one thread at a time."""

    def __init__(self, network: ThreshNet, device: torch.device) -> None:
        """Use a network that is on the device; several streams may share it."""
        self.device = device
        self.network = network
        self.compiled = False
        """Whether the first pass of each shape compiles the network, see `StreamPool.compile`."""
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[tuple[int, int, int], _Recorded] = {}

    def __call__(self, tiles: Float32Array, *, most: int) -> Float32Array:
        """Refine at most ``most`` tiles, (B, T, T).

        The batch is padded to the next of a few sizes, for each of which a graph is captured.
        """
        n_tiles = len(tiles)
        size = recorded_size(n_tiles, most=most, compiled=self.compiled)
        shape = (size, *tiles.shape[1:])
        recorded = self._recorded.get(shape)
        if recorded is None:
            with _capturing:
                try:
                    recorded = self._recorded[shape] = self._record(shape)
                except torch.OutOfMemoryError:
                    # The caller tries a smaller batch next: free the memory of the other graphs.
                    self._recorded.clear()
                    raise
        recorded.host_in.numpy()[:n_tiles] = tiles
        with (
            torch.inference_mode(),
            torch.cuda.device(self.device),
            torch.cuda.stream(self._stream),
        ):
            recorded.device_in.copy_(recorded.host_in, non_blocking=True)
            recorded.graph.replay()
            recorded.host_out.copy_(recorded.device_out, non_blocking=True)
        self._stream.synchronize()
        return recorded.host_out.numpy()[:n_tiles].copy()

    def _record(self, shape: tuple[int, int, int]) -> _Recorded:
        host_in = torch.zeros(shape, pin_memory=True)
        host_out = torch.empty(shape, pin_memory=True)
        with (
            torch.inference_mode(),
            torch.cuda.device(self.device),
            torch.cuda.stream(self._stream),
        ):
            device_in = host_in.to(self.device)
            with compiler_errors_reported("cuda") if self.compiled else nullcontext():
                for _ in range(_WARM_UPS):
                    self.network.refine(device_in[:, None])
            self._stream.synchronize()
            torch.cuda.empty_cache()  # the graph does not reuse the memory of the warm-up
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may still allocate on their own streams.
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ):
                device_out = self.network.refine(device_in[:, None])[:, 0].contiguous()
        return _Recorded(
            graph=graph,
            host_in=host_in,
            device_in=device_in,
            device_out=device_out,
            host_out=host_out,
        )


def batch_that_fits(network: ThreshNet, device: torch.device, *, most: int, tile: int) -> int:
    """Largest batch, a power of two up to ``most``, that fits in memory on all streams at once.

    The memory of one tile is measured in its second pass: in the first, libraries try kernels.
    """
    with _capturing, torch.inference_mode(), torch.cuda.device(device):
        probe = torch.rand((1, 1, tile, tile), device=device)
        network.refine(probe)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network.refine(probe)
        each = torch.cuda.max_memory_allocated() - before
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
    return fitting(each, free=free, most=most)


def fitting(each: int, *, free: int, most: int) -> int:
    """Largest power of two up to ``most`` for which the batches of all streams fit in memory.

    Args:
        each: bytes that one tile needs.
        free: bytes of free memory; a quarter is left to other processes and libraries.
        most: upper limit of the batch.
    """
    size = 1
    while 2 * size <= most and 2 * size * STREAMS_PER_DEVICE * each <= 0.75 * free:
        size *= 2
    return size


class StreamPool:
    """Pool of the streams of all devices of a refiner; a caller takes whichever is free."""

    def __init__(self, streams: Sequence[GraphStream]) -> None:
        """Make a pool of streams, given in the order of their first use."""
        self._all = tuple(streams)
        self._free: queue.SimpleQueue[GraphStream] = queue.SimpleQueue()
        for stream in streams:
            self._free.put(stream)

    @classmethod
    def on(cls, networks: Sequence[tuple[ThreshNet, torch.device]]) -> StreamPool:
        """A pool of `STREAMS_PER_DEVICE` streams on each device, which take turns."""
        return cls([GraphStream(*pair) for _ in range(STREAMS_PER_DEVICE) for pair in networks])

    def compile(self) -> None:
        """Have the networks compiled before they are captured, each for one batch size."""
        for network in {id(stream.network): stream.network for stream in self._all}.values():
            compile_in_place(network)
        for stream in self._all:
            stream.compiled = True

    def __len__(self) -> int:
        return len(self._all)

    @contextmanager
    def free(self) -> Iterator[GraphStream]:
        """Borrow a stream; waits until one is free."""
        stream = self._free.get()
        try:
            yield stream
        finally:
            self._free.put(stream)
