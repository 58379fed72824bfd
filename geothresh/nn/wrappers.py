"""Wrappers of refiners: augmentation, resampling, smoothing, calibration.

The engine works in the raster's pixels. `ResampledRefiner` resamples each tile to the network's
pixels, refines it, and resamples only the change of the logits back. The change is added to the
raster's own logits, so these stay sharp wherever the network changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from geothresh.errors import ModelError
from geothresh.mosaic import Refiner, RefinerSource, parallel_calls
from geothresh.nn.device import require_whole_patches
from geothresh.nn.transformation import Transformation, clipped_logit
from geothresh.options import Tta
from geothresh.types import Float32Array

SATURATED = np.float32(1e-6)
"""Outputs of a network are clipped this far from 0 and 1 before their logits are averaged."""
# Logits are rounded to multiples of 2**-24, finer than the float32 confidences they come from.
_PARTS = 2.0**24
_SMOOTHING = (0.25, 0.5, 0.25)


class Wrapper:
    """A refiner that wraps another one, and has its name, digest, patch and parallel calls."""

    def __init__(self, refiner: Refiner) -> None:
        self.refiner = refiner
        self.name = refiner.name
        self.digest = refiner.digest
        self.parallel_calls = parallel_calls(refiner)
        self.patch = refiner.patch


def _require_square(tiles: Float32Array) -> None:
    if tiles.ndim != 3 or tiles.shape[1] != tiles.shape[2]:
        raise ModelError(f"tiles of shape {tiles.shape} are not square; give (B, T, T)")


class ResampledRefiner(Wrapper):
    """Refines tiles of t x t pixels with a network that reads them at (t P / p) x (t P / p).

    P is the network's patch in its own pixels; p, ``patch``, is the same patch in pixels of the
    raster, any whole number. Tiles are enlarged bilinearly or reduced by area means, and the change
    is resampled back in the same way.
    """

    def __init__(self, refiner: Refiner, *, patch: int) -> None:
        super().__init__(refiner)
        self.patch = patch

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, (B, t, t) float32 in [0, 1], t a multiple of `patch`.

        Raises:
            ModelError: t is not a multiple of `patch`, or the refiner refuses the tiles.
        """
        _require_square(tiles)
        require_whole_patches(tiles.shape, self.patch)
        side = tiles.shape[-1]
        network_side = side // self.patch * self.refiner.patch
        seen = resize(tiles, network_side)
        refined = resize(clipped_logit(self.refiner(seen)) - clipped_logit(seen), side)
        refined += clipped_logit(tiles)
        return np.asarray(expit(refined, out=refined))


def resize(tiles: Float32Array, side: int) -> Float32Array:
    """Resize tiles (B, t, t) to (B, side, side): bilinear when enlarged, area means when reduced.

    Each new pixel is a weighted mean of the tile's pixels, with weights that add up to 1.
    """
    resized = np.empty((len(tiles), side, side), np.float32)
    for tile, out in zip(tiles, resized, strict=True):
        out[...] = resize_map(tile, side, side)
    return resized


def resize_map(values: Float32Array, height: int, width: int) -> Float32Array:
    """Resize one array (h, w) to (height, width), by the rules of `resize`."""
    rows, cols = _weights(values.shape[0], height), _weights(values.shape[1], width)
    return np.asarray((cols @ (rows @ values).T).T, np.float32)


