"""From a confidence array to a refined one, in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.api.models import Model, choose_model
from geothresh.errors import UsageError
from geothresh.mosaic import Progress, mosaic_array, where_asked
from geothresh.options import Backend, BatchSize, Blend, Precision, Tta
from geothresh.windows import RasterSize


def refine_array(
    confidence: NDArray[Any] | Sequence[Sequence[float]],
    *,
    model: Model = "roads",
    tta: Tta = "none",
    ground_sample_distance: float | None = None,
    tile_size: int = 512,
    overlap: int | None = None,
    blend: Blend = "hann",
    batch_size: BatchSize = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    backend: Backend = "torch",
    workers: int | None = 0,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Refine a confidence array in memory, by the same engine as `refine`.

    Args:
        confidence: (H, W) floats in [0, 1]; NaN, infinities and what a masked array masks are
            missing data.
        model: as for `refine`, like all other arguments.
        ground_sample_distance: metres on the ground from one pixel to the next; where the model was
            trained on others, the array is resampled as `refine` does with match_resolution. None
            takes the array as it is.

    Returns:
        (H, W) float32 in [0, 1], NaN where data is missing.

    Raises:
        UsageError: arguments contradict each other, or the model is out of the resolution's reach.
        InputError: the array is not 2-D, not floating-point, or not within [0, 1].
        ModelError: the model is missing or damaged, or does not fit.
    """
    workers = workers or 0
    if ground_sample_distance is not None and not 0 < ground_sample_distance < math.inf:
        raise UsageError(
            f"ground sample distance {ground_sample_distance:g}: give metres above 0, or None"
        )
    chosen = choose_model(
        model, device=device, precision=precision, batch_size=batch_size, workers=workers > 0,
        tta=tta, match=ground_sample_distance, backend=backend,
    )  # fmt: skip
    tiles = chosen.grid(RasterSize(height=1, width=1), tile=tile_size, overlap=overlap)
    values = np.asarray(confidence)
    if np.ma.isMaskedArray(confidence) and np.issubdtype(values.dtype, np.floating):
        # asarray shows what lies under the mask.
        values = confidence.filled(np.nan)
    refined: NDArray[np.float32] = mosaic_array(
        values,
        chosen.refiner,
        tile=tiles.tile,
        overlap=tiles.overlap,
        blend=blend,
        batch_size=chosen.batch_size,
        where=where_asked(workers),
        progress=progress,
    )
    return refined
