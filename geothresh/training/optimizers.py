"""Cosine learning-rate schedule, and optimiser state as tensors of a safetensors file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geothresh.errors import ModelError

_PREFIX = "optimizer."


def cosine_rate(step: int, n_steps: int, *, highest: float, least: float = 0.0) -> float:
    """Learning rate of a step (from 0): linear warm-up over a twentieth, then half a cosine."""
    warm_up = max(1, n_steps // 20)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    share = (step - warm_up) / max(1, n_steps - warm_up)
    return least + (highest - least) * (1 + math.cos(math.pi * share)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


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
    """Put tensors of `optimizer_tensors` back from a file, with the groups as they were.

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
