"""Refine a confidence array in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.errors import InputError
from geothresh.fields import Number, checked, require, require_only
from geothresh.mosaic import ArrayReader, mosaic_array, where_asked
from geothresh.nn.packaged import DEFAULT_MODEL
from geothresh.options import IN_THIS_PROCESS, Compute, Progress, Refining, Tiling
from geothresh.run.calibrated import apply_calibration
from geothresh.run.models import Model
from geothresh.thresholding import foreground_width
from geothresh.windows import RasterSize

# Half of the side, in pixels, of the square in which the width of the foreground is measured.
_SIDE = 1024


@checked()
def refine_array(
    confidence: NDArray[Any] | Sequence[Sequence[float]],
    *,
    model: Model = DEFAULT_MODEL,
    refining: Refining = Refining(),
    ground_sample_distance: float | None = None,
    tiling: Tiling = Tiling(),
    compute: Compute = Compute(),
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Refine a confidence array in memory, by the same engine as `refine`.

    Args:
        confidence: (H, W) floats in [0, 1]; NaN, infinities and masked values are missing data.
        model, tiling, compute, progress: as for `refine`.
        refining: test-time augmentation and resolution, or a calibration; thresholds do not apply,
            as the result is not cut.
        ground_sample_distance: pixel size on the ground in metres; if the model was trained with
            another, the array is resampled as by `refine`. None = unknown: the width of the
            foreground at 0.5 decides.

    Returns:
        (H, W) float32 in [0, 1], NaN where data is missing.

    Raises:
        UsageError: arguments contradict each other, or the model is out of the resolution's reach.
        InputError: the array is not 2-D, not floating-point, or not within [0, 1].
        ModelError: the model is missing or damaged, or does not fit.

    Example:
        >>> confidence = np.random.default_rng(0).random((512, 512), np.float32)
        >>> refine_array(confidence).shape
        (512, 512)
    """
    require_only(
        refining, "tta", "resolution", "calibration", why="is for masks; an array is not cut"
    )
    require_only(
        compute, *IN_THIS_PROCESS, "workers", why="is for rasters, which other machines can read"
    )
    if ground_sample_distance is not None:
        require("ground_sample_distance", ground_sample_distance, Number(least=0, above=True))
    try:
        values = np.asarray(confidence)
    except ValueError as error:
        raise InputError(f"no confidence array ({error}); give rows of equal length") from error
    if np.ma.isMaskedArray(confidence) and np.issubdtype(values.dtype, np.floating):
        # np.asarray returns the values under the mask.
        values = confidence.filled(np.nan)
    ArrayReader(values)  # made for its errors, before the width is measured
    chosen = apply_calibration(model, refining).choose(
        compute, metres=ground_sample_distance, width=partial(_width, values)
    )
    tiles = chosen.grid(RasterSize(height=1, width=1), tiling)
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


def _width(values: NDArray[Any]) -> float | None:
    """The width of the foreground in pixels, measured in the middle of a large array."""
    middle = tuple(slice(max(0, n // 2 - _SIDE), n // 2 + _SIDE) for n in values.shape)
    part = values[middle]
    return foreground_width((part >= 0.5) & np.isfinite(part))
