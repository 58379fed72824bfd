"""What a base network is, and how it is trained: every number that the command line offers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from geothresh.errors import ModelError, UsageError

#: The networks, by the names of the command line.
NETWORKS = ("linknet", "dlinknet", "unet", "deeplabv3plus", "pspnet", "fcn8s")
#: Sides of what goes through a network are multiples of this many pixels: the encoders halve the
#: image five times.
STRIDE = 32

# Mean and standard deviation of ImageNet's images, which most pretrained encoders expect.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """All that is needed to build a base network, kept inside each checkpoint."""

    network: str = "linknet"
    """One of `NETWORKS`."""
    encoder: str = "resnet18"
    """Name of an encoder of segmentation-models-pytorch."""
    mean: tuple[float, float, float] = _MEAN
    """Subtracted from red, green and blue in [0, 1] ..."""
    std: tuple[float, float, float] = _STD
    """... which are then divided by this."""

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise UsageError(
                f"base network {self.network!r} is unknown; there are {', '.join(NETWORKS)}"
            )
        # timm takes a name like hf-hub:OWNER/NAME for a place to fetch the network from, and a
        # model file is a stranger's.
        if not re.fullmatch(r"[\w.-]+", self.encoder):
            raise UsageError(
                f"encoder {self.encoder!r} is no name of letters, digits and . _ -; give one of "
                "segmentation-models-pytorch"
            )

    @property
    def name(self) -> str:
        """Network and encoder, fit for the name of a folder: ``linknet-resnet18``."""
        return f"{self.network}-{self.encoder}"

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
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


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecipe:
    """Hyperparameters of base networks."""

    steps: int = 2000
    """Optimiser steps."""
    crop_size: int = 256
    """Side of a crop in pixels, a multiple of 32; smaller images are mirrored outwards."""
    batch_size: int = 8
    """Crops in a step, at least 2: the norms take their statistics over them."""
    learning_rate: float = 5e-4
    """Of AdamW at its highest: warm-up over a twentieth of the steps, then half a cosine to 0."""
    weight_decay: float = 1e-2
    jitter: float = 0.2
    """Most that contrast is multiplied by above or below 1, and half of it the most that is added
    to the brightness."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_size < STRIDE or self.crop_size % STRIDE:
            raise UsageError(f"crop size {self.crop_size}: give a multiple of {STRIDE}")
        if self.batch_size < 2:
            raise UsageError(f"batch size {self.batch_size}: a step needs at least 2 crops")
        # Written so that NaN, of which no comparison holds, passes nowhere.
        if self.steps < 1 or not 0 < self.learning_rate < math.inf:
            raise UsageError(
                f"{self.steps} steps at learning rate {self.learning_rate:g}: give finite numbers "
                "above 0"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(
                f"weight decay {self.weight_decay:g}: give a finite number of at least 0"
            )
        if not 0 <= self.jitter < 1:
            raise UsageError(f"jitter {self.jitter:g}: give a number of at least 0 and below 1")

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)

    def with_epochs(self, epochs: int, images: int) -> BaseRecipe:
        """The recipe with as many steps as show every image `epochs` times."""
        return replace(self, steps=max(1, math.ceil(epochs * images / self.batch_size)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """Images and masks in folders, paired by id; see `geothresh.raster.image_pairs`."""

    folders: Sequence[str | Path]
    skip_unpaired: bool = False
    """Leave out images and masks without a partner."""
    place_pattern: str | None = None
    """Regular expression whose first group names the place of an id."""

    @classmethod
    def of(cls, data: ImageData | str | Path | Sequence[str | Path]) -> ImageData:
        """From the paths of folders."""
        if isinstance(data, ImageData):
            return data
        return cls(folders=[data] if isinstance(data, str | Path) else list(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePlan:
    """A base network that is to be trained, and how."""

    network: str = "linknet"
    """One of `NETWORKS`."""
    encoder: str = "resnet18"
    """Name of an encoder of segmentation-models-pytorch."""
    encoder_weights: str = "none"
    """What the encoder starts from: "none", "imagenet", or a safetensors file of its state dict."""
    recipe: BaseRecipe = field(default_factory=BaseRecipe)
    """Hyperparameters."""
    epochs: int | None = None
    """Passes through the training images, in place of the recipe's steps."""
    snapshots: int = 0
    """Models of moments on the way that are kept, ``.stepNNNNN.safetensors`` beside the last."""

    def recipe_for(self, images: int) -> BaseRecipe:
        """The recipe for so many training images."""
        return self.recipe if self.epochs is None else self.recipe.with_epochs(self.epochs, images)
