"""Small networks with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from geothresh.base.pretrained import segmentation_models
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import save_model
from geothresh.nn.network import ThreshNet

TINY = NetworkConfig(widths=(4, 4, 6, 8), blocks=(1, 1, 1, 1), patch=64)


def network(config: NetworkConfig, seed: int = 0) -> ThreshNet:
    """A network with random weights and random norm statistics, in evaluation mode."""
    torch.manual_seed(seed)
    net = ThreshNet(config).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


def write_model(path: Path, *, patch: int = 16, **training: Any) -> Path:
    """A model file with random weights; `training` is what its card says of that."""
    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=patch)
    save_model(path, tensors=ThreshNet(config).state_dict(), config=config, training=training)
    return path


def encoder_file(path: Path, encoder: str = "resnet18") -> dict[str, torch.Tensor]:
    """Write the weights of an encoder of a base network, random ones, and return them."""
    tensors = segmentation_models().encoders.get_encoder(encoder, weights=None).state_dict()
    save_file(tensors, path)
    return dict(tensors)
