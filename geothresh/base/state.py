"""The state of a base network's training between two steps, so that a stopped run goes on exactly.

Crops and the noise of dropout depend on the seed and the step alone, so weights, optimiser and
the number of steps are all there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from geothresh.base.checkpoint import load_base_weights, read_base_card, save_base_model
from geothresh.base.config import BaseConfig
from geothresh.errors import ModelError
from geothresh.nn.optimizers import optimizer_tensors, restore_optimizer

_WEIGHTS = "weights."


def save_state(
    path: Path,
    *,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    config: BaseConfig,
    run: Mapping[str, Any],
    step: int,
    seconds: float,
) -> None:
    """Write the state; it replaces the previous one whole or not at all."""
    tensors = {_WEIGHTS + name: value for name, value in network.state_dict().items()}
    tensors |= optimizer_tensors(optimizer)
    state = {
        "step": step,
        "seconds": seconds,
        "optimizer_groups": optimizer.state_dict()["param_groups"],
    }
    training = {**run, "state": json.dumps(state)}
    save_base_model(path, tensors=tensors, config=config, training=training)


def load_state(
    path: Path,
    *,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    config: BaseConfig,
    run: Mapping[str, Any],
) -> tuple[int, float]:
    """Put a saved state back into network and optimiser.

    Returns:
        Steps done, and the seconds that they took.

    Raises:
        ModelError: the file is damaged, or of a run with another network, recipe or data.
    """
    card = read_base_card(path)
    wanted = json.loads(json.dumps({"config": config.as_dict(), **run}))
    found = {"config": json.loads(json.dumps(card.config.as_dict())), **card.training}
    stored = found.pop("state", None)
    changed = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
    if changed:
        raise ModelError(
            f"{path}: the run was started with another {', '.join(changed)}; give the same "
            "options and data again, or start anew with --overwrite"
        )
    try:
        state = json.loads(stored)
        step, seconds = int(state["step"]), float(state["seconds"])
        groups = state["optimizer_groups"]
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path}: not the state of a training run ({error!r})") from error
    network.load_state_dict(load_base_weights(path, config, prefix=_WEIGHTS))
    restore_optimizer(optimizer, path, groups)
    return step, seconds