@lru_cache(maxsize=64)
def _weights(n_in: int, n_out: int) -> Any:
    """Sparse matrix (n_out, n_in), float32, that resizes along one axis.

    Sparse products sum in a fixed order, whatever the machine and the number of threads.
    """
    out = np.arange(n_out)
    if n_out >= n_in:
        centre = np.clip((out + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        first = np.minimum(centre.astype(np.intp), max(n_in - 2, 0))
        share = centre - first
        rows, cols = np.concatenate([out, out]), np.concatenate([first, first + (n_in > 1)])
        values = np.concatenate([1 - share, share])
    else:
        # Pixel o of the result covers [o n_in, (o + 1) n_in), in units of 1 / n_out input pixels.
        taps = n_in // n_out + 2
        cols = (out * n_in // n_out)[:, None] + np.arange(taps)
        start, stop = (out * n_in)[:, None], ((out + 1) * n_in)[:, None]
        common = np.minimum(stop, (cols + 1) * n_out) - np.maximum(start, cols * n_out)
        inside = common > 0
        rows = np.broadcast_to(out[:, None], cols.shape)[inside]
        cols, values = cols[inside], common[inside] / n_in
    # Imported here because few runs resample.
    from scipy import sparse

    return sparse.csr_array((values.astype(np.float32), (rows, cols)), shape=(n_out, n_in))


class SymmetricRefiner(Wrapper):
    """Averages the logits of a refiner over the eight rotations and reflections of each tile.

    Logits are summed exactly, as whole multiples of 2**-24, so their order does not matter: a
    rotated tile gives the rotated result to the last bit if the refiner is deterministic. The
    refiner runs eight times, one pass after the other, so memory is that of one pass.
    """

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, (B, T, T) float32 in [0, 1].

        Raises:
            ModelError: the tiles are not square, or the refiner refuses them.
        """
        _require_square(tiles)
        total = np.zeros(tiles.shape, np.float64)  # whole numbers, so sums are exact
        mirrored = total.transpose(0, 2, 1)
        for seen, into in ((tiles, total), (tiles.transpose(0, 2, 1), mirrored)):
            for turns in range(4):
                turned = np.ascontiguousarray(np.rot90(seen, turns, axes=(1, 2)))
                refined = np.clip(self.refiner(turned), SATURATED, 1 - SATURATED)
                parts = np.rint(logit(refined) * np.float32(_PARTS))
                into += np.rot90(parts, -turns, axes=(1, 2))
        return np.asarray(expit(total / (8 * _PARTS)), np.float32)


class SmoothedRefiner(Wrapper):
    """Smooths the logits of each tile before it is refined; see `smoothed`.

    A network that adds a correction to its input would keep details that are finer than the
    correction, such as the checkerboards and specks of transposed convolutions.
    """

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, (B, T, T) float32 in [0, 1].

        Raises:
            ModelError: the refiner refuses the tiles.
        """
        return self.refiner(smoothed(tiles))


def smoothed(confidence: Float32Array) -> Float32Array:
    """Confidences (..., H, W) whose logits are filtered by (1, 2, 1) / 4 along both axes.

    The filter removes patterns that alternate from pixel to pixel, and reduces the logit of a
    single pixel to a quarter. Borders are replicated.
    """
    logits = clipped_logit(confidence)
    for axis in (-2, -1):
        ndimage.convolve1d(logits, _SMOOTHING, axis=axis, mode="nearest", output=logits)
    return np.asarray(expit(logits, out=logits))


class CalibratedRefiner(Wrapper):
    """Mixes each refined tile with the input tile, and calibrates the mix."""

    def __init__(self, refiner: Refiner, *, transformation: Transformation) -> None:
        super().__init__(refiner)
        self.transformation = transformation

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Refine tiles, (B, T, T) float32 in [0, 1].

        Raises:
            ModelError: the refiner refuses the tiles.
        """
        return self.transformation(tiles, self.refiner(tiles))


class Unchanged:
    """The refiner of a calibration without a model: confidences are not changed."""

    name = "none"
    # Identifies the run when it is resumed.
    digest = hashlib.sha256(b"confidences as they are").hexdigest()
    parallel_calls = 8
    patch = 64

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Give the tiles themselves, (B, T, T) float32 in [0, 1]."""
        return tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedSource:
    """Loads `Unchanged` in any process."""

    patch: int = Unchanged.patch

    def load(self, *, cores: int | None = None) -> Refiner:
        """Make the refiner; `cores` is ignored, as it computes nothing."""
        return Unchanged()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """Which wrappers are put around a refiner."""

    patch: int
    """Side of the model's patch, in pixels of the raster."""
    tta: Tta = "none"
    """"d4" for the eight passes of `SymmetricRefiner`, or "none"."""
    strength: float = 1.0
    """Share of the refined logit in the model's output, see `ModelScope`."""
    smooth: bool = False
    """Whether the refiner reads smoothed tiles."""
    transformation: Transformation | None = None
    """Transformation of the refined tiles; None = no transformation."""

    def __call__(self, refiner: Refiner) -> Refiner:
        """Wrap a refiner.

        The order matters. The eight passes are inside the resampling, so that it is done once. The
        mix of `strength` is with the smoothed tile, which is what the model reads. A calibration is
        outermost, because it was fitted to the output of the complete model.
        """
        network_patch = refiner.patch
        if self.tta == "d4":
            refiner = SymmetricRefiner(refiner)
        if self.patch != network_patch:
            refiner = ResampledRefiner(refiner, patch=self.patch)
        if self.strength != 1:
            mix = Transformation(strength=self.strength)
            refiner = CalibratedRefiner(refiner, transformation=mix)
        if self.smooth:
            refiner = SmoothedRefiner(refiner)
        if self.transformation is not None:
            refiner = CalibratedRefiner(refiner, transformation=self.transformation)
        return refiner


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedSource:
    """Loads a refiner and wraps it; as small and picklable as the source inside."""

    source: RefinerSource
    """Loads the refiner."""
    wrapping: Wrapping
    """The wrappers to put around it."""

    @property
    def patch(self) -> int:
        """Side of the model's patch, in pixels of the raster."""
        return self.wrapping.patch

    def load(self, *, cores: int | None = None) -> Refiner:
        """Load the model and wrap it."""
        return self.wrapping(self.source.load(cores=cores))


def wrapped(
    model: Refiner | RefinerSource,
    *,
    tta: Tta = "none",
    patch: int | None = None,
    strength: float = 1.0,
    smooth: bool = False,
    transformation: Transformation | None = None,
) -> Refiner | RefinerSource:
    """Wrap a refiner, or a source of one; gives the same object if no wrapper is needed.

    Args:
        model: a refiner, or a source that loads one.
        tta: "d4" for the eight passes of `SymmetricRefiner`, or "none".
        patch: side of the model's patch in pixels of the raster, see `ResampledRefiner`; None =
            not resampled.
        strength: share of the refined logit in the model's output, see `ModelScope`.
        smooth: whether the model reads smoothed tiles, see `SmoothedRefiner`.
        transformation: transformation of the refined tiles, see `CalibratedRefiner`.
    """
    patch = model.patch if patch is None else patch
    if transformation is not None and transformation.is_cut_only:
        transformation = None
    wrapping = Wrapping(
        tta=tta, patch=patch, strength=strength, smooth=smooth, transformation=transformation
    )
    if wrapping == Wrapping(patch=model.patch):
        return model
    if callable(model):
        return wrapping(model)
    return WrappedSource(source=model, wrapping=wrapping)


def unwrapped(refiner: Refiner) -> Refiner:
    """The refiner inside all wrappers."""
    while isinstance(refiner, Wrapper):
        refiner = refiner.refiner
    return refiner
