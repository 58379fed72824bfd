"""What the results of the engine's tasks weigh, for Dask, which would move them too freely else."""

from __future__ import annotations

from dask.sizeof import sizeof

from geothresh.mosaic.blending import Blended, Finished, Part


def tell_dask() -> None:
    """Tell Dask the bytes of parts and chunks; it looks into no dataclass by itself."""
    sizeof.register(Part, _of_part)
    sizeof.register(Finished, _of_layers)
    sizeof.register(Blended, _of_chunk)


def _of_part(part: Part) -> int:
    return sum(array.nbytes for array in (part.total, part.valid) if array is not None)


def _of_layers(chunk: Finished) -> int:
    return sum(len(layer.data) for layer in chunk.packed)


def _of_chunk(chunk: Blended) -> int:
    return chunk.confidence.nbytes + chunk.valid.nbytes
