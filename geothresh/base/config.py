"""Define the options of base networks: architecture, hyperparameters, data."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from geothresh.errors import ModelError, UsageError
from geothresh.fields import (
    AMOUNT,
    COUNT,
    FLAG,
    SEED,
    Choice,
    Number,
    Options,
    Several,
    Text,
    check,
    option,
)
from geothresh.options import LayoutOption, PathLike, layout_option, resize_option

#: The networks, by their names on the command line.
NETWORKS = (
    "linknet", "dlinknet", "unet", "deeplabv3plus", "pspnet", "fcn8s", "resunet", "resunetpp",
    "rfcn", "pfan",
)  # fmt: skip
#: Takes the place of an encoder's name for networks without a separate encoder.
OWN = "own"
#: Networks without a separate encoder, and those for VGG encoders.
_OF_ONE_PIECE = ("resunet", "resunetpp")
_ON_VGG = ("rfcn", "pfan")
#: Sides of a network's input are multiples of this many pixels: encoders halve it five times.
STRIDE = 32

# Mean and standard deviation of ImageNet's images, which most pretrained encoders expect.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """Architecture of a base network; stored in its model file, from which it is built again."""

    network: str = "linknet"
    """One of `NETWORKS`."""
    encoder: str = "resnet18"
    """Name of an encoder of segmentation-models-pytorch, or ``own``."""
    mean: tuple[float, float, float] = _MEAN
    """Mean that is subtracted from red, green and blue in [0, 1]."""
    std: tuple[float, float, float] = _STD
    """Standard deviation by which these differences are divided."""

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise UsageError(
                f"base network {self.network!r} is unknown; there are {', '.join(NETWORKS)}"
            )
        # timm would fetch a network named like hf-hub:OWNER/NAME, and model files are not trusted.
        if not re.fullmatch(r"[\w.-]+", self.encoder):
            raise UsageError(
                f"encoder {self.encoder!r} is no name of letters, digits and . _ -; give one of "
                "segmentation-models-pytorch"
            )
        if (self.network in _OF_ONE_PIECE) != (self.encoder == OWN):
            raise UsageError(
                f"{self.network} is of one piece and takes no encoder; leave `encoder` out"
                if self.network in _OF_ONE_PIECE
                else f"{self.network} wants an encoder of segmentation-models-pytorch; name one"
            )
        if self.network in _ON_VGG and not self.encoder.startswith("vgg"):
            raise UsageError(
                f"{self.network} is made for encoders of the VGG kind, and {self.encoder!r} is "
                "none; give vgg16_bn or vgg16"
            )

    @property
    def name(self) -> str:
        """Network and encoder, as used in folder names: ``linknet-resnet18``, ``resunet``."""
        return self.network if self.encoder == OWN else f"{self.network}-{self.encoder}"

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BaseConfig:
        """Rebuild from `as_dict`.

        Raises:
            ModelError: an entry is missing, unknown or of another type.
        """
        try:
            return cls(
                network=str(values["network"]),
                encoder=str(values["encoder"]),
                mean=_three(values["mean"]),
                std=_three(values["std"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
            raise ModelError(
                f"the configuration of the base network is garbled ({error}); train it again"
            ) from error


def default_encoder(network: str) -> str:
    """Name of the default encoder of a network.

    For the networks on VGG it is VGG-16 with batch norms. The papers use it without, but from
    random weights, the default here, VGG-16 without batch norms learns next to nothing.
    """
    if network in _OF_ONE_PIECE:
        return OWN
    return "vgg16_bn" if network in _ON_VGG else "resnet18"


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecipe(Options):
    """Hyperparameters of base networks."""

    steps: int = option(2000, "Optimiser steps.", COUNT)
    crop_size: int = option(
        256,
        "Side of a crop in pixels, a multiple of 32; smaller images are padded by mirroring.",
        COUNT,
    )
    batch_size: int = option(8, "Crops in a step.", Number(whole=True, least=2))
    """Batch norms need at least 2."""
    learning_rate: float = option(
        5e-4, "Highest learning rate of AdamW.", Number(least=0, above=True)
    )
    """The rate rises over a twentieth of the steps, then falls along half a cosine to 0."""
    weight_decay: float = option(1e-2, "Weight decay of AdamW.", AMOUNT)
    jitter: float = option(
        0.2,
        "Range of random changes of contrast and brightness.",
        Number(least=0, most=1, below=True),
    )
    """Contrast is multiplied by 1 - jitter to 1 + jitter, and up to half of jitter is added to or
    subtracted from the brightness."""
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "Number format inside the network.", Choice(("auto", "fp32", "bf16"))
    )
    seed: int = option(0, "Seed of all random numbers.", SEED)

    def __post_init__(self) -> None:
        check(self)
        if self.crop_size % STRIDE:
            raise UsageError(f"`crop_size` {self.crop_size}: give a multiple of {STRIDE}")

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return asdict(self)

    def with_epochs(self, epochs: int, images: int) -> BaseRecipe:
        """Return the recipe with the steps of `epochs` passes over a number of images."""
        return replace(self, steps=max(1, math.ceil(epochs * images / self.batch_size)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData(Options):
    """Images and masks in folders, paired by id; see `geothresh.raster.image_pairs`."""

    folders: Sequence[PathLike]
    skip_unpaired: bool = option(False, "Leave out images and masks without a partner.", FLAG)
    layout: LayoutOption = layout_option()
    resize: int | None = resize_option()
    place_pattern: str | None = option(
        None,
        "Pattern whose first group names the place of an id, such as '^(.*)_[0-9]+$'.",
        Text(),
        metavar="REGEX",
    )

    @classmethod
    def of(cls, data: ImageData | str | Path | Sequence[str | Path]) -> ImageData:
        """Make it of paths of folders; an `ImageData` is returned as it is."""
        if isinstance(data, ImageData):
            return data
        return cls(folders=[data] if isinstance(data, str | Path) else list(data))

    @property
    def described(self) -> dict[str, int]:
        """Entry ``resize`` of a manifest, if images are resized."""
        return {} if self.resize is None else {"resize": self.resize}


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePlan(Options):
    """The base network to train, and its training."""

    network: str = option(
        "linknet", f"Architecture: {', '.join(NETWORKS)}.", Choice(NETWORKS), metavar="NAME"
    )
    encoder: str | None = option(
        None,
        "Any encoder of segmentation-models-pytorch. rfcn and pfan need a VGG, and resunet and "
        "resunetpp take none.  [default: resnet18, or vgg16_bn]",
        Text(),
        metavar="NAME",
    )
    encoder_weights: str = option(
        "none",
        "Initial weights of the encoder: random (none), ImageNet's (imagenet, downloaded), or a "
        ".safetensors file of its state dict.",
        Text(),
        metavar="none|imagenet|FILE",
    )
    recipe: BaseRecipe = field(default_factory=BaseRecipe)
    """Hyperparameters."""
    epochs: int | None = option(None, "Passes over the images, in place of --steps.", COUNT)
    snapshots: int = option(
        0,
        "Also save the network at N earlier steps; it makes further maps at no training cost.",
        Number(whole=True, least=0),
        metavar="N",
    )
    """Snapshots are ``.stepNNNNN.safetensors`` beside the final model."""

    def recipe_for(self, images: int) -> BaseRecipe:
        """Return the recipe for a number of training images."""
        return self.recipe if self.epochs is None else self.recipe.with_epochs(self.epochs, images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout(Options):
    """The places that are held out from training, named or drawn at random."""

    hold_out: Sequence[str] = option(
        (),
        "Hold out the ids that match, such as 'testing_*'; may be repeated.",
        Several(Text()),
        metavar="GLOB",
    )
    validation_fraction: float = option(
        0.0, "Share of places to hold out.", Number(least=0, most=1, below=True)
    )
    """It applies to data sets of which no id is held out by name."""
