"""The state of a training run between two epochs, in one safetensors file, so that a run that was
stopped goes on exactly.

Chips depend on (seed, epoch, position) alone and dropout on (seed, epoch), so weights, moving
average, optimiser and the counters below are all there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geothresh.errors import ModelError
from geothresh.nn.checkpoint import load_weights, read_card, save_model
from geothresh.nn.config import NetworkConfig
from geothresh.nn.optimizers import optimizer_tensors, restore_optimizer

_WEIGHTS, _AVERAGE = "weights.", "average."


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counters of a run, as they stand after an epoch."""

    epoch: int = 0
    """Epochs done."""
    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Time spent training."""
    best_score: float = -1.0
    """Highest mean of validation miou and Boundary IoU."""
    best_epoch: int = 0
    least_loss: float = float("inf")
    """Lowest training loss of an epoch."""
    epochs_without_gain: int = 0
    """Epochs since the training loss was lowest."""


def save_state(
    path: Path,
    *,
    network: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    config: NetworkConfig,
    run: Mapping[str, Any],
    schedule: Mapping[str, Any],
) -> None:
    """Write the state; it replaces the previous one whole or not at all."""
    tensors: dict[str, Tensor] = {}
    tensors |= {_WEIGHTS + k: v for k, v in network.state_dict().items()}
    tensors |= {_AVERAGE + k: v.clone() for k, v in average.state_dict().items()}
    tensors |= optimizer_tensors(optimizer)
    training = {
        "run": dict(run),
        "progress": _exact(asdict(progress)),
        "optimizer_groups": optimizer.state_dict()["param_groups"],
        "schedule": dict(schedule),
    }
    save_model(path, tensors=tensors, config=config, training={"state": json.dumps(training)})


def load_state(
    path: Path,
    *,
    network: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    config: NetworkConfig,
    run: Mapping[str, Any],
) -> tuple[Progress, dict[str, Any]]:
    """Put a saved state back into network, average and optimiser.

    Returns:
        The counters, and the state of the schedule.

    Raises:
        ModelError: the file is damaged, or of a run with another network, recipe or data.
    """
    card = read_card(path)
    try:
        training = json.loads(card.training["state"])
        saved, groups = training["run"], training["optimizer_groups"]
        progress = _from_exact(training["progress"])
        schedule = dict(training["schedule"])
        saved = dict(saved)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: not the state of a training run ({error!r})") from error
    wanted = json.loads(json.dumps({"config": config.as_dict(), **run}))
    found = {"config": card.config.as_dict(), **saved}
    changed = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
    if changed:
        raise ModelError(
            f"{path}: the run was started with another {', '.join(changed)}; give the same "
            "options and data again, or start anew with --overwrite"
        )
    network.load_state_dict(load_weights(path, config, prefix=_WEIGHTS))
    average.load_state_dict(load_weights(path, config, prefix=_AVERAGE))
    restore_optimizer(optimizer, path, groups)
    return progress, schedule


def _exact(counters: Mapping[str, Any]) -> dict[str, Any]:
    # As text: JSON has no infinity, which the least loss is before the first epoch.
    return {k: repr(v) if isinstance(v, float) else v for k, v in counters.items()}


def _from_exact(counters: Mapping[str, Any]) -> Progress:
    values: dict[str, Any] = {k: float(v) if isinstance(v, str) else v for k, v in counters.items()}
    progress = Progress(**values)
    if not all(type(getattr(progress, f.name)) in (int, float) for f in fields(progress)):
        raise ValueError("counters that are no numbers")
    return progress
