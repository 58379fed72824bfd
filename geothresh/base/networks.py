"""Build base networks, and read their files.

The networks are those of segmentation-models-pytorch, D-LinkNet, and those of this package. Each
takes images (B, 3, H, W), H and W multiples of 32, and returns logits (B, 1, H, W). In training it
may return (B, N, H, W), of which the first map is the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from geothresh.base.config import OWN, BaseConfig, default_encoder
from geothresh.base.fcn import FCN8s
from geothresh.base.pretrained import NONE, encoder_tensors, normalisation, segmentation_models
from geothresh.base.resunet import ResUNet, ResUNetPlusPlus
from geothresh.base.saliency import PFAN, RFCN
from geothresh.errors import ModelError, UsageError
from geothresh.nn.modelfile import BASE, naming, read_metadata, read_tensors

_CLASSES = {
    "unet": "Unet",
    "deeplabv3plus": "DeepLabV3Plus",
    "pspnet": "PSPNet",
    "linknet": "Linknet",
    "dlinknet": "Linknet",
}
# The networks of this package: those without and those with a separate encoder.
_WITHOUT_ENCODER = {"resunet": ResUNet, "resunetpp": ResUNetPlusPlus}
_ON_ENCODER = {"fcn8s": FCN8s, "rfcn": RFCN, "pfan": PFAN}
_DILATIONS = (1, 2, 4, 8)
# Sides of the image that a network to be trained is tried with: small, and not square.
_ANY_SIZE = (64, 96)
# torch's default for batch norms.
_MOMENTUM = 0.1


class DilatedCentre(nn.Module):
    """The centre of D-LinkNet (Zhou, Zhang and Wu, CVPR Workshops 2018).

    3 x 3 convolutions of growing dilation in sequence; the input and all outputs are added up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, dilation=d, padding=d) for d in _DILATIONS
        )
        for convolution in self.convolutions:
            bias = cast(nn.Conv2d, convolution).bias
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to the same shape."""
        total = features
        for convolution in self.convolutions:
            features = functional.relu(convolution(features))
            total = total + features
        return total


class CentredDecoder(nn.Module):
    """A decoder with a centre between it and the encoder's last features."""

    def __init__(self, centre: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.centre = centre
        self.decoder = decoder

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of the encoder, from fine to coarse, to the output of the decoder."""
        return cast(Tensor, self.decoder([*features[:-1], self.centre(features[-1])]))


def describe_network(network: str, encoder: str | None = None, weights: str = NONE) -> BaseConfig:
    """Make the configuration of a network, with the normalisation of its encoder's weights.

    Args:
        network: one of `NETWORKS`.
        encoder: name of an encoder; None = the default of the network.
        weights: ``none``, ``imagenet`` or a file, see `geothresh.base.pretrained`.

    Raises:
        UsageError: the library is not installed, or the encoder or its weights do not exist.
        InputError: the weights cannot be fetched, or their file does not exist.
    """
    if encoder is None:
        encoder = default_encoder(network)
    config = BaseConfig(network=network, encoder=encoder)
    if encoder == OWN:
        if weights != NONE:
            raise UsageError(
                f"{network} has no encoder that weights could be loaded into; say "
                "`encoder_weights=none`, or choose another network"
            )
        return config
    encoders = segmentation_models().encoders
    if not encoder.startswith("tu-") and encoder not in encoders.encoders:
        near = [name for name in sorted(encoders.encoders) if name[:3] == encoder[:3]]
        raise UsageError(
            f"encoder {encoder!r} is unknown; segmentation-models-pytorch "
            f"{segmentation_models().__version__} has {len(encoders.encoders)}, such as "
            f"{', '.join(near[:6] or ['resnet18', 'mobilenet_v2', 'efficientnet-b0'])}, and those "
            "of timm with the prefix tu-"
        )
    return normalisation(config, weights)


def build_network(config: BaseConfig, weights: str = NONE) -> nn.Module:
    """Build a network.

    Args:
        config: configuration of the network.
        weights: weights of the encoder: ``none``, ``imagenet`` or a file.

    Raises:
        UsageError: the encoder does not exist, or does not suit the network.
        InputError: the weights cannot be fetched, or their file does not exist.
        ModelError: the file of weights is of another network.
    """
    if config.encoder == OWN:
        network: nn.Module = _WITHOUT_ENCODER[config.network]()
    else:
        network = _on_encoder(config, weights)
    # At least torch's default momentum: encoders ported from TensorFlow average statistics over a
    # hundred steps and more, which lag behind the weights in a training of a few hundred steps.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, _MOMENTUM)
    return network


def _on_encoder(config: BaseConfig, weights: str) -> nn.Module:
    library = segmentation_models()
    # Fetched separately, to distinguish errors of the connection from those of building.
    pretrained = encoder_tensors(config, weights)
    try:
        if config.network in _ON_ENCODER:
            encoder = library.encoders.get_encoder(config.encoder, depth=5, weights=None)
            channels = _sound(config, encoder.out_channels)
        else:
            make = getattr(library, _CLASSES[config.network])
            whole: Any = make(config.encoder, encoder_weights=None)
            encoder = whole.encoder
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _unsuitable(config, error) from error
    if pretrained is not None:
        # PSPNet's encoder is shallower and has only some of these tensors.
        encoder.load_state_dict({k: pretrained[k] for k in encoder.state_dict()})
    if config.network in _ON_ENCODER:
        network: nn.Module = _ON_ENCODER[config.network](encoder, channels)
        return network
    if config.network == "dlinknet":
        centre = DilatedCentre(_sound(config, encoder.out_channels)[-1])
        whole.decoder = CentredDecoder(centre, whole.decoder)
    return cast(nn.Module, whole)


def require_any_size(network: nn.Module, config: BaseConfig) -> None:
    """Raise UsageError if a network, on the CPU, does not read images of any size.

    Some encoders take images of one size only, others fail in the first pass. No random number is
    drawn, and no statistics change.
    """
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, *_ANY_SIZE))
    except Exception as error:  # encoders fail in many ways, also by assertions
        raise _unsuitable(config, error) from error
    finally:
        network.train()


def _unsuitable(config: BaseConfig, error: Exception) -> UsageError:
    """The error of an encoder that does not suit its network."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UsageError(
        f"{config.network} cannot be built on encoder {config.encoder!r} ({reason}); choose "
        "another encoder"
    )


