"""Round attributes to meaningful decimals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHARES = 3
_DEGREES = 2
# Decimals of metres and square metres, unless pixels are so small that more are meaningful.
_LEAST = 2
# Smaller than the pixels of any raster on the ground, in metres; at a pole they have no width.
_SMALLEST = 1e-6


def rounded(attributes: Mapping[str, NDArray[Any]], *, pixel: float) -> dict[str, NDArray[Any]]:
    """Attributes by their names, rounded: metres to two decimals, shares to three.

    Args:
        attributes: numbers of each feature; whole ones and truth values stay.
        pixel: side of a pixel, in the unit of length. Below a tenth of that unit, lengths and areas
            have more decimals.

    Example:
        >>> rounded({"length_m": np.array([12.3456])}, pixel=1.0)["length_m"].tolist()
        [12.35]
    """
    smaller = math.ceil(-math.log10(max(pixel, _SMALLEST)))
    lengths, areas = max(_LEAST, smaller + 1), max(_LEAST, 2 * smaller)
    return {
        name: np.round(values.astype(np.float64), _decimals(name, lengths, areas))
        if np.issubdtype(values.dtype, np.floating)
        else values
        for name, values in attributes.items()
    }


def _decimals(name: str, lengths: int, areas: int) -> int:
    if name.startswith("confidence_") or name == "compactness":
        return _SHARES
    if name.endswith("_deg"):
        return _DEGREES
    return areas if name.startswith("area_") else lengths
