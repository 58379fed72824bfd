"""Region-specific thresholds: the best threshold of every patch, found from histograms.

Counting true and false positives at each of the 19 thresholds (paper, section 3.2) would read each
patch 19 times. Here pixels are counted by patch, class and bin between thresholds, and sums over
the bins above a threshold are the counts at that threshold. Histograms of larger patches are sums
of those of smaller ones, so one pass serves every patch size.

Shapes: ``H, W`` the map; ``R, C = ceil(H / P), ceil(W / P)`` its patches. Patches at the right and
lower border of a map that is no multiple of ``P`` are smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array

#: The candidate cuts 0.05, 0.10 ... 0.95 (section 3.2), in the dtype of a confidence map, so that
#: ``confidence >= THRESHOLDS[k]`` and the histogram below agree to the last bit.
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
        (R, C, 2, 20) counts; class 0 is background, class 1 foreground.
    """
    _require_alike(confidence, truth)
    return _histograms(threshold_bins(confidence), truth, patch, valid)


def _require_alike(confidence: NDArray[np.floating], truth: BoolArray) -> None:
    if confidence.shape != truth.shape or confidence.ndim != 2:
        raise ValueError(f"two maps of one shape expected, got {confidence.shape}, {truth.shape}")


def _histograms(
    bins: UInt8Array, truth: BoolArray, patch: int, valid: BoolArray | None
) -> Int64Array:
    """What `patch_histograms` gives, of the bins of its map."""
    height, width = bins.shape
    n_rows, n_cols = -(-height // patch), -(-width // patch)
    # Class and bin fit in a byte; class, bin and patch of a row mostly in two.
    kinds = bins + truth.view(np.uint8) * np.uint8(N_BINS)
    n_kinds = n_cols * 2 * N_BINS
    first = (np.arange(width) // patch * (2 * N_BINS)).astype(np.min_scalar_type(n_kinds))
    counts = np.empty((n_rows, n_kinds), np.int64)
    for row in range(n_rows):
        place = slice(row * patch, (row + 1) * patch)
        found = kinds[place] + first
        counted = found.ravel() if valid is None else found[valid[place]]
        counts[row] = np.bincount(counted, minlength=n_kinds)
    return counts.reshape(n_rows, n_cols, 2, N_BINS)


def coarsen(histograms: Int64Array, factor: int) -> Int64Array:
    """Histograms of patches ``factor`` times as wide, by summing ``factor x factor`` of them."""
    n_rows, n_cols = histograms.shape[:2]
    if n_rows % factor or n_cols % factor:
        pad = [(0, -n_rows % factor), (0, -n_cols % factor), (0, 0), (0, 0)]
        histograms = np.pad(histograms, pad)
    # Rows first, so that what is summed is contiguous.
    n_rows, n_cols = histograms.shape[:2]
    rows = histograms.reshape(n_rows // factor, factor, n_cols, 2 * N_BINS).sum(axis=1)
    coarse = rows.reshape(len(rows), n_cols // factor, factor, 2 * N_BINS).sum(axis=2)
    return np.asarray(coarse.reshape(*coarse.shape[:2], 2, N_BINS))


# Bin ``b`` reaches threshold ``k`` where ``b > k``.
_REACHES = np.tri(N_BINS, N_BINS - 1, -1)


def counts_at_thresholds(histograms: Int64Array) -> tuple[Float64Array, Float64Array, Int64Array]:
    """True positives, false positives (each ``(..., 19)``) and foreground pixels (``(...)``).

    Counts are exact below 2^53, as floats of a matrix product, which takes a third of the time of a
    cumulative sum over so few bins.
    """
    shape = histograms.shape[:-1]
    reached = histograms.reshape(-1, N_BINS).astype(np.float64) @ _REACHES
    reached = reached.reshape(*shape, N_BINS - 1)
    return reached[..., 1, :], reached[..., 0, :], histograms[..., 1, :].sum(axis=-1)


def iou_at_thresholds(histograms: Int64Array) -> Float64Array:
    """IoU of each histogram cut at each of the 19 thresholds; empty against empty is 1."""
    return _iou(*counts_at_thresholds(histograms))


def _iou(hits: Float64Array, false_alarms: Float64Array, foreground: Int64Array) -> Float64Array:
    union = foreground[..., None] + false_alarms
    return np.where(union > 0, hits / np.maximum(union, 1), 1.0)


def best_thresholds(histograms: Int64Array) -> Float32Array:
    """The threshold that maximises IoU for each histogram, shape ``histograms.shape[:-2]``.

    It is the first of equal maxima. Without foreground in the truth, IoU is 0 or 1, and the lowest
    threshold with the fewest false positives is taken.
    """
    return np.asarray(THRESHOLDS[_best(histograms)])


def _best(histograms: Int64Array) -> Int64Array:
    """Indices in `THRESHOLDS` of `best_thresholds`."""
    hits, false_alarms, foreground = counts_at_thresholds(histograms)
    worth = hits / (np.maximum(foreground, 1)[..., None] + false_alarms)
    empty = foreground == 0
    worth[empty] = -false_alarms[empty]
    return np.asarray(np.argmax(worth, axis=-1))


def apply_thresholds(
    confidence: NDArray[np.floating], thresholds: Float32Array, *, patch: int
) -> BoolArray:
    """Cut a map (H, W) patch by patch with ``thresholds`` (R, C); True = foreground."""
    return _cut_by_patch(np.greater_equal, confidence, thresholds, patch)


def _cut_by_patch(
    cut: np.ufunc, values: NDArray[Any], limits: NDArray[Any], patch: int
) -> BoolArray:
    """Compare a map (H, W) patch by patch with limits (R, C)."""
    height, width = values.shape
    found = np.empty(values.shape, np.bool_)
    spread = limits.repeat(patch, axis=1)[:, :width]
    # All rows of whole patches at once, then the last, smaller ones.
    whole = height // patch
    place = slice(0, whole * patch)
    shape = (whole, patch, width)
    cut(values[place].reshape(shape), spread[:whole, None], out=found[place].reshape(shape))
    if whole < len(spread):
        cut(values[whole * patch :], spread[whole], out=found[whole * patch :])
    return found


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

    Pixels are counted once, in patches of the smallest size; larger ones are sums of these.

    Args:
        confidence: (H, W) in [0, 1].
        truth: (H, W), True = foreground.
        patches: sides of the patches in pixels, each a multiple of the one before.
        valid: (H, W), True = counted; all pixels if left out.

    Returns:
        For each size the map (H, W), cut at the best threshold of each patch.

    Raises:
        ValueError: the maps differ in shape, or a size is no multiple of the one before.

    Example:
        >>> confidence = np.array([[0.2, 0.4], [0.6, 0.6]], np.float32)
        >>> truth = np.array([[False, True], [True, False]])
        >>> [target.tolist() for target in region_targets(confidence, truth, patches=[1, 2])]
        [[[False, True], [True, False]], [[False, True], [True, True]]]
    """
    _require_alike(confidence, truth)
    bins = threshold_bins(confidence)
    histograms: list[Int64Array] = []
    for k, patch in enumerate(patches):
        if k == 0:
            histograms.append(_histograms(bins, truth, patch, valid))
            continue
        if patch % patches[k - 1]:
            raise ValueError(f"patches of {patch} are no multiple of those of {patches[k - 1]}")
        histograms.append(coarsen(histograms[-1], patch // patches[k - 1]))
    # One call for all sizes, because most of its time is overhead.
    best = _best(np.concatenate([h.reshape(-1, 2, N_BINS) for h in histograms]))
    targets, start = [], 0
    for patch, of_size in zip(patches, histograms, strict=True):
        shape = of_size.shape[:2]
        stop = start + shape[0] * shape[1]
        # A bin above a threshold's index reaches that threshold; bins take fewer bytes.
        limits = best[start:stop].reshape(shape).astype(np.uint8)
        targets.append(_cut_by_patch(np.greater, bins, limits, patch))
        start = stop
    return targets


def cut_mask(
    refined: NDArray[np.floating], before: BoolArray, *, threshold: float, keep: float | None = None
) -> BoolArray:
    """Cut refined confidences, with hysteresis towards the input.

    Pixels that are foreground in the input stay foreground down to a lower threshold: refinement is
    wrong more often where it removes foreground than where it adds some.

    Args:
        refined: confidences in [0, 1], any shape.
        before: the same shape, True = foreground in the input.
        threshold: refined confidence from which on any pixel is foreground.
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
    """Confidences whose cut at any threshold is the mask that `cut_mask` makes at that threshold.

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

    It is four times the mean distance of foreground pixels to the background. For a long band that
    is its width, as the distance grows evenly from 0 to half the width.

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

    # Distances are to the centre of the nearest background pixel, half a pixel beyond the edge.
    distance = ndimage.distance_transform_edt(foreground)[foreground] - 0.5
    return float(4 * distance.mean())


def median_width(foregrounds: Iterable[BoolArray]) -> float | None:
    """Median of the `foreground_width` of those masks that have one; None where none has."""
    # Imported here, because it brings exact fractions and decimals, and is rarely needed.
    from statistics import median

    widths = [width for one in foregrounds if (width := foreground_width(one)) is not None]
    return median(widths) if widths else None