def _sound(config: BaseConfig, channels: Sequence[int]) -> Sequence[int]:
    if len(channels) < 6 or 0 in channels[-3:]:
        raise UsageError(
            f"{config.network} needs features at 1/8, 1/16 and 1/32 of the image, which encoder "
            f"{config.encoder!r} does not give; choose another encoder"
        )
    return channels


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseCard:
    """Metadata of the file of a base network."""

    config: BaseConfig
    """Architecture and normalisation of images."""
    training: dict[str, Any]
    """How it was trained: recipe, digest of the data, ids trained on, step, version; JSON types."""

    @property
    def trained_ids(self) -> frozenset[str]:
        """Ids of the images that it was trained on."""
        return frozenset(self.training["data"]["train"])


def read_base_card(path: str | Path) -> BaseCard:
    """Read the card of a base network, without its weights.

    Raises:
        ModelError: the file is missing, unreadable, damaged or no base network of geothresh.
    """
    entries = read_metadata(path, BASE)
    training = entries["training"]
    try:
        frozenset(training["data"]["train"])
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: does not say what it was trained on ({error!r}); train it again"
        ) from error
    with naming(path):
        config = BaseConfig.from_dict(entries["config"])
    return BaseCard(config=config, training=training)


def load_base_weights(path: str | Path, config: BaseConfig) -> dict[str, Any]:
    """Read the tensors of a base network, and check each.

    Args:
        path: a file whose card was read.
        config: the configuration in that card.

    Raises:
        ModelError: a tensor is missing, superfluous, of another shape, or not finite.
        UsageError: segmentation-models-pytorch is not installed, or lacks the encoder.
    """
    with torch.device("meta"):
        expected = build_network(config).state_dict()
    return read_tensors(path, expected)
