"""Refine a confidence map by DenseCRF, a fully connected CRF over positions and colours.

Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials",
NeurIPS 2011: mean-field inference with a Gaussian kernel of positions and a bilateral kernel of
positions and colours, here on a permutohedral lattice. It is written here because no package of
DenseCRF has wheels for the versions of Python that geothresh supports.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit

from geothresh.errors import UsageError
from geothresh.metrics import Counts
from geothresh.rivals.lattice import PermutohedralLattice
from geothresh.rivals.protocol import require_image
from geothresh.types import BoolArray, Float32Array, Float64Array, UInt8Array

#: Filters values (H, W) by a kernel with symmetric normalisation.
Kernel = Callable[[Float64Array], Float64Array]

_LEAST = 1e-4  # confidences are clipped to this distance from 0 and 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CRFSettings:
    """Widths and weights of the two kernels; the defaults are those of the method's authors."""

    place: float = 3.0
    """Standard deviation of the Gaussian kernel, in pixels."""
    place_weight: float = 3.0
    both_place: float = 80.0
    """Standard deviation of the bilateral kernel in position, in pixels."""
    both_colour: float = 13.0
    """Standard deviation of the bilateral kernel in each of red, green and blue, 0 to 255."""
    both_weight: float = 10.0
    steps: int = 5
    """Number of mean-field iterations."""

    def __post_init__(self) -> None:
        if min(self.place, self.both_place, self.both_colour) <= 0:
            raise UsageError("the widths of the kernels are above 0; change the settings")
        if min(self.place_weight, self.both_weight) < 0 or self.steps < 0:
            raise UsageError("weights and steps are not below 0; change the settings")


#: The settings that `search` tries.
GRID = tuple(
    CRFSettings(both_place=place, both_colour=colour, both_weight=weight)
    for place, colour, weight in itertools.product((20.0, 80.0), (5.0, 13.0), (1.0, 4.0, 10.0))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseCRF:
    """DenseCRF as a `Rival`.

    Example:
        >>> DenseCRF()(np.full((8, 8), 0.6, np.float32), np.zeros((8, 8, 3), np.uint8)).shape
        (8, 8)
    """

    settings: CRFSettings = field(default_factory=CRFSettings)
    name: str = "DenseCRF"

    def __call__(self, confidence: Float32Array, image: UInt8Array | None = None) -> Float32Array:
        """See `Rival`."""
        seen = require_image(self.name, confidence, image)
        return _refined(confidence, bilateral_kernel(seen, self.settings), self.settings)


def _refined(confidence: Float32Array, bilateral: Kernel, settings: CRFSettings) -> Float32Array:
    """Refine a map, given the bilateral kernel of its image."""
    place = place_kernel(confidence.shape, settings.place)
    kernels = [(settings.place_weight, place), (settings.both_weight, bilateral)]
    return mean_field(confidence, kernels, settings.steps)


def mean_field(
    confidence: Float32Array, kernels: Sequence[tuple[float, Kernel]], steps: int
) -> Float32Array:
    """Confidences (H, W) after a number of mean-field iterations.

    With two labels and the Potts model, one logit a pixel is enough: the map's own, plus for each
    kernel its weight times the filtered difference of the labels' probabilities.
    """
    unary = logit(np.clip(confidence.astype(np.float64), _LEAST, 1 - _LEAST))
    found = unary
    for _ in range(steps):
        lead = np.tanh(found / 2)  # probability of foreground less that of background
        found = unary + sum(weight * kernel(lead) for weight, kernel in kernels)
    return np.asarray(expit(found), np.float32)


def place_kernel(shape: tuple[int, ...], sigma: float) -> Kernel:
    """The Gaussian kernel of positions."""

    def blurred(values: Float64Array) -> Float64Array:
        return np.asarray(gaussian_filter(values, sigma, mode="constant", truncate=5))

    return _normalised(blurred, shape)


def bilateral_kernel(image: UInt8Array, settings: CRFSettings) -> Kernel:
    """The bilateral kernel of positions and colours."""
    lattice = PermutohedralLattice(bilateral_points(image, settings))
    shape = image.shape[:2]

    def blurred(values: Float64Array) -> Float64Array:
        return lattice.filtered(values.ravel()).reshape(shape)

    return _normalised(blurred, shape)


def bilateral_points(image: UInt8Array, settings: CRFSettings) -> Float64Array:
    """Row, column, red, green and blue of each pixel, in standard deviations: (H W, 5)."""
    rows, columns = np.indices(image.shape[:2])
    places = np.stack([rows, columns], -1) / settings.both_place
    points = np.concatenate([places, image / settings.both_colour], -1)
    return np.asarray(points.reshape(-1, 5), np.float64)


def _normalised(blurred: Kernel, shape: tuple[int, ...]) -> Kernel:
    root = 1 / np.sqrt(blurred(np.ones(shape)) + 1e-20)

    def kernel(values: Float64Array) -> Float64Array:
        return np.asarray(root * blurred(root * values))

    return kernel


def search(
    samples: Sequence[tuple[Float32Array, UInt8Array, BoolArray]],
    grid: Sequence[CRFSettings] = GRID,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> CRFSettings:
    """Search a grid for the settings with the highest mean IoU; the first of equal ones is taken.

    Args:
        samples: maps (H, W), images (H, W, 3) and truths (H, W), not those that are scored later.
        grid: settings to try.
        progress: called with (bilateral kernels done, kernels in all), over all maps.

    Raises:
        UsageError: there is no map, or nothing to try.
    """
    if not samples or not grid:
        raise UsageError("a grid search needs a map and settings; give one at least")
    scores = np.zeros(len(grid))
    widths = list(dict.fromkeys((s.both_place, s.both_colour) for s in grid))
    for number, (confidence, image, truth) in enumerate(samples):
        for turn, (place, colour) in enumerate(widths):
            # The lattice takes most of the time, and does not depend on the weights.
            bilateral = bilateral_kernel(
                image, replace(grid[0], both_place=place, both_colour=colour)
            )
            for k, settings in enumerate(grid):
                if (settings.both_place, settings.both_colour) != (place, colour):
                    continue
                found = _refined(confidence, bilateral, settings) >= 0.5
                scores[k] += Counts.of(prediction=found, target=truth).iou()
            if progress is not None:
                progress(number * len(widths) + turn + 1, len(samples) * len(widths))
    return grid[int(np.argmax(scores))]
