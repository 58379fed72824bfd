"""CUDA streams for inference: pinned buffers, and the network captured as CUDA graphs.

A graph starts all kernels of a pass with one call; otherwise a processor core is kept busy starting
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
"""Each keeps its own buffers and graphs; with two, copies and kernels overlap."""
_WARM_UPS = 2
"""Passes before a graph is recorded, in which libraries choose kernels and allocate memory."""
_capturing = threading.Lock()
"""Held while memory is taken or a graph is captured, which fails if other threads allocate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """The network captured for one shape of batch, and its buffers."""

    graph: torch.cuda.CUDAGraph
    host_in: torch.Tensor
    device_in: torch.Tensor
    device_out: torch.Tensor
    host_out: torch.Tensor


def recorded_size(n_tiles: int, *, most: int, compiled: bool = False) -> int:
    """Tiles of the graph that takes ``n_tiles``: 1, 2, a multiple of 4, or ``most``.

    Rows of a scene seldom are whole batches; with fewer sizes, more of a batch would be padding.
    A compiled network has one size, as each takes half a minute to compile.
    """
    if compiled:
        return most
    return min(most, n_tiles if n_tiles <= 2 else -(-n_tiles // 4) * 4)


class GraphStream:
    """A CUDA stream that runs a network on tiles; called by one thread at a time."""

    def __init__(self, network: ThreshNet, device: torch.device) -> None:
        """Take a network that is on the device; several streams may share it."""
        self.device = device
        self.network = network
        self.compiled = False
        """Whether its first pass with a shape compiles it for that: see `StreamPool.compile`."""
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[tuple[int, int, int], _Recorded] = {}

    def __call__(self, tiles: Float32Array, *, most: int) -> Float32Array:
        """Refine tiles (B, T, T), no more than ``most`` of them.

        A batch is filled up to the next of few sizes, for each of which a graph is recorded.
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
                    # The caller tries a smaller batch, for which this frees the other graphs'
                    # memory.
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
            torch.cuda.empty_cache()  # a graph has memory of its own, beside what the warm-up took
            graph = torch.cuda.CUDAGraph()
            # thread_local: other threads may allocate on their own streams meanwhile.
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
    """Largest batch, a power of two up to ``most``, for which all streams have memory at once.

    Measured on the second pass of one tile: in the first one, libraries try kernels.
    """
    with _capturing, torch.inference_mode(), torch.cuda.device(device):
        one = torch.rand((1, 1, tile, tile), device=device)
        network.refine(one)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network.refine(one)
        each = torch.cuda.max_memory_allocated() - before
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
    return fitting(each, free=free, most=most)


def fitting(each: int, *, free: int, most: int) -> int:
    """Largest power of two up to ``most`` for which the batches of all streams fit in memory.

    Args:
        each: bytes that one tile takes.
        free: bytes of free memory, a quarter of which is left to other processes and libraries.
        most: the largest batch that is wanted.
    """
    size = 1
    while 2 * size <= most and 2 * size * STREAMS_PER_DEVICE * each <= 0.75 * free:
        size *= 2
    return size


class StreamPool:
    """Pool of the streams of all devices of a refiner; a caller takes whichever is free."""

    def __init__(self, streams: Sequence[GraphStream]) -> None:
        """Take the streams, in the order in which they are first used."""
        self._all = tuple(streams)
        self._free: queue.SimpleQueue[GraphStream] = queue.SimpleQueue()
        for stream in streams:
            self._free.put(stream)

    @classmethod
    def on(cls, networks: Sequence[tuple[ThreshNet, torch.device]]) -> StreamPool:
        """A pool of `STREAMS_PER_DEVICE` streams on each device, which take turns."""
        return cls([GraphStream(*pair) for _ in range(STREAMS_PER_DEVICE) for pair in networks])

    def compile(self) -> None:
        """Have the networks compiled before they are recorded, each for one size of batch."""
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
