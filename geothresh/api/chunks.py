"""How large the chunks are in which the engine hands its result to a writer."""

from __future__ import annotations

from geothresh.raster.writing import RasterWriter

# Chunks are whole blocks, about so many pixels wide: memory does not grow with the scene's width.
_CHUNK_HEIGHT, _CHUNK_WIDTH = 512, 4096


def chunk_size(writer: RasterWriter) -> dict[str, int]:
    """``chunk_height`` and ``chunk_width`` for `mosaic`: whole blocks of the output."""
    return {
        "chunk_height": _whole_blocks(_CHUNK_HEIGHT, writer.block_height),
        "chunk_width": _whole_blocks(_CHUNK_WIDTH, writer.block_width),
    }


def _whole_blocks(pixels: int, block: int) -> int:
    """The multiple of `block` that is at least `pixels`."""
    return -(-pixels // block) * block
