"""Save the state of a training between two steps, in one file with a checksum, and restore it.

Samples and dropout depend only on the seed and the number of the step, so no random generator needs
to be saved. Weights, optimiser, counters and the memory of the task are all that is needed.
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
    """Counters of a run after a step."""

    epoch: int = 0
    """Number of epochs done."""
    batch: int = 0
    """Number of steps done in the current epoch."""
    step: int = 0
    """Number of optimiser steps done."""
    seconds: float = 0.0
    """Time spent training."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the losses over the samples of the current epoch, by name."""
    best_score: float = -1.0
    """Highest mean of validation miou and Boundary IoU."""
    best_epoch: int = 0
    least_loss: float = float("inf")
    """Lowest training loss of an epoch."""
    epochs_without_gain: int = 0
    """Number of epochs since the training loss was lowest."""

    def count_step(self, losses: Mapping[str, float], samples: int) -> None:
        """Count a step with the mean losses of its samples."""
        self.step += 1
        self.batch += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * samples

    def count_epoch(self) -> None:
        """Count the current epoch as done."""
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """Metadata of a saved state, without its tensors."""

    path: Path
    run: dict[str, Any]
    """Network, recipe, data and all else that must be the same to resume; JSON types."""
    progress: Progress
    groups: list[dict[str, Any]]
    """Parameter groups of the optimiser, without parameters."""
    finished: bool
    """Whether the run is finished."""
    memory: dict[str, Any]
    """The memory of the task, see `Task.memory`."""

    @classmethod
    def read(cls, path: Path, kind: Kind) -> SavedRun:
        """Read a state.

        Raises:
            ModelError: the file is no state.
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
            ModelError: the state is of another run.
        """
        require_same_run(self.path, self.run, run, error=ModelError)

    def where(self) -> str:
        """The epoch or step from which the run resumes, in words."""
        done, epochs = self.progress, self.run["recipe"].get("epochs", 1)
        # With folds, each fold has as many epochs, and so has the model.
        epochs *= 1 + self.run.get("data", {}).get("folds", 0)
        if done.batch:
            epoch = f"in epoch {done.epoch + 1} of {epochs}, " if epochs > 1 else ""
            return f"{epoch}after step {done.batch}"
        return f"after epoch {done.epoch} of {epochs}" if done.epoch else "from the first step"

    def restore(
        self, modules: Mapping[str, torch.nn.Module], optimizer: torch.optim.Optimizer
    ) -> None:
        """Load the saved tensors into networks and optimiser.

        Raises:
            ModelError: names or shapes of the tensors differ.
        """
        for prefix, module in modules.items():
            module.load_state_dict(read_tensors(self.path, module.state_dict(), prefix=prefix))
        restore_optimizer(optimizer, self.path, self.groups)


def place_of(newest: Path, kind: Kind) -> str | None:
    """The epoch or step of the newest state, in words; None if there is no state."""
    states = states_there(newest)
    return SavedRun.read(states[0], kind).where() if states else None


def save_state(path: Path, task: Task, progress: Progress) -> None:
    """Write the newest state atomically; the state before it is kept under another name.

    Raises:
        OutputError: the state cannot be written; earlier states are kept.
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
    """Tensors of the optimiser's state by name, without its parameter groups."""
    return {
        f"{_PREFIX}{number}.{name}": torch.as_tensor(value)
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, path: Path, groups: list[dict[str, Any]]
) -> None:
    """Load the tensors of `optimizer_tensors` from a file, and the parameter groups.

    Raises:
        ModelError: the tensors do not fit this optimiser.
    """
    from safetensors import SafetensorError, safe_open

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            # safe_open returns no mapping: it has keys() but no __iter__.
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
