"""Make synthetic defects of confidence maps: degrade real maps, or make maps from a mask.

All functions work on logits, (H, W) float32, and take the positions of roads from the truth. The
defects are those of base networks: displaced, too wide or too narrow outlines, blur, gaps along
roads, false roads, driveways, roofs, speckle in some quarters, and a bias and a temperature that
vary over the map. They are drawn anew for each chip, from the chip's generator only.

Smooth random fields and soft spots are products of thin matrices. That takes a tenth of the time of
interpolating a field or of drawing spots one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit, logit

from geothresh.types import BoolArray, Float32Array, Float64Array

#: Logits are clipped to this magnitude, which is about the greatest logit of an 8-bit map.
_MOST = 6.0


def degrade(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Degrade a map by about half of all kinds of defects, each at a random strength.

    Args:
        logits: (H, W) logits of the map.
        truth: (H, W), True = foreground.
        rng: random generator of the chip.

    Returns:
        Logits (H, W), a new array.
    """
    kinds = (_with_gaps, _with_false, _displaced, _swollen, _with_speckle, _blurred, _uneven)
    for kind, chosen in zip(kinds, rng.random(len(kinds)) < 0.5, strict=True):
        if chosen:
            logits = kind(logits, truth, rng)
    return _bounded(logits)


def synthesise(truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Make a map as a base network might predict it, from the mask alone.

    Args:
        truth: (H, W), True = foreground.
        rng: random generator of the chip.

    Returns:
        Logits (H, W).
    """
    shape = truth.shape
    # Misses: some networks find nearly all streets, others miss whole ones.
    seen = truth * expit(
        rng.uniform(-0.5, 4.0)
        + rng.uniform(0.5, 2.5) * _field(shape, rng, pixels=rng.uniform(25, 100))
        + rng.uniform(0.0, 1.5) * _field(shape, rng, pixels=rng.uniform(5, 20))
    )
    false = expit(2.5 * _field(shape, rng) - rng.uniform(0.0, 3.5))
    seen = np.maximum(seen, _false_roads(truth, rng) * false)
    if rng.random() < 0.6:
        seen = np.maximum(seen, _clutter(truth, rng) * expit(2 * _field(shape, rng)))
    # Outlines are displaced unevenly.
    seen = _warped(seen, rng, most=rng.uniform(0.5, 3.5))
    seen = ndimage.gaussian_filter(seen, np.exp(rng.uniform(0.0, np.log(4.0))), truncate=2.5)
    grain = _field(shape, rng, pixels=rng.uniform(3, 10)) * expit(2 * _field(shape, rng))
    seen += rng.uniform(0.03, 0.22) * grain
    # Level of the blurred mask that becomes a confidence of 0.5: low levels give wide roads.
    half = rng.uniform(0.25, 0.55) + 0.08 * _field(shape, rng)
    logits = (seen - half) * np.float32(np.exp(rng.uniform(np.log(6.0), np.log(16.0))))
    for kind in (_with_speckle, _uneven):
        if rng.random() < 0.5:
            logits = kind(logits, truth, rng)
    return _bounded(logits)


def _displaced(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    return _warped(logits, rng, most=rng.uniform(1.0, 3.0))


def _swollen(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Move outlines outwards in some regions, and inwards in others."""
    side = int(rng.choice([3, 5]))
    wide = ndimage.maximum_filter(logits, side)
    narrow = ndimage.minimum_filter(logits, side)
    share = expit(3 * (_field(logits.shape, rng) + rng.normal()))
    return np.asarray(narrow + share * (wide - narrow), np.float32)


def _with_gaps(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Interrupt roads, as by trees, shadows and bridges."""
    n = int(rng.integers(1, 9))
    rows, cols = _road_pixels(truth, rng, n)
    depth = rng.uniform(2.0, 9.0, len(rows))
    holes = _spots(logits.shape, rows, cols, rng.uniform(3, 14, len(rows)), depth)
    return np.asarray(logits - holes, np.float32)


def _with_false(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Add driveways and roofs as false roads, with varying confidence."""
    certain = rng.uniform(-2.0, 2.0) + _field(logits.shape, rng, pixels=rng.uniform(10, 40))
    evidence = _warped(_clutter(truth, rng), rng, most=2.0)
    false = evidence * (certain + np.float32(_MOST)) - np.float32(_MOST)
    return np.asarray(np.maximum(logits, false), np.float32)


def _clutter(truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Draw soft spots (0 to 1) of driveways, which start at roads, and of roofs near roads."""
    shape = truth.shape
    n = int(rng.integers(2, 14))
    rows, cols = _road_pixels(truth, rng, n)
    angle = rng.uniform(0, 2 * np.pi, len(rows))
    along = np.linspace(0, 1, 12) * rng.uniform(8, 40, len(rows))[:, None]
    spurs = _spots(
        shape,
        (rows[:, None] + np.sin(angle)[:, None] * along).ravel(),
        (cols[:, None] + np.cos(angle)[:, None] * along).ravel(),
        np.repeat(rng.uniform(1.0, 2.5, len(rows)), 12),
        np.repeat(rng.uniform(0.2, 0.8, len(rows)), 12),
    )
    away = rng.uniform(8, 30, len(rows))
    roofs = _spots(
        shape,
        rows + np.cos(angle) * away,
        cols - np.sin(angle) * away,
        rng.uniform(3, 8, len(rows)),
        rng.uniform(0, 1, len(rows)),
    )
    return np.asarray(np.minimum(spurs + roofs, 1), np.float32)


def _with_speckle(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Add small false spots all over some quarters, as in built-up areas."""
    grain = _field(logits.shape, rng, pixels=rng.uniform(3, 9)) - np.float32(rng.uniform(0.5, 1.6))
    quarter = expit(4 * (_field(logits.shape, rng, pixels=rng.uniform(30, 90)) - 0.3))
    spots = np.maximum(grain, 0) * quarter * np.float32(rng.uniform(2, 8))
    return np.asarray(logits + spots, np.float32)


def _blurred(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Blur the confidences (not the logits), as networks with a coarse last layer do."""
    soft = ndimage.gaussian_filter(expit(logits), rng.uniform(0.7, 3.0), truncate=2.5)
    return np.asarray(logit(np.clip(soft, 1e-3, 1 - 1e-3)), np.float32)


def _uneven(logits: Float32Array, truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Add noise, and a bias and temperature that vary over the map."""
    shape = logits.shape
    bias = _field(shape, rng, pixels=rng.uniform(30, 120)) * np.float32(rng.uniform(0, 2))
    bias += _field(shape, rng, pixels=rng.uniform(2.5, 12)) * np.float32(rng.uniform(0, 0.7))
    temperature = np.exp(0.3 * _field(shape, rng, pixels=rng.uniform(40, 120)))
    # The bias is weakest where background is certain: real maps have no haze on open land.
    bias *= 0.2 + 0.8 * expit(logits + 2)
    return np.asarray(logits * temperature + bias, np.float32)


def _false_roads(truth: BoolArray, rng: np.random.Generator) -> Float32Array:
    """Draw false roads: the mask turned and shifted, or contour lines of a smooth field."""
    if rng.random() < 0.5 and truth.shape[0] == truth.shape[1]:
        turned = truth.T[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        return np.asarray(np.roll(turned, rng.integers(truth.shape[0], size=2), (0, 1)), np.float32)
    height = _field(truth.shape, rng, pixels=rng.uniform(25, 60))
    # A side of a single pixel has no gradient.
    slopes = (
        np.gradient(height, axis=axis) if side > 1 else np.zeros_like(height)
        for axis, side in enumerate(height.shape)
    )
    slope = np.hypot(*slopes) + np.float32(1e-3)
    return np.asarray(np.abs(height) < slope * rng.uniform(1, 5), np.float32)


def _road_pixels(
    truth: BoolArray, rng: np.random.Generator, n: int
) -> tuple[Float64Array, Float64Array]:
    """Draw rows and columns of n random foreground pixels; empty if there is no foreground."""
    pixels = np.flatnonzero(truth)
    if not len(pixels):
        return np.empty(0), np.empty(0)
    rows, cols = np.divmod(rng.choice(pixels, n), truth.shape[1])
    return rows.astype(np.float64), cols.astype(np.float64)


def _field(
    shape: tuple[int, ...], rng: np.random.Generator, *, pixels: float | None = None
) -> Float32Array:
    """Draw smooth Gaussian noise of mean 0 and variance 1; `pixels` is its correlation length."""
    if pixels is None:
        pixels = rng.uniform(15, 100)
    across = [_bumps(side, np.arange(-pixels, side + pixels, pixels), pixels) for side in shape]
    # Each pixel is a weighted sum of a few independent numbers; dividing makes its variance 1.
    across = [a / np.sqrt((a * a).sum(1, keepdims=True)) for a in across]
    numbers = rng.standard_normal((across[0].shape[1], across[1].shape[1]), np.float32)
    return np.asarray(across[0] @ numbers @ across[1].T, np.float32)


def _bumps(side: int, centres: Float64Array, width: Float64Array | float) -> Float32Array:
    """(side, n): a Gaussian bell over the pixels for each centre."""
    distance = (np.arange(side)[:, None] - centres) / width
    return np.asarray(np.exp(-(distance.astype(np.float32) ** 2) / 2), np.float32)


def _spots(
    shape: tuple[int, ...],
    rows: Float64Array,
    cols: Float64Array,
    widths: Float64Array,
    heights: Float64Array,
) -> Float32Array:
    """Sum of Gaussian spots."""
    down, across = (_bumps(side, at, widths) for side, at in zip(shape, (rows, cols), strict=True))
    return np.asarray((down * heights.astype(np.float32)) @ across.T, np.float32)


def _warped(values: Float32Array, rng: np.random.Generator, *, most: float) -> Float32Array:
    """Warp a map smoothly by up to about `most` pixels, interpolated bilinearly."""
    height, width = values.shape
    pixels = np.exp(rng.uniform(np.log(6), np.log(60)))
    row, col = (
        np.clip(
            index + _field(values.shape, rng, pixels=pixels) * np.float32(most / 2),
            0,
            # The limit is just before the last pixel, because the next pixel is read as well.
            max(side - np.float32(1.001), np.float32(0)),
        )
        for side, index in (
            (height, np.arange(height, dtype=np.float32)[:, None]),
            (width, np.arange(width, dtype=np.float32)),
        )
    )
    above, left = row.astype(np.intp), col.astype(np.intp)
    down, right = row - above.astype(np.float32), col - left.astype(np.float32)
    corner = above * width + left
    flat = np.ascontiguousarray(values, np.float32).ravel()

    def between(first: NDArray[np.intp]) -> Float32Array:
        # Indices are clipped: beside a side of a single pixel, the next pixel may not exist.
        start = flat.take(first, mode="clip")
        return np.asarray(start + (flat.take(first + 1, mode="clip") - start) * right, np.float32)

    top = between(corner)
    return np.asarray(top + (between(corner + width) - top) * down, np.float32)


def _bounded(logits: Float32Array) -> Float32Array:
    return np.asarray(np.clip(logits, -_MOST, _MOST), np.float32)
