"""Find the model of a run, choose its resolution, and make the refiner that the engine calls."""

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
# Most raster pixels in one call if they are smaller than the model's pixels: 64 MiB.
_BATCH_PIXELS = 2**24
_USUAL_TILING = Tiling()
# What refiners and sources have, see `geothresh.mosaic.protocols`.
_OF_REFINERS = ("patch", "name", "digest")
_OF_SOURCES = ("patch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """A model that exists and fits the options."""

    refiner: Refiner | RefinerSource
    """The refiner for the engine, or a source that loads it."""
    name: str
    """Name in messages and tags."""
    digest: str
    """sha256 of the model file, hexadecimal; empty if there is none."""
    patch: int
    """Side of the patch in the model's pixels; tile size and overlap are multiples of it."""
    raster_patch: int
    """Side of the same patch in pixels of the raster, which may be smaller or larger."""
    scope: ModelScope
    """What the model was trained for, as far as known."""
    batch_size: int
    """Most tiles in one call."""
    backend: str
    """The library that runs it, with its version; "other" if it is not a model of geothresh."""
    device: str
    """Type of the device that it runs on; on a cluster, that of the workers."""
    precision: str
    """Number format inside the network; on a cluster, that of the workers."""
    compiled: bool = False
    """Whether torch compiles it; on a cluster, in the workers."""

    @property
    def resampling(self) -> float:
        """Pixels of the model along one pixel of the raster; 1 = not resampled."""
        return self.patch / self.raster_patch

    def described(self) -> dict[str, object]:
        """Everything about the model that pixels depend on, by name, for tags and fingerprints."""
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
        """Threshold of the refined confidence for pixels that are foreground in the input.

        It is the user's, or else that of the model card; None = the same as for other pixels.
        """
        return self.scope.keep if refining.keep_threshold is None else refining.keep_threshold

    def overlap(self, tiling: Tiling) -> int:
        """Pixels of the model that neighbouring tiles share.

        It is the user's, or else 128 rounded up to whole patches; for small tiles, all but one
        patch. Tiles of one patch cannot overlap: `grid` then refuses the default, so that there are
        no seams unless the user gives overlap 0.
        """
        return _overlap(self.patch, tiling)

    def grid(self, size: RasterSize, tiling: Tiling) -> TileGrid:
        """The tiles over a raster.

        Raises:
            UsageError: tile size or overlap is not a multiple of the patch.
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
    grid = TileGrid(size=size, tile=tile, overlap=overlap, patch=patch)  # checks the options
    if patch == raster_patch:
        return grid
    return TileGrid(
        size=size,
        tile=tile // patch * raster_patch,
        overlap=overlap // patch * raster_patch,
        patch=raster_patch,
    )


Choose: TypeAlias = Callable[..., ChosenModel]
"""A function that chooses a model for ``metres``, ``width`` and ``size``, see `choose_model`."""


def _resolved_where(compute: Compute) -> tuple[str, Precision]:
    """The type of device and the number format that workers use.

    Raises:
        UsageError: the workers of a running cluster do not all use the same.
        ClusterError: the cluster cannot be reached.
    """
    asked = compute.device, compute.precision, compute.backend
    if compute.scheduler is None:
        return resolved(*asked)
    # Imported here because it loads distributed, which other runs do not need.
    from geothresh.mosaic.clients import ask_workers

    used = set(ask_workers(Scheduler(address=compute.scheduler), resolved, *asked))
    if len(used) > 1:
        ways = "; ".join(sorted(" ".join(way) for way in used))
        raise UsageError(
            f"scheduler {compute.scheduler}: its workers differ in what they run a model on "
            f"({ways}), and so would the pixels; name `device` and `precision`"
        )
    return used.pop()


def _compiled(
    model: Refiner | RefinerSource, compute: Compute, n_tiles: Callable[[int], int]
) -> Refiner | RefinerSource:
    """Set whether a model is compiled: on request, or with ``auto`` if it pays and is possible.

    Args:
        model: the model.
        compute: its field `compile` decides.
        n_tiles: gives the number of tiles of the raster for the model's patch; 0 if unknown.

    Raises:
        UsageError: compiling is requested, but the model cannot be compiled.
    """
    if isinstance(model, ModelSource) and model.backend == "torch" and not model.compiled:
        compiled = compute.compile == "yes"
        if compute.compile == "auto":
            compiled = _pays_and_works(model, compute, n_tiles(model.patch))
        model = replace(model, compiled=compiled)
    if compute.compile == "yes" and not getattr(model, "compiled", False):
        raise UsageError(
            "`compile=yes`: is for the name or the file of a model that torch runs; give one, or "
            "make the refiner by load_model(..., compiled=True)"
        )
    return model


def _pays_and_works(model: ModelSource, compute: Compute, n_tiles: int) -> bool:
    """Whether ``auto`` compiles a model; logs the decision and its reason."""
    config = read_card(model.path).config
    if not pays(config, device=lambda: _resolved_where(compute)[0], n_tiles=n_tiles):
        return False
    if compute.scheduler is None:
        reasons = [lacking_compiler("cuda")]
    else:
        # Imported here because it loads distributed, which other runs do not need.
        from geothresh.mosaic.clients import ask_workers

        where = Scheduler(address=compute.scheduler)
        reasons = list(ask_workers(where, lacking_compiler, "cuda"))
    reason = next(filter(None, reasons), None)
    decision = "compiled" if reason is None else f"not compiled ({reason})"
    _LOGGER.info("compile auto: %s; %d tiles", decision, n_tiles)
    return reason is None


def _raster_ratio(
    scope: ModelScope,
    resolution: Resolution,
    metres: float | None,
    width: Callable[[], float | None] | None,
) -> float:
    """See `ModelScope.raster_ratio`; the width is measured only if it decides."""
    measured = None
    if resolution == "auto" and metres is None and scope.widths is not None and width is not None:
        measured = width()
    return scope.raster_ratio(resolution, metres=metres, width=measured)


def find_source(model: Model, compute: Compute) -> Refiner | RefinerSource:
    """Find the file of a model; a refiner or a source is returned unchanged.

    The file is read, so call this once for many rasters.

    Raises:
        ModelError, UsageError: see `choose_model`.
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
    _require_refiner(model)
    return model


def _require_refiner(model: object) -> None:
    """Refuse what is neither a refiner nor a source of one, such as a torch module."""
    if not callable(model) and not hasattr(model, "load"):
        raise UsageError(f"{model!r} is no model; give a name, a file, a refiner or its source")
    needed = _OF_REFINERS if callable(model) else _OF_SOURCES
    lacking = [name for name in needed if not hasattr(model, name)]
    if lacking:
        raise UsageError(
            f"a model of type {type(model).__name__} is no refiner, as it has no "
            f"{' and no '.join(lacking)}: a refiner takes (N, T, T) float32 tiles and has patch, "
            "name and digest; train a model with geothresh, or load one by load_model"
        )


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
        compute: where it runs; device, precision and backend apply to a name or a file.
        tta: test-time augmentation.
        resolution: pixel size that the model reads, see `ModelScope.raster_ratio`.
        metres: ground sample distance of the raster; None = unknown.
        width: measures the width of the raster's foreground in its pixels; called only if needed.
        size: size of the raster, which decides whether compiling pays; None = unknown.
        tiling: tile size and overlap, which also decide that.
        transformation: transformation by a calibration, see `geothresh.run.calibrated`.

    Raises:
        ModelError: the model is missing or damaged.
        UsageError: `model` is not of the types of `Model`, workers cannot load it, the backend is
            not installed, torch cannot compile it as requested, or the raster's pixels differ too
            much from those of the model.
        InputError: the device does not exist.
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
