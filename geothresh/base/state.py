"""The state of a base network's training between two steps, so that a stopped run goes on exactly.

Crops and the noise of dropout depend on the seed and the step alone, so weights, optimiser and
the number of steps are all there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geothresh.base.checkpoint import load_base_weights, read_base_card
from geothresh.base.config import BaseConfig
from geothresh.errors import ModelError
from geothresh.nn.modelfile import BASE
from geothresh.nn.optimizers import optimizer_tensors, restore_optimizer
from geothresh.nn.states import require_same, write_state

_WEIGHTS = "weights."


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """What a state says, without its tensors."""

    path: Path
    config: BaseConfig
    run: dict[str, Any]
    """Recipe, data and what else a run that goes on must agree with; JSON types."""
    step: int
    """Steps done."""
    seconds: float
    """That they took."""
    groups: list[dict[str, Any]]
    """Of the optimiser."""

    @classmethod
    def read(cls, path: Path) -> SavedRun:
        """Read a state.

        Raises:
            ModelError: the file is none.
        """
        card = read_base_card(path)
        run = dict(card.training)
        try:
            saved = json.loads(run.pop("state"))
            return cls(
                path=path,
                config=card.config,
                run=run,
                step=int(saved["step"]),
                seconds=float(saved["seconds"]),
                groups=list(saved["optimizer_groups"]),
            )
        except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ModelError(f"{path}: not the state of a training run ({error!r})") from error

    def require_same(self, config: BaseConfig, run: Mapping[str, Any]) -> None:
        """See that it is of a run with this network, recipe and data.

        Raises:
            ModelError: it is of another.
        """
        found = {"config": json.loads(json.dumps(self.config.as_dict())), **self.run}
        require_same(self.path, found, {"config": config.as_dict(), **run})

    def where(self) -> str:
        """Where the run goes on from it."""
        steps = self.run["recipe"]["steps"]
        return f"after step {self.step} of {steps}" if self.step else "from the first step"

    def restore(self, *, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put what was saved back into network and optimiser.

        Raises:
            ModelError: the tensors are not those of the network.
        """
        network.load_state_dict(load_base_weights(self.path, self.config, prefix=_WEIGHTS))
        restore_optimizer(optimizer, self.path, self.groups)


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
    """Write the state; it becomes the newest whole or not at all."""
    tensors = {_WEIGHTS + name: value for name, value in network.state_dict().items()}
    tensors |= optimizer_tensors(optimizer)
    state = {
        "step": step,
        "seconds": seconds,
        "optimizer_groups": optimizer.state_dict()["param_groups"],
    }
    training = {**run, "state": json.dumps(state)}
    entries = {"config": config.as_dict(), "training": training}
    write_state(path, BASE, tensors=tensors, entries=entries)
