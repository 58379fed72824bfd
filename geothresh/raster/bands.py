"""Bands: which to read, which value in them is nodata, and how a pixel is compared with it."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from geothresh.errors import GeothreshWarning, InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
# Writers print markers such as the lowest float32 with six digits; near them nothing else lives.
_HUGE = 1e30
_PRINTED_DIGITS = 1e-5


def choose_band(name: str, dataset: DatasetReader, bidx: int | None, *, meaning: str) -> int:
    """The band to read, counted from 1: the one asked for, or the only one beside an alpha band.

    Args:
        name: of the raster, for messages.
        dataset: the open raster.
        bidx: the band asked for.
        meaning: what the band holds, for messages: "the confidence", "the mask".

    Raises:
        UsageError: the band asked for does not exist.
        InputError: none was asked for and there are several, or none at all.
    """
    count = dataset.count
    if bidx is not None:
        if not 1 <= bidx <= count:
            raise UsageError(f"{name}: band {bidx} does not exist; choose `bidx` from 1 to {count}")
        return bidx
    if count == 1 or (count == 2 and dataset.colorinterp[1] == ColorInterp.alpha):
        return 1
    if count == 0:
        raise InputError(f"{name}: holds no band; give a GeoTIFF with one")
    raise InputError(f"{name}: holds {count} bands; say with `bidx` which one is {meaning}")


def colour_bands(name: str, dataset: DatasetReader) -> tuple[int, int, int]:
    """Red, green and blue, counted from 1.

    Those that the file says, or else the first three of three, or of four of which the last is
    alpha.

    Raises:
        InputError: it cannot be told which they are, or they are not in 8 bits.
    """
    meanings = list(dataset.colorinterp)
    if all(meanings.count(colour) == 1 for colour in _COLOURS):
        red, green, blue = (meanings.index(colour) + 1 for colour in _COLOURS)
    elif len(meanings) == 3 or (len(meanings) == 4 and meanings[3] == ColorInterp.alpha):
        red, green, blue = 1, 2, 3
    else:
        raise InputError(
            f"{name}: holds {len(meanings)} bands and does not say which are red, green and blue; "
            "pick three with gdal_translate -b 1 -b 2 -b 3"
        )
    types = {dataset.dtypes[band - 1] for band in (red, green, blue)}
    if types != {"uint8"}:
        raise InputError(
            f"{name}: is of type {', '.join(sorted(types))}; base networks read 8 bits: stretch it "
            "with gdal_translate -ot Byte -scale"
        )
    return red, green, blue


def mask_of(dataset: DatasetReader, bidx: int) -> tuple[int | None, bool]:
    """The alpha band beside a band, counted from 1, if there is one; else whether it has a mask."""
    alpha = [
        band
        for band, meaning in enumerate(dataset.colorinterp, 1)
        if meaning == ColorInterp.alpha and band != bidx
    ]
    if alpha:
        return alpha[0], False
    return None, MaskFlags.per_dataset in dataset.mask_flag_enums[bidx - 1]


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
                f"{name}: no {dtype} value is {forced:g}; choose another value for `nodata`"
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
            "use `nodata=V` if they do not",
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
