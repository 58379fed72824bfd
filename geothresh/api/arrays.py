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
from geothresh.options import Compute, Refining, Tiling, require_only
from geothresh.windows import RasterSize

_COMPUTE = ("batch_size", "device", "precision", "backend", "workers")


def refine_array(
    confidence: NDArray[Any] | Sequence[Sequence[float]],
    *,
    model: Model = "roads",
    refining: Refining = Refining(),
    ground_sample_distance: float | None = None,
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Refine a confidence array in memory, by the same engine as `refine`.

    Args:
        confidence: (H, W) floats in [0, 1]; NaN, infinities and what a masked array masks are
            missing data.
        model, tiling, compute, progress: as for `refine`.
        refining: test-time augmentation.
        ground_sample_distance: metres on the ground from one pixel to the next; where the model was
            trained on others, the array is resampled as `refine` does with `match_resolution`.
            None takes the array as it is.

    Returns:
        (H, W) float32 in [0, 1], NaN where data is missing.

    Raises:
        UsageError: arguments contradict each other, or the model is out of the resolution's reach.
        InputError: the array is not 2-D, not floating-point, or not within [0, 1].
        ModelError: the model is missing or damaged, or does not fit.
    """
    require_only(refining, "tta", why="is for rasters; an array has a `ground_sample_distance`")
    require_only(compute, *_COMPUTE, why="is for rasters, which other machines can read")
    if ground_sample_distance is not None and not 0 < ground_sample_distance < math.inf:
        raise UsageError(
            f"`ground_sample_distance` {ground_sample_distance:g}: give metres above 0, or None"
        )
    chosen = choose_model(model, compute, tta=refining.tta, match=ground_sample_distance)
    tiles = chosen.grid(RasterSize(height=1, width=1), tiling)
    values = np.asarray(confidence)
    if np.ma.isMaskedArray(confidence) and np.issubdtype(values.dtype, np.floating):
        # asarray shows what lies under the mask.
        values = confidence.filled(np.nan)
    refined: NDArray[np.float32] = mosaic_array(
        values,
        chosen.refiner,
        tile=tiles.tile,
        overlap=tiles.overlap,
        blend=tiling.blend,
        batch_size=chosen.batch_size,
        where=where_asked(compute.workers),
        progress=progress,
    )
    return refined
