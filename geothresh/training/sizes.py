"""Choose the configuration of the network to train: as asked for, or that of the initial model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from geothresh.errors import UsageError
from geothresh.nn.config import PRESETS, NetworkConfig
from geothresh.nn.modelfile import read_card
from geothresh.training.options import NetworkChoice
from geothresh.training.recipe import Recipe

DEFAULT_PRESET = "small"
DEFAULT_PATCH = 64


def choose_sizes(choice: NetworkChoice, recipe: Recipe, init: Path | None) -> NetworkConfig:
    """Choose the configuration of the network.

    Args:
        choice: the network that is asked for.
        recipe: gives the default head, and the branches.
        init: file of the initial model.

    Raises:
        UsageError: what is asked for differs from the initial model.
        ModelError: the model cannot be used, or the patch does not suit the preset.
    """
    if init is None:
        return dataclasses.replace(
            PRESETS[choice.preset or DEFAULT_PRESET],
            patch=choice.patch or DEFAULT_PATCH,
            head=choice.head or recipe.head,
            branches=recipe.branches,
        )
    config = read_card(init).config
    # Both branches are the default, which does not contradict a model with one.
    branches = None if recipe.branches == "both" else recipe.branches
    for name, asked, found in (
        ("preset", choice.preset, preset_of(config)),
        ("patch", choice.patch, config.patch),
        ("head", choice.head, config.head),
        ("branches", branches, config.branches),
    ):
        if asked is not None and asked != found:
            raise UsageError(
                f"{init}: the model to start from has {name} {found}, not {asked}; leave `{name}` "
                "out, or start from another"
            )
    return config


def preset_of(config: NetworkConfig) -> str:
    """Name of the preset whose sizes a network has; ``own`` if none."""
    for name, preset in PRESETS.items():
        # Compared as plain values: not every combination of sizes and patch is valid.
        free = {key: preset.as_dict()[key] for key in ("patch", "head", "branches")}
        if config.as_dict() | free == preset.as_dict():
            return name
    return "own"


def require_batch(config: NetworkConfig, *, chip_size: int, batch_size: int, n_chips: int) -> None:
    """Check that batch norm gets more than one value per channel, which it needs in training.

    A step of a single chip gives one value if the pyramid pools the whole chip into one cell.

    Args:
        config: configuration of the network.
        chip_size: side of a chip in pixels.
        batch_size: chips in a step.
        n_chips: chips in an epoch.

    Raises:
        UsageError: a step would consist of one such chip.
    """
    side = min((*config.pool_sizes, chip_size // config.multiple))
    if side > 1 or min(batch_size, n_chips) > 1:
        return
    what, option = f"`batch_size` {batch_size}", "`batch_size`"
    if batch_size > 1:
        what, option = f"{n_chips} chip in an epoch", "`chips_per_epoch`"
    raise UsageError(
        f"{what}: the network pools a chip of {chip_size} pixels into one cell, and its norms need "
        f"two values at least; give {option} of 2 or more"
    )
