"""Sizes in bytes of the results of the engine's tasks, by which Dask decides where tasks run."""

from __future__ import annotations

from dask.sizeof import sizeof

from geothresh.mosaic.blending import Blended, FinishedChunk, Part


def tell_dask() -> None:
    """Tell Dask the bytes of parts and chunks: it does not look inside dataclasses."""
    sizeof.register(Part, _of_part)
    sizeof.register(FinishedChunk, _of_layers)
    sizeof.register(Blended, _of_chunk)


def _of_part(part: Part) -> int:
    return sum(array.nbytes for array in (part.total, part.valid) if array is not None)


def _of_layers(chunk: FinishedChunk) -> int:
    return sum(len(layer.data) for layer in chunk.packed)


def _of_chunk(chunk: Blended) -> int:
    return chunk.confidence.nbytes + chunk.valid.nbytes
