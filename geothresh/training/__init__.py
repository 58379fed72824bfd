"""Training: data to pairs, pairs to chips, chips to a model.

The names below are loaded when they are first used: the command line reads the recipes for its
help, and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geothresh.training.recipe import RECIPES, Recipe, recipe_of
    from geothresh.training.run import TrainResult, train

_HOMES = {
    "RECIPES": "geothresh.training.recipe",
    "Recipe": "geothresh.training.recipe",
    "TrainResult": "geothresh.training.run",
    "recipe_of": "geothresh.training.recipe",
    "train": "geothresh.training.run",
}

__all__ = ["RECIPES", "Recipe", "TrainResult", "recipe_of", "train"]


def __getattr__(name: str) -> Any:
    """Load a name from its home (PEP 562) and keep it here."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
