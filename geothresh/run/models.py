"""Find the model of a run and its resolution, and make the refiner that the engine calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from geothresh.errors import UsageError
from geothresh.mosaic import Refiner, RefinerSource, Scheduler, load_refiner
from geothresh.nn.backends import versioned
from geothresh.nn.compiling import lacking_compiler, pays
from geothresh.nn.device import GPU_BATCH
from geothresh.nn.modelfile import read_card
from geothresh.nn.refiner import ModelSource, resolved
from geothresh.nn.scope import UNKNOWN, ModelScope, resampled_patch
from geothresh.nn.transformation import Transformation
from geothresh.nn.wrappers import unwrapped, wrapped
from geothresh.options import Backend, Compute, Precision, Refining, Resolution, Tiling, Tta
from geothresh.tiling import TileGrid
from geothresh.windows import RasterSize

if TYPE_CHECKING:
    from geothresh.nn.backends import CompiledRefiner
    from geothresh.nn.refiner import TorchRefiner

Model: TypeAlias = str | os.PathLike[str] | Refiner | RefinerSource
"""A packaged model's name, a model file, a refiner, or a source that loads one."""

_LOGGER = logging.getLogger(__name__)
# Tiles in one call of a refiner without a batch size of its own.
_BATCH = 8
# Default overlap of neighbouring tiles.
_OVERLAP = 128
# Pixels of a raster in one call at most, where its pixels are smaller than the model's: 64 MiB.
_BATCH_PIXELS = 2**24
_USUAL_TILING = Tiling()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """A model that exists and fits the options."""

    refiner: Refiner | RefinerSource
    """For the engine."""
    name: str
    """For messages and tags."""
    digest: str
    """sha256 of its file, hexadecimal; empty where there is none."""
    patch: int
    """Side of its patch in the model's pixels; tile size and overlap are multiples of it."""
    raster_patch: int
    """The same in pixels of the raster, which may be smaller or larger."""
    scope: ModelScope
    """What it was trained for, as far as known."""
    batch_size: int
    """Most tiles that the engine gives it at once."""
    backend: str
    """The library that runs it, with its version; "other" for what is no model of geothresh's."""
    device: str
    """Kind of device that it runs on, of a cluster's workers too."""
    precision: str
    """Number format inside it, on a cluster's workers too."""
    compiled: bool = False
    """Whether torch compiles it, on a cluster's workers too."""

    @property
    def resampling(self) -> float:
        """Pixels of the model along one of the raster; 1 = the raster is read as it is."""
        return self.patch / self.raster_patch

    def described(self) -> dict[str, object]:
        """What pixels depend on of it, by name: for tags and fingerprints."""
        return {
            "model": self.name,
            "model_sha256": self.digest,
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "resampling": f"{self.patch}/{self.raster_patch}",
            **({"compiled": "yes"} if self.compiled else {}),
        }

    def keep(self, refining: Refining) -> float | None:
        """Refined confidence down to which foreground of the input stays.

        As given, else from the model card; None = the threshold alone decides.
        """
        return self.scope.keep if refining.keep_threshold is None else refining.keep_threshold

    def overlap(self, tiling: Tiling) -> int:
        """Pixels of the model that neighbouring tiles share.

        As given, else 128 rounded up to whole patches, or for small tiles all but one patch. Tiles
        of one patch cannot overlap: `grid` refuses the default then, so that seams are never made
        unless overlap 0 is given.
        """
        return _overlap(self.patch, tiling)

    def grid(self, size: RasterSize, tiling: Tiling) -> TileGrid:
        """The tiles over a raster.

        Raises:
            UsageError: their size and overlap are no multiples of the patch.
        """
        return _grid(size, tiling, self.patch, self.raster_patch)


