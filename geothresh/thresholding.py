"""Region-specific thresholds: the best threshold of every patch, found from histograms.

The naive way counts true and false positives 19 times for each patch (paper, section 3.2). Here
every pixel falls into one of 20 bins, a bincount per patch and class tallies them, and sums over
the bins that reach a threshold are the counts at all 19 thresholds at once. Patches of 32, 64 ...
pixels are sums of 16-pixel ones, so one histogram serves every patch size.

Shapes: ``H, W`` the map; ``R, C = ceil(H / P), ceil(W / P)`` its patches. Patches at the right and
lower border of a map that is no multiple of ``P`` are smaller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geothresh.types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array

#: The candidate cuts 0.05, 0.10 ... 0.95 (section 3.2), in the dtype of a confidence map, so that
#: ``confidence >= THRESHOLDS[k]`` and the histogram below agree to the last bit.
THRESHOLDS: Float32Array = (np.arange(1, 20) / 20).astype(np.float32)
N_BINS = len(THRESHOLDS) + 1


# Confidence times 20 rounds to the right side of each whole number but for some of the values just
# below a threshold, which it takes for the threshold itself.
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
    if confidence.shape != truth.shape or confidence.ndim != 2:
        raise ValueError(f"two maps of one shape expected, got {confidence.shape}, {truth.shape}")
    height, width = confidence.shape
    n_rows, n_cols = -(-height // patch), -(-width // patch)
    # Class and bin of a pixel fit into a byte; the patch is added where they are counted.
    kinds = threshold_bins(confidence)
    kinds += truth.view(np.uint8) * np.uint8(N_BINS)
    first = np.arange(width) // patch * (2 * N_BINS)
    counts = np.empty((n_rows, n_cols, 2, N_BINS), np.int64)
    for row in range(n_rows):
        place = slice(row * patch, (row + 1) * patch)
        found = kinds[place].astype(np.intp)
        found += first
        counted = found.ravel() if valid is None else found[valid[place]]
        counts[row].flat = np.bincount(counted, minlength=n_cols * 2 * N_BINS)
    return counts


def coarsen(histograms: Int64Array, factor: int) -> Int64Array:
    """Histograms of patches ``factor`` times as wide, by summing ``factor x factor`` of them."""
    n_rows, n_cols = histograms.shape[:2]
    pad = [(0, -n_rows % factor), (0, -n_cols % factor), (0, 0), (0, 0)]
    padded = np.pad(histograms, pad)
    shape = (padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, 2, N_BINS)
    return np.asarray(padded.reshape(shape).sum(axis=(1, 3)))


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

    The first of equal maxima wins. Without foreground in the truth no IoU but 0 or 1 exists: the
    lowest threshold that leaves the fewest false positives is taken.
    """
    hits, false_alarms, foreground = counts_at_thresholds(histograms)
    by_iou = np.argmax(_iou(hits, false_alarms, foreground), axis=-1)
    by_false_alarms = np.argmin(false_alarms, axis=-1)
    return np.asarray(THRESHOLDS[np.where(foreground > 0, by_iou, by_false_alarms)])


def apply_thresholds(
    confidence: NDArray[np.floating], thresholds: Float32Array, *, patch: int
) -> BoolArray:
    """Cut a map (H, W) patch by patch with ``thresholds`` (R, C); True = foreground."""
    cut = np.empty(confidence.shape, np.bool_)
    spread = thresholds.repeat(patch, axis=1)[:, : confidence.shape[1]]
    for row, line in enumerate(spread):
        place = slice(row * patch, (row + 1) * patch)
        np.greater_equal(confidence[place], line, out=cut[place])
    return cut


def region_target(
    confidence: NDArray[np.floating],
    truth: BoolArray,
    *,
    patch: int,
    valid: BoolArray | None = None,
) -> BoolArray:
    """The region-thresholded target Y_th of section 3.2: the map cut at its best thresholds."""
    histograms = patch_histograms(confidence, truth, patch=patch, valid=valid)
    return apply_thresholds(confidence, best_thresholds(histograms), patch=patch)


def cut_mask(
    refined: NDArray[np.floating], before: BoolArray, *, threshold: float, keep: float | None = None
) -> BoolArray:
    """Cut refined confidences, with hysteresis towards the input.

    Foreground is what reaches the threshold, and what the input has as foreground and refinement
    does not clearly contradict: refinement that removes is wrong more often than one that adds.

    Args:
        refined: confidences in [0, 1], any shape.
        before: the same shape, True = foreground in the input.
        threshold: refined confidence from which on any pixel is foreground.
        keep: the same for pixels that are foreground in the input; the threshold where that is
            lower, or if left out.

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
    """What to cut at any threshold for the mask that `cut_mask` makes at that threshold.

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
    """How wide the foreground of a mask is, in pixels; None where there is none.

    Four times the mean distance of its pixels to the background, which of a long band is its width:
    the distance grows from 0 to half the width, evenly.

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
    # It takes a tenth of a second to import, and few have a width to measure.
    from scipy import ndimage

    # To the middle of the nearest background pixel: half a pixel beyond the edge.
    distance = ndimage.distance_transform_edt(foreground)[foreground] - 0.5
    return float(4 * distance.mean())
