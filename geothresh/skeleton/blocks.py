"""The centreline network of a mask of any size: thin, trace and join, block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geothresh.skeleton.bridging import ReadConfidence
from geothresh.skeleton.network import WIDTH, Network
from geothresh.skeleton.thinning import BLOCK, HALO, ReadMask, thin_blocks
from geothresh.skeleton.tracing import MARGIN, join, trace
from geothresh.skeleton.widths import widths
from geothresh.windows import RasterSize

#: Column of a trace's samples that holds the confidence.
CONFIDENCE = WIDTH + 1


def centerline_network(
    read: ReadMask,
    size: RasterSize,
    *,
    confidence: ReadConfidence | None = None,
    side: int = BLOCK,
    halo: int = HALO,
    progress: Callable[[int, int], None] | None = None,
) -> Network:
    """Thin, trace and join; the result does not depend on the blocks.

    Memory is that of a block with its halo, and of the lines.

    Args:
        read: gives windows of the mask, True = foreground.
        size: of the mask.
        confidence: gives windows of confidences, sampled along the lines.
        side, halo: of the blocks, see `thin_blocks`.
        progress: told (blocks done, blocks in all), of thinning and then of tracing.

    Returns:
        The network as it is traced; `Network.pruned` takes off the spurs.
    """
    skeleton = thin_blocks(read, size, side=side, halo=halo, progress=progress)
    traces = []
    windows = list(skeleton.grid.windows())
    for done, core in enumerate(windows, start=1):
        outer = core.grown(MARGIN, size)
        pixels = skeleton.read(outer)
        if pixels.any():
            samples = [widths(pixels, outer, read, size)]
            if confidence is not None:
                samples.append(confidence(outer))
            stacked = np.stack(samples, axis=-1)
            traces += trace(pixels, stacked, outer=outer, core=core, width=size.width)
        if progress:
            progress(done, len(windows))
    return Network.of(join(traces), size.width)
