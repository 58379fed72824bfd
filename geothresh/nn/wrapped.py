"""Wrap a refiner with test-time augmentation and with resampling to its resolution."""

from __future__ import annotations

from dataclasses import dataclass

from geothresh.mosaic import Refiner, RefinerSource
from geothresh.nn.resampling import ResampledRefiner
from geothresh.nn.symmetry import SymmetricRefiner
from geothresh.options import Tta


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedSource:
    """Loads a refiner and wraps it; as small and picklable as what it wraps."""

    source: RefinerSource
    """What it wraps."""
    tta: Tta
    patch: int
    """Side of the model's patch, in pixels of the raster."""

    def load(self, *, cores: int | None = None) -> Refiner:
        """Load the model and wrap it."""
        return _wrapped(self.source.load(cores=cores), tta=self.tta, patch=self.patch)


def wrapped(
    model: Refiner | RefinerSource, *, tta: Tta = "none", patch: int | None = None
) -> Refiner | RefinerSource:
    """Wrap a refiner, or a source of one; the same object where nothing is asked for.

    Args:
        model: a refiner, or a source that loads one.
        tta: see `geothresh.nn.symmetry.SymmetricRefiner`.
        patch: side of the model's patch in pixels of the raster; None for the model's own, see
            `geothresh.nn.resampling.ResampledRefiner`.
    """
    patch = model.patch if patch is None else patch
    if tta == "none" and patch == model.patch:
        return model
    if callable(model):
        return _wrapped(model, tta=tta, patch=patch)
    return WrappedSource(source=model, tta=tta, patch=patch)


def _wrapped(refiner: Refiner, *, tta: Tta, patch: int) -> Refiner:
    # In this order the eight passes read the network's pixels, and resampling is done once.
    network_patch = refiner.patch
    if tta == "d4":
        refiner = SymmetricRefiner(refiner)
    if patch != network_patch:
        refiner = ResampledRefiner(refiner, patch=patch)
    return refiner


def unwrapped(refiner: Refiner) -> Refiner:
    """The refiner inside all wrappers."""
    while isinstance(refiner, ResampledRefiner | SymmetricRefiner):
        refiner = refiner.refiner
    return refiner
