"""Find region-specific thresholds, the best threshold of each patch, from histograms.

Counting true and false positives at each of the 19 thresholds (paper, section 3.2) would read each
patch 19 times. Instead, pixels are counted by patch, class and bin between thresholds. Sums over
the bins above a threshold are the counts at that threshold. Histograms of larger patches are sums
of those of smaller ones, so one pass is enough for all patch sizes.

Shapes: ``H, W`` of the map; ``R, C = ceil(H / P), ceil(W / P)`` of its patches. Patches at the
right and lower border are smaller if the map is not a multiple of ``P``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array

#: The candidate thresholds 0.05, 0.10 ... 0.95 (section 3.2), in the dtype of a confidence map, so
#: that ``confidence >= THRESHOLDS[k]`` and the histogram below agree to the last bit.
THRESHOLDS: Float32Array = (np.arange(1, 20) / 20).astype(np.float32)
N_BINS = len(THRESHOLDS) + 1


# Confidence times 20, rounded down, is the bin, except for some values just below a threshold,
# whose product rounds up to it.
_BELOW = np.nextafter(THRESHOLDS, np.float32(0))
_ROUNDED_UP = _BELOW[_BELOW * np.float32(N_BINS) >= np.arange(1, N_BINS)]


def threshold_bins(confidence: NDArray[np.floating]) -> UInt8Array:
    """Number of thresholds (0 to 19) that each confidence in [0, 1] reaches, same shape.

    Bin ``b`` holds ``THRESHOLDS[b - 1] <= confidence < THRESHOLDS[b]``.
    """
    confidence = np.asarray(confidence, dtype=np.float32)
    bins = (confidence * np.float32(N_BINS)).astype(np.uint8)
    for value in _ROUNDED_UP:
        bins -= (confidence == value).view(np.uint8)
    bins -= (confidence >= 1).view(np.uint8)
    return bins


def patch_histograms(
    confidence: NDArray[np.floating],
    truth: BoolArray,
    *,
    patch: int,
    valid: BoolArray | None = None,
) -> Int64Array:
    """Tally the pixels of each patch by class and by threshold bin.

    Args:
        confidence: (H, W) in [0, 1].
        truth: (H, W), True = foreground.
        patch: side of a patch in pixels.
        valid: (H, W), True = counted; all pixels if left out.

    Returns:
        (2, 20, R, C) counts; class 0 is background, class 1 foreground.
    """
    _require_alike(confidence, truth)
    return _histograms(threshold_bins(confidence), truth, patch, valid)


def _require_alike(confidence: NDArray[np.floating], truth: BoolArray) -> None:
    if confidence.shape != truth.shape or confidence.ndim != 2:
        raise ValueError(f"two maps of one shape expected, got {confidence.shape}, {truth.shape}")


# Pixels that are processed at a time, so that their arrays stay in the cache.
_AT_ONCE = 2**18


def _histograms(
    bins: UInt8Array, truth: BoolArray, patch: int, valid: BoolArray | None
) -> Int64Array:
    """See `patch_histograms`; takes the threshold bins of the map."""
    height, width = bins.shape
    n_rows, n_cols = -(-height // patch), -(-width // patch)
    n_kinds = 2 * N_BINS * n_cols
    # Numbers of (class, bin, patch of a row) mostly fit in two bytes.
    kind = np.min_scalar_type(n_kinds)
    column = (np.arange(width) // patch).astype(kind)
    counts = np.empty((2 * N_BINS, n_rows, n_cols), np.int64)
    several = max(1, _AT_ONCE // (patch * width)) * patch
    for top in range(0, height, several):
        rows = slice(top, top + several)
        kinds = (bins[rows] + truth[rows].view(np.uint8) * np.uint8(N_BINS)) * kind.type(n_cols)
        kinds += column
        for start in range(0, len(kinds), patch):
            row = slice(start, start + patch)
            counted = kinds[row].ravel() if valid is None else kinds[row][valid[rows][row]]
            tally = np.bincount(counted, minlength=n_kinds)
            counts[:, (top + start) // patch] = tally.reshape(2 * N_BINS, n_cols)
    return counts.reshape(2, N_BINS, n_rows, n_cols)


def coarsen(counts: Int64Array, factor: int) -> Int64Array:
    """Counts (..., R, C) of patches ``factor`` times as wide: sums of ``factor x factor``."""
    n_rows, n_cols = counts.shape[-2:]
    if n_rows % factor or n_cols % factor:
        pad = [(0, 0)] * (counts.ndim - 2) + [(0, -n_rows % factor), (0, -n_cols % factor)]
        counts = np.pad(counts, pad)
    # Whole arrays are added, because numpy's sum over an axis this short takes many times as long.
    rows = reduce(np.add, [counts[..., k::factor, :] for k in range(factor)])
    return np.asarray(reduce(np.add, [rows[..., k::factor] for k in range(factor)]))


def _reaching(histograms: Int64Array) -> Int64Array:
    """(2, 20, ...) number of pixels of each class in each bin or a higher one.

    The first number counts all pixels, the others those that reach each of the 19 thresholds.
    """
    reaching = np.empty_like(histograms)
    reaching[:, -1] = histograms[:, -1]
    # numpy's own cumulative sum over an axis that is not the last takes ten times as long.
    for k in range(N_BINS - 2, -1, -1):
        np.add(histograms[:, k], reaching[:, k + 1], out=reaching[:, k])
    return reaching


def best_thresholds(histograms: Int64Array) -> Float32Array:
    """The threshold that maximises IoU for each histogram, shape ``histograms.shape[2:]``.

    Of equal maxima, it is the lowest. Without foreground in the truth, IoU is 0 or 1; then it is
    the lowest threshold with the fewest false positives.
    """
    return np.asarray(THRESHOLDS[_best(_reaching(histograms).astype(np.float64))])


def _best(reaching: Float64Array) -> Int64Array:
    """Indices in `THRESHOLDS` of `best_thresholds`; counts are exact below 2^53."""
    background, foreground = reaching
    score = foreground[1:] / (np.maximum(foreground[0], 1) + background[1:])
    np.copyto(score, -background[1:], where=foreground[0] == 0)
    return np.asarray(np.argmax(score, axis=0))


def _above_limits(bins: UInt8Array, limits: UInt8Array, patch: int) -> BoolArray:
    """True where the bins (H, W) are above the limit (R, C) of their patch."""
    height, width = bins.shape
    above = np.empty(bins.shape, np.bool_)
    spread = limits.repeat(patch, axis=1)[:, :width]
    # All rows of whole patches at once, then the rows of smaller ones.
    whole = height // patch
    rows = slice(0, whole * patch)
    shape = (whole, patch, width)
    np.greater(bins[rows].reshape(shape), spread[:whole, None], out=above[rows].reshape(shape))
    if whole < len(spread):
        np.greater(bins[whole * patch :], spread[whole], out=above[whole * patch :])
    return above


def region_target(
    confidence: NDArray[np.floating],
    truth: BoolArray,
    *,
    patch: int,
    valid: BoolArray | None = None,
) -> BoolArray:
    """The region-thresholded target Y_th of section 3.2: the map cut at its best thresholds."""
    (target,) = region_targets(confidence, truth, patches=[patch], valid=valid)
    return target


def region_targets(
    confidence: NDArray[np.floating],
    truth: BoolArray,
    *,
    patches: Sequence[int],
    valid: BoolArray | None = None,
) -> list[BoolArray]:
    """Region-thresholded targets for several patch sizes, in little more time than for one.

    Pixels are counted once, in patches of the smallest size, whose sums are the larger patches.

    Args:
        confidence: (H, W) in [0, 1].
        truth: (H, W), True = foreground.
        patches: sides of the patches in pixels, each a multiple of the one before.
        valid: (H, W), True = counted; all pixels if left out.

    Returns:
        For each size the map (H, W), cut at the best threshold of each patch.

    Raises:
        ValueError: the maps differ in shape, or a size is not a multiple of the one before.

    Example:
        >>> confidence = np.array([[0.2, 0.4], [0.6, 0.6]], np.float32)
        >>> truth = np.array([[False, True], [True, False]])
        >>> [target.tolist() for target in region_targets(confidence, truth, patches=[1, 2])]
        [[[False, True], [True, False]], [[False, True], [True, True]]]
    """
    _require_alike(confidence, truth)
    for finer, patch in pairwise(patches):
        if patch % finer:
            raise ValueError(f"patches of {patch} are no multiple of those of {finer}")
    bins = threshold_bins(confidence)
    reaching = [_reaching(_histograms(bins, truth, patches[0], valid))]
    for finer, patch in pairwise(patches):
        reaching.append(coarsen(reaching[-1], patch // finer))
    # One call for all sizes, because most of its time is overhead.
    best = _best(
        np.concatenate([r.reshape(2, N_BINS, -1) for r in reaching], axis=2, dtype=np.float64)
    )
    # Bins take fewer bytes than confidences. A bin above a threshold's index reaches the threshold.
    limits = best.astype(np.uint8)
    targets, start = [], 0
    for patch, counts in zip(patches, reaching, strict=True):
        n_rows, n_cols = counts.shape[2:]
        stop = start + n_rows * n_cols
        of_size = limits[start:stop].reshape(n_rows, n_cols)
        targets.append(_above_limits(bins, of_size, patch))
        start = stop
    return targets


def cut_mask(
    refined: NDArray[np.floating], before: BoolArray, *, threshold: float, keep: float | None = None
) -> BoolArray:
    """Threshold refined confidences, with hysteresis towards the input.

    Pixels that are foreground in the input have a lower threshold, because refinement is wrong more
    often where it removes foreground than where it adds some.

    Args:
        refined: confidences in [0, 1], any shape.
        before: the same shape, True = foreground in the input.
        threshold: pixels of at least this refined confidence are foreground.
        keep: lower threshold for pixels that are foreground in the input; None = `threshold`.

    Example:
        >>> refined = np.array([0.6, 0.3, 0.3, 0.1], np.float32)
        >>> cut_mask(refined, np.array([False, False, True, True]), threshold=0.5, keep=0.2)
        array([ True, False,  True, False])
    """
    mask: BoolArray = refined >= np.float32(threshold)
    if keep is not None and keep < threshold:
        mask |= before & (refined >= np.float32(keep))
    return mask


def kept_confidence(
    refined: Float32Array, confidence: Float32Array, keep: float | None
) -> Float32Array:
    """Confidences that give, at any threshold, the mask of `cut_mask` at that threshold.

    Args:
        refined: confidences in [0, 1], any shape.
        confidence: the same shape, the input; it is cut at the same threshold.
        keep: see `cut_mask`.

    Example:
        >>> refined = np.array([0.6, 0.3, 0.3, 0.1], np.float32)
        >>> kept_confidence(refined, np.array([0.2, 0.4, 0.9, 0.9], np.float32), 0.2).tolist()
        [0.6000000238418579, 0.4000000059604645, 0.8999999761581421, 0.10000000149011612]
    """
    if keep is None:
        return refined
    return np.where(refined >= np.float32(keep), np.maximum(refined, confidence), refined)


def foreground_width(foreground: BoolArray) -> float | None:
    """Mean width of the foreground of a mask in pixels; None for an empty or full mask.

    It is four times the mean distance of foreground pixels to the background. For a long band this
    is its width, because the distance grows evenly from 0 to half the width.

    Args:
        foreground: (H, W), True = foreground.

    Example:
        >>> stripe = np.zeros((99, 99), bool)
        >>> stripe[40:52] = True
        >>> round(foreground_width(stripe))
        12
    """
    if not foreground.any() or foreground.all():
        return None
    # Imported here, because it takes a tenth of a second and is rarely needed.
    from scipy import ndimage

    # Distances are to the centre of the nearest background pixel, which is half a pixel beyond the
    # edge.
    distance = ndimage.distance_transform_edt(foreground)[foreground] - 0.5
    return float(4 * distance.mean())


def median_width(foregrounds: Iterable[BoolArray]) -> float | None:
    """Median `foreground_width` of masks, without empty and full ones; None if none is left."""
    # Imported here, because it loads the modules of fractions and decimals, and is rarely needed.
    from statistics import median

    widths = [w for mask in foregrounds if (w := foreground_width(mask)) is not None]
    return median(widths) if widths else None
