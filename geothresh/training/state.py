"""State of a training between two steps, in one sealed file, from which it goes on exactly.

Samples and dropout depend on the seed and the number of the step alone, so weights, optimiser,
counters and what the task remembers are all there is: no generator has a state of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geothresh.durability.resuming import earlier_state, require_same_run, states_there
from geothresh.errors import ModelError
from geothresh.nn.modelfile import Kind, read_metadata, read_tensors, write_model

if TYPE_CHECKING:
    from geothresh.training.loop import Task

_PREFIX = "optimizer."


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
    """Of the losses over the samples of the epoch that is under way, by name."""
    best_score: float = -1.0
    """Highest mean of validation miou and Boundary IoU."""
    best_epoch: int = 0
    least_loss: float = float("inf")
    """Lowest training loss of an epoch."""
    epochs_without_gain: int = 0
    """Epochs since the training loss was lowest."""

    def count_step(self, losses: Mapping[str, float], samples: int) -> None:
        """A step is done, with these mean losses of its samples."""
        self.step += 1
        self.batch += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * samples

    def count_epoch(self) -> None:
        """The epoch that was under way is done."""
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """Metadata of a saved state, without its tensors."""

    path: Path
    run: dict[str, Any]
    """Network, recipe, data and what else a run that goes on must agree with; JSON types."""
    progress: Progress
    groups: list[dict[str, Any]]
    """Of the optimiser."""
    finished: bool
    """Whether nothing is left to be done."""
    memory: dict[str, Any]
    """Of the task."""

    @classmethod
    def read(cls, path: Path, kind: Kind) -> SavedRun:
        """Read a state.

        Raises:
            ModelError: the file is none.
        """
        card = read_metadata(path, kind)
        try:
            saved = json.loads(card["training"]["state"])
            return cls(
                path=path,
                run={"config": card["config"], **saved.pop("run")},
                progress=_progress(saved.pop("progress")),
                groups=list(saved.pop("optimizer_groups")),
                finished=bool(saved.pop("finished")),
                memory=saved,
            )
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path}: not the state of a training run ({error!r})") from error

    def require_same(self, run: Mapping[str, Any]) -> None:
        """Check that the state is of this run.

        Raises:
            ModelError: it is of another.
        """
        require_same_run(self.path, self.run, run, error=ModelError)

    def where(self) -> str:
        """Epoch or step from which the run goes on."""
        done, epochs = self.progress, self.run["recipe"].get("epochs", 1)
        # With folds the same for each of them, and once more for the model.
        epochs *= 1 + self.run.get("data", {}).get("folds", 0)
        if done.batch:
            epoch = f"in epoch {done.epoch + 1} of {epochs}, " if epochs > 1 else ""
            return f"{epoch}after step {done.batch}"
        return f"after epoch {done.epoch} of {epochs}" if done.epoch else "from the first step"

    def restore(
        self, modules: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer
    ) -> None:
        """Load what was saved into networks and optimiser.

        Raises:
            ModelError: the tensors are not theirs.
        """
        for prefix, module in modules.items():
            module.load_state_dict(read_tensors(self.path, module.state_dict(), prefix=prefix))
        restore_optimizer(optimizer, self.path, self.groups)


def place_of(newest: Path, kind: Kind) -> str | None:
    """Where a run goes on from its newest state; None where there is none."""
    there = states_there(newest)
    return SavedRun.read(there[0], kind).where() if there else None


def save_state(path: Path, task: Task, progress: Progress) -> None:
    """Write the state; it becomes the newest whole or not at all, and the newest the one before.

    Raises:
        OutputError: it cannot be written; what was there is still there.
    """
    tensors = {
        prefix + name: value.clone()
        for prefix, module in task.modules.items()
        for name, value in module.state_dict().items()
    }
    state = {
        "run": task.told,
        "progress": asdict(progress),
        "optimizer_groups": task.optimizer.state_dict()["param_groups"],
        "finished": task.is_over(progress),
        **task.memory(),
    }
    write_model(
        path,
        task.kind,
        tensors=tensors | optimizer_tensors(task.optimizer),
        entries={"config": task.run["config"], "training": {"state": json.dumps(state)}},
        sealed=True,
        keep=earlier_state(path),
    )


def _progress(counters: Mapping[str, Any]) -> Progress:
    progress = Progress(**counters)
    plain = [getattr(progress, f.name) for f in fields(progress) if f.name != "sums"]
    if not all(type(number) in (int, float) for number in [*plain, *progress.sums.values()]):
        raise ValueError("counters that are no numbers")
    return progress


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by name; its groups are not in it."""
    return {
        f"{_PREFIX}{number}.{name}": torch.as_tensor(value)
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, path: Path, groups: list[dict[str, Any]]
) -> None:
    """Load tensors of `optimizer_tensors` from a file, with the groups as they were.

    Raises:
        ModelError: they are not those of this optimiser.
    """
    from safetensors import SafetensorError, safe_open

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            # What safe_open gives is no mapping: it has keys() and no __iter__.
            for key in file.keys():  # noqa: SIM118
                if key.startswith(_PREFIX):
                    number, name = key.removeprefix(_PREFIX).split(".")
                    entries.setdefault(int(number), {})[name] = file.get_tensor(key)
        for index, values in entries.items():
            for name, value in values.items():
                if value.numel() != 1 and value.shape != parameters[index].shape:
                    raise ValueError(f"{name} of parameter {index} is {tuple(value.shape)}")
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
    except (
        SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError,
        RuntimeError,
    ) as error:  # fmt: skip
        raise ModelError(
            f"{path}: the state of the optimiser is damaged ({error}); start anew with `overwrite`"
        ) from error
