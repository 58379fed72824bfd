"""Files of base networks: the metadata rebuilds the network and says what it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.base.config import BaseConfig
from geothresh.errors import ModelError
from geothresh.nn.modelfile import BASE, read_metadata, read_tensors, write_model


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseCard:
    """What the file of a base network says of itself."""

    config: BaseConfig
    """Which network, and how it wants its images."""
    training: dict[str, Any]
    """How it was trained: recipe, digest of the data, ids trained on, step, version; JSON types."""

    @property
    def trained_ids(self) -> frozenset[str]:
        """Ids of the images that it has seen."""
        return frozenset(self.training["data"]["train"])


def read_base_card(path: str | Path) -> BaseCard:
    """The card of a base network, without its weights and without torch.

    Raises:
        ModelError: the file is missing, unreadable, damaged or no base network of geothresh.
    """
    entries = read_metadata(path, BASE, ("config", "training"))
    training = entries["training"]
    try:
        list(training["data"]["train"])
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: does not say what it was trained on ({error!r}); train it again"
        ) from error
    return BaseCard(config=BaseConfig.from_dict(entries["config"]), training=training)


def load_base_weights(path: str | Path, config: BaseConfig) -> dict[str, Any]:
    """The tensors of a base network, checked one by one.

    Args:
        path: a file whose card was read.
        config: that its card gives.

    Raises:
        ModelError: a tensor is missing, superfluous, of another shape, or not finite.
        UsageError: segmentation-models-pytorch is not installed, or knows no such encoder.
    """
    import torch

    from geothresh.base.networks import build_network

    with torch.device("meta"):
        expected = build_network(config).state_dict()
    return read_tensors(path, expected)


def save_base_model(
    path: str | Path,
    *,
    tensors: Mapping[str, Any],
    config: BaseConfig,
    training: Mapping[str, Any],
) -> None:
    """Write the file of a base network; it appears complete or not at all.

    Args:
        path: replaced if it exists.
        tensors: name -> torch tensor.
        config: which network.
        training: JSON types, with the ids trained on under ``data``, ``train``.

    Raises:
        OutputError: the file cannot be written.
    """
    entries = {"config": config.as_dict(), "training": dict(training)}
    write_model(path, BASE, tensors=tensors, entries=entries)
