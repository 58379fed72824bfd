"""Model files of ThreshNet: the metadata holds the network's config and its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import THRESHNET, digest, read_metadata, read_tensors, write_model

__all__ = ["ModelCard", "digest", "load_weights", "read_card", "save_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Metadata of a model file: config of the network, and how it was trained."""

    config: NetworkConfig
    """Sizes of the network."""
    training: dict[str, Any]
    """How it was trained: recipe, data digest, epoch, metrics, version; JSON types."""


def read_card(path: str | Path) -> ModelCard:
    """The card of a model file, without its weights and without torch.

    Raises:
        ModelError: the file is missing, unreadable, damaged or not a ThreshNet of geothresh.
    """
    entries = read_metadata(path, THRESHNET, ("config", "training"))
    return ModelCard(
        config=NetworkConfig.from_dict(entries["config"]), training=entries["training"]
    )


def load_weights(path: str | Path, config: NetworkConfig) -> dict[str, Any]:
    """The tensors of a ThreshNet of this size, fp32, checked one by one.

    Args:
        path: a model file whose card was read.
        config: the sizes that its card gives.

    Raises:
        ModelError: a tensor is missing, superfluous, of another shape, or not finite.
    """
    import torch

    from geothresh.nn.network import ThreshNet

    with torch.device("meta"):
        expected = ThreshNet(config).state_dict()
    return read_tensors(path, expected)


def save_model(
    path: str | Path,
    *,
    tensors: Mapping[str, Any],
    config: NetworkConfig,
    training: Mapping[str, Any],
) -> None:
    """Write a model file; it appears complete or not at all.

    Args:
        path: replaced if it exists.
        tensors: name -> torch tensor.
        config: sizes of the network.
        training: JSON types; NaN is written as null.

    Raises:
        OutputError: the file cannot be written.
    """
    entries = {"config": config.as_dict(), "training": dict(training)}
    write_model(path, THRESHNET, tensors=tensors, entries=entries)
