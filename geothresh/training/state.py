"""The state of a training run between two steps, in one safetensors file, so that a run that was
stopped goes on exactly.

Chips depend on (seed, epoch, position) alone and dropout on (seed, step), so weights, moving
average, optimiser and the counters below are all there is: no generator has a state of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geothresh.errors import ModelError
from geothresh.nn.checkpoint import load_weights, read_card
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import THRESHNET
from geothresh.nn.optimizers import optimizer_tensors, restore_optimizer
from geothresh.nn.states import require_same, write_state

_WEIGHTS, _AVERAGE = "weights.", "average."


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counters of a run, as they stand after a step."""

    epoch: int = 0
    """Epochs done."""
    batch: int = 0
    """Steps done of the epoch that is under way."""
    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Time spent training."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of the losses over the chips of the epoch that is under way, by name."""
    best_score: float = -1.0
    """Highest mean of validation miou and Boundary IoU."""
    best_epoch: int = 0
    least_loss: float = float("inf")
    """Lowest training loss of an epoch."""
    epochs_without_gain: int = 0
    """Epochs since the training loss was lowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """What a state says, without its tensors."""

    path: Path
    config: NetworkConfig
    run: dict[str, Any]
    """Recipe and data; JSON types."""
    progress: Progress
    rows: list[dict[str, str]]
    """Of the log."""
    schedule: dict[str, Any]
    groups: list[dict[str, Any]]
    """Of the optimiser."""
    finished: bool
    """Whether nothing is left to be done."""

    @classmethod
    def read(cls, path: Path) -> SavedRun:
        """Read a state.

        Raises:
            ModelError: the file is none.
        """
        card = read_card(path)
        try:
            saved = json.loads(card.training["state"])
            return cls(
                path=path,
                config=card.config,
                run=dict(saved["run"]),
                progress=_from_exact(saved["progress"]),
                rows=[dict(row) for row in saved["rows"]],
                schedule=dict(saved["schedule"]),
                groups=list(saved["optimizer_groups"]),
                finished=bool(saved["finished"]),
            )
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path}: not the state of a training run ({error!r})") from error

    def require_same(self, config: NetworkConfig, run: Mapping[str, Any]) -> None:
        """See that it is of a run with this network, and with these entries of recipe and data.

        Raises:
            ModelError: it is of another.
        """
        found = {"config": self.config.as_dict(), **self.run}
        require_same(self.path, found, {"config": config.as_dict(), **run})

    def require_same_recipe(self, config: NetworkConfig, recipe: Mapping[str, Any]) -> None:
        """The same before the data is known."""
        self.require_same(config, {**self.run, "recipe": recipe})

    def where(self) -> str:
        """Where the run goes on from it."""
        done, epochs = self.progress, self.run["recipe"]["epochs"]
        if done.batch:
            return f"in epoch {done.epoch + 1} of {epochs}, after step {done.batch}"
        return f"after epoch {done.epoch} of {epochs}" if done.epoch else "from the first step"

    def restore(
        self,
        *,
        network: torch.nn.Module,
        average: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Put what was saved back into network, average and optimiser.

        Raises:
            ModelError: the tensors are not those of the network.
        """
        network.load_state_dict(load_weights(self.path, self.config, prefix=_WEIGHTS))
        average.load_state_dict(load_weights(self.path, self.config, prefix=_AVERAGE))
        restore_optimizer(optimizer, self.path, self.groups)


def save_state(
    path: Path,
    *,
    network: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    rows: Sequence[Mapping[str, str]],
    config: NetworkConfig,
    run: Mapping[str, Any],
    schedule: Mapping[str, Any],
    finished: bool,
) -> None:
    """Write the state; it becomes the newest whole or not at all."""
    tensors: dict[str, Tensor] = {}
    tensors |= {_WEIGHTS + k: v for k, v in network.state_dict().items()}
    tensors |= {_AVERAGE + k: v.clone() for k, v in average.state_dict().items()}
    tensors |= optimizer_tensors(optimizer)
    training = {
        "run": dict(run),
        "progress": _exact(asdict(progress)),
        "rows": [dict(row) for row in rows],
        "optimizer_groups": optimizer.state_dict()["param_groups"],
        "schedule": dict(schedule),
        "finished": finished,
    }
    entries = {"config": config.as_dict(), "training": {"state": json.dumps(training)}}
    write_state(path, THRESHNET, tensors=tensors, entries=entries)


def _exact(counters: Mapping[str, Any]) -> dict[str, Any]:
    # As text: JSON has no infinity, which the least loss is before the first epoch.
    return {k: repr(v) if isinstance(v, float) else v for k, v in counters.items()}


def _from_exact(counters: Mapping[str, Any]) -> Progress:
    values: dict[str, Any] = {k: float(v) if isinstance(v, str) else v for k, v in counters.items()}
    progress = Progress(**values)
    plain = [getattr(progress, f.name) for f in fields(progress) if f.name != "sums"]
    if not all(type(number) in (int, float) for number in [*plain, *progress.sums.values()]):
        raise ValueError("counters that are no numbers")
    return progress
