"""The value that marks missing data: where it comes from, and how a pixel is compared with it."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from geothresh.errors import GeothreshWarning, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# Writers print markers such as the lowest float32 with six digits; near them nothing else lives.
_HUGE = 1e30
_PRINTED_DIGITS = 1e-5


def nodata_of_band(
    name: str, dataset: DatasetReader, bidx: int, forced: float | None
) -> float | None:
    """The stored value that marks missing data in band `bidx`, None if there is none.

    Args:
        forced: the user's value, which takes the place of the file's.

    Raises:
        UsageError: `forced` cannot occur in a band of this type.
    """
    dtype = np.dtype(dataset.dtypes[bidx - 1])
    if forced is not None:
        if not can_hold(dtype, forced):
            raise UsageError(
                f"{name}: no {dtype} value is {forced:g}; choose another value for --nodata"
            )
        return forced
    tagged = dataset.nodatavals[bidx - 1]
    if tagged is None:
        return None
    if not can_hold(dtype, tagged):
        warnings.warn(
            f"{name}: the nodata value {tagged:g} cannot occur in a {dtype} band and is ignored",
            GeothreshWarning,
            stacklevel=3,
        )
        return None
    if tagged == 0:
        warnings.warn(
            f"{name}: nodata is 0, so that pixels of confidence 0 count as missing; "
            "use --nodata V if they do not",
            GeothreshWarning,
            stacklevel=3,
        )
    return float(tagged)


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a pixel of this type can equal `value`."""
    if np.issubdtype(dtype, np.floating):
        return True
    if not math.isfinite(value) or value != math.floor(value):
        return False
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def stands_for_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """True where a pixel equals `nodata` in the pixel's own type; NaN is not found here."""
    if not np.issubdtype(values.dtype, np.floating):
        return np.asarray(values == values.dtype.type(int(nodata)))
    if abs(nodata) >= _HUGE and math.isfinite(nodata):
        with np.errstate(over="ignore", invalid="ignore"):
            ratio = values.astype(np.float64) / nodata
        return np.asarray(np.abs(ratio - 1.0) < _PRINTED_DIGITS)
    with np.errstate(over="ignore"):
        return np.asarray(values == values.dtype.type(nodata))