def _overlap(patch: int, tiling: Tiling) -> int:
    """See `ChosenModel.overlap`."""
    if tiling.overlap is not None:
        return tiling.overlap
    usual = -(-_OVERLAP // patch) * patch
    return min(usual, tiling.tile_size - patch) if tiling.tile_size > patch else usual


def _grid(size: RasterSize, tiling: Tiling, patch: int, raster_patch: int) -> TileGrid:
    """See `ChosenModel.grid`."""
    tile, overlap = tiling.tile_size, _overlap(patch, tiling)
    asked = TileGrid(size=size, tile=tile, overlap=overlap, patch=patch)
    if patch == raster_patch:
        return asked
    return TileGrid(
        size=size,
        tile=tile // patch * raster_patch,
        overlap=overlap // patch * raster_patch,
        patch=raster_patch,
    )


Choose: TypeAlias = Callable[..., ChosenModel]
"""Chooses a model for ``metres``, ``width`` and ``size`` of a raster, see `choose_model`."""


def _resolved_where(compute: Compute) -> tuple[str, Precision]:
    """The kind of device and the number format that workers use.

    Raises:
        UsageError: the workers of a running cluster do not all use the same.
        ClusterError: it cannot be reached.
    """
    asked = compute.device, compute.precision, compute.backend
    if compute.scheduler is None:
        return resolved(*asked)
    # Imports distributed, which other runs do without.
    from geothresh.mosaic.clients import ask_workers

    taken = set(ask_workers(Scheduler(address=compute.scheduler), resolved, *asked))
    if len(taken) > 1:
        ways = "; ".join(sorted(" ".join(way) for way in taken))
        raise UsageError(
            f"scheduler {compute.scheduler}: its workers differ in what they run a model on "
            f"({ways}), and so would the pixels; name `device` and `precision`"
        )
    return taken.pop()


def _compiled(
    model: Refiner | RefinerSource, compute: Compute, n_tiles: Callable[[int], int]
) -> Refiner | RefinerSource:
    """A model, compiled where that is asked for, or pays and works.

    Args:
        model: as it was found.
        compute: says whether.
        n_tiles: of the raster, for the model's patch; 0 where its size is not known.

    Raises:
        UsageError: it cannot be compiled as asked.
    """
    if isinstance(model, ModelSource) and model.backend == "torch" and not model.compiled:
        asked = compute.compile == "yes"
        if compute.compile == "auto":
            asked = _pays_and_works(model, compute, n_tiles(model.patch))
        model = replace(model, compiled=asked)
    if compute.compile == "yes" and not getattr(model, "compiled", False):
        raise UsageError(
            "`compile=yes`: is for the name or the file of a model that torch runs; give one, or "
            "make the refiner by load_model(..., compiled=True)"
        )
    return model


def _pays_and_works(model: ModelSource, compute: Compute, n_tiles: int) -> bool:
    """What ``auto`` decides about compiling; it says so and why."""
    config = read_card(model.path).config
    if not pays(config, device=lambda: _resolved_where(compute)[0], n_tiles=n_tiles):
        return False
    if compute.scheduler is None:
        reasons = [lacking_compiler("cuda")]
    else:
        # Imports distributed, which other runs do without.
        from geothresh.mosaic.clients import ask_workers

        where = Scheduler(address=compute.scheduler)
        reasons = list(ask_workers(where, lacking_compiler, "cuda"))
    reason = next(filter(None, reasons), None)
    said = "compiled" if reason is None else f"not compiled ({reason})"
    _LOGGER.info("compile auto: %s; %d tiles", said, n_tiles)
    return reason is None


def _raster_ratio(
    scope: ModelScope,
    resolution: Resolution,
    metres: float | None,
    width: Callable[[], float | None] | None,
) -> float:
    """See `ModelScope.raster_ratio`; the width is measured only where it decides."""
    measured = None
    if resolution == "auto" and metres is None and scope.widths is not None and width is not None:
        measured = width()
    return scope.raster_ratio(resolution, metres=metres, width=measured)


def find_source(model: Model, compute: Compute) -> Refiner | RefinerSource:
    """Look up the file of a model; what loads or is a refiner is given back as it is.

    The file is read for it: of what is chosen for thousands of rasters this is asked once before.

    Raises:
        ModelError, UsageError: as `choose_model`.
    """
    if isinstance(model, str | os.PathLike):
        return ModelSource.find(
            model if isinstance(model, str) else Path(model),
            device=compute.device,
            precision=compute.precision,
            batch_size=compute.batch_size,
            all_gpus=not compute.remote,
            backend=compute.backend,
        )
    if not callable(model) and not hasattr(model, "load"):
        raise UsageError(f"{model!r} is no model; give a name, a file, a refiner or its source")
    return model


def choose_model(
    model: Model,
    compute: Compute,
    *,
    tta: Tta = "none",
    resolution: Resolution = "native",
    metres: float | None = None,
    width: Callable[[], float | None] | None = None,
    size: RasterSize | None = None,
    tiling: Tiling = _USUAL_TILING,
    transformation: Transformation | None = None,
) -> ChosenModel:
    """Find a model and check that it fits; it is loaded here unless workers load it.

    Args:
        model: see `Model`.
        compute: where it runs; device, precision and backend are for a name or a file.
        tta: test-time augmentation.
        resolution: pixel size that the model reads, see `ModelScope.raster_ratio`.
        metres: size of the raster's pixels on the ground; None = unknown.
        width: measures the width of the raster's foreground in its pixels; called only if needed.
        size: of the raster, which decides whether compiling pays; None = not known.
        tiling: how it is cut, likewise.
        transformation: what a calibration does to each tile, see `geothresh.run.calibrated`.

    Raises:
        ModelError: it is missing or damaged.
        UsageError: it is nothing that names or is a model, workers cannot load this model, the
            backend is not installed, torch cannot compile it as asked, or the raster's pixels are
            out of its reach.
        InputError: the device is not there.
    """
    model = find_source(model, compute)
    scope = getattr(model, "scope", UNKNOWN)
    patch = resampled_patch(model.patch, _raster_ratio(scope, resolution, metres, width))
    model = _compiled(
        model, compute, lambda own: 0 if size is None else _grid(size, tiling, own, patch).n_tiles
    )
    refiner = wrapped(
        model,
        tta=tta,
        patch=patch,
        strength=scope.strength,
        smooth=scope.smooth,
        transformation=transformation,
    )
    device, precision = compute.device, compute.precision
    if compute.remote and isinstance(model, ModelSource):
        own_batch = _BATCH if model.device == "cpu" else GPU_BATCH
        name, sha256 = model.name, model.sha256
        runner: Backend | None = model.backend
        device, precision = _resolved_where(compute)
    else:
        loaded = unwrapped(load_refiner(refiner).refiner)
        own_batch = int(getattr(loaded, "batch_size", _BATCH))
        name, sha256 = loaded.name, loaded.digest
        runner = getattr(loaded, "backend", None)
        if runner is not None:
            own = cast("TorchRefiner | CompiledRefiner", loaded)
            device, precision = own.device.type, own.precision
    batch = own_batch if compute.batch_size == "auto" else compute.batch_size
    if patch > model.patch:
        batch = min(batch, max(1, _BATCH_PIXELS // (512 * patch // model.patch) ** 2))
    return ChosenModel(
        refiner=refiner,
        name=name,
        digest=sha256,
        patch=model.patch,
        raster_patch=patch,
        scope=scope,
        batch_size=batch,
        backend="other" if runner is None else versioned(runner),
        device=device,
        precision=precision,
        compiled=bool(getattr(model, "compiled", False)),
    )
