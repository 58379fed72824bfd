"""Statistics of a band, gathered while it is written, in the form in which GDAL keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from geothresh.raster.creation import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geothresh.types import Float32Array, LayerArray

# Confidences are summed as whole numbers of this part, so that no order of sums changes anything.
_PARTS = 2**16
# Of so many, squares and all, float64 holds the exact sum.
_AT_ONCE = 2**20
_LEVELS = np.arange(256)


class BandStatistics:
    """Least, greatest, mean and standard deviation of the values that are written.

    They do not depend on how the raster is cut into windows, nor on their order.

    Example:
        >>> seen = BandStatistics()
        >>> seen.add(np.array([[0, 1], [1, 255]], np.uint8))
        >>> seen.tags()["STATISTICS_MEAN"]
        '0.6666666666666666'
    """

    def __init__(self) -> None:
        self._all = self._valid = 0
        self._sum = self._squares = 0
        self._parts = 1
        self._least, self._greatest = math.inf, -math.inf

    def add(self, values: LayerArray) -> None:
        """Take in a window: uint8 of which 255 is no data, or float32 in [0, 1] or NaN."""
        self._all += values.size
        if values.dtype == np.uint8:
            self._add_levels(np.array(Image.fromarray(values).histogram()))
            return
        self._parts = _PARTS
        flat = values.astype(np.float32, copy=False).reshape(-1)
        for start in range(0, flat.size, _AT_ONCE):
            self._add_floats(flat[start : start + _AT_ONCE])

    def _add_levels(self, counts: NDArray[np.int64]) -> None:
        counts[NODATA] = 0
        found = np.flatnonzero(counts)
        if found.size:
            self._valid += int(counts.sum())
            self._sum += int(counts @ _LEVELS)
            self._squares += int(counts @ _LEVELS**2)
            self._least = min(self._least, float(found[0]))
            self._greatest = max(self._greatest, float(found[-1]))

    def _add_floats(self, values: Float32Array) -> None:
        missing = np.isnan(values)
        valid = values.size - int(np.count_nonzero(missing))
        if valid:
            parts = np.where(missing, 0, np.rint(values * np.float32(_PARTS))).astype(np.float64)
            self._valid += valid
            self._sum += int(parts.sum())
            self._squares += int(parts @ parts)
            self._least = min(self._least, float(np.fmin.reduce(values)))
            self._greatest = max(self._greatest, float(np.fmax.reduce(values)))

    def tags(self) -> Mapping[str, str]:
        """The metadata items of the band; none where nothing is valid."""
        if not self._valid:
            return {}
        variance = self._squares * self._valid - self._sum**2
        found = {
            "MINIMUM": self._least,
            "MAXIMUM": self._greatest,
            "MEAN": self._sum / self._valid / self._parts,
            "STDDEV": math.sqrt(variance) / self._valid / self._parts,
            "VALID_PERCENT": 100 * self._valid / self._all,
        }
        return {f"STATISTICS_{name}": f"{value!r}" for name, value in found.items()}
