"""How large the chunks are in which the engine hands its result to a writer."""

from __future__ import annotations

from typing import TypedDict

from geothresh.raster.writing import RasterWriter

# Chunks are whole blocks, about so many pixels wide: memory does not grow with the scene's width.
_CHUNK_HEIGHT, _CHUNK_WIDTH = 512, 4096


class ChunkSize(TypedDict):
    """Arguments of `mosaic`."""

    chunk_height: int
    chunk_width: int


def chunk_size(writer: RasterWriter) -> ChunkSize:
    """Chunks that are whole blocks of the output."""
    return ChunkSize(
        chunk_height=_whole_blocks(_CHUNK_HEIGHT, writer.block_height),
        chunk_width=_whole_blocks(_CHUNK_WIDTH, writer.block_width),
    )


def _whole_blocks(pixels: int, block: int) -> int:
    """The multiple of `block` that is at least `pixels`."""
    return -(-pixels // block) * block
