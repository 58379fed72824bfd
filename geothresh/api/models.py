"""What may be given as a model, made into what the engine takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from geothresh.errors import UsageError
from geothresh.mosaic import Refiner, RefinerSource, load_refiner
from geothresh.nn.refiner import BatchSize, ModelSource, Precision

Model: TypeAlias = str | os.PathLike[str] | Refiner | RefinerSource
"""A packaged model's name, a model file, a refiner, or a source that loads one."""

# Tiles in one call where the refiner has no opinion: it may cut them into smaller batches.
_BATCH = 8
_GPU_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """A model that is known to exist and to fit the request."""

    refiner: Refiner | RefinerSource
    """For the engine."""
    name: str
    """For messages and tags."""
    digest: str
    """sha256 of its file, hexadecimal; empty where there is none."""
    patch: int
    """Tile size and overlap are multiples of this many pixels."""
    batch_size: int
    """Most tiles that the engine gives it at once."""


def choose_model(
    model: Model, *, device: str, precision: Precision, batch_size: BatchSize, workers: int
) -> ChosenModel:
    """Find the model and, unless workers are to do so, load it; `load_model` for the engine.

    Raises:
        ModelError: it is missing or damaged.
        UsageError: it is nothing that names or is a model, the batch size is no positive number,
            or workers cannot load this model.
    """
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise UsageError(f"batch size {batch_size!r}: say auto or a number of at least 1")
    if isinstance(model, str | os.PathLike):
        model = ModelSource.find(
            model if isinstance(model, str) else Path(model),
            device=device,
            precision=precision,
            batch_size=batch_size,
        )
    elif not callable(model) and not hasattr(model, "load"):
        raise UsageError(f"{model!r} is no model; give a name, a file, a refiner or its source")
    if workers and isinstance(model, ModelSource):
        # The parent process needs no torch.
        guess = _BATCH if model.device == "cpu" else _GPU_BATCH
        return ChosenModel(
            refiner=model,
            name=model.name,
            digest=model.sha256,
            patch=model.patch,
            batch_size=guess if batch_size == "auto" else batch_size,
        )
    loaded = load_refiner(model).refiner
    own_batch = getattr(loaded, "batch_size", _BATCH)
    return ChosenModel(
        refiner=model,
        name=loaded.name,
        digest=loaded.digest,
        patch=loaded.patch,
        batch_size=int(own_batch) if batch_size == "auto" else batch_size,
    )
