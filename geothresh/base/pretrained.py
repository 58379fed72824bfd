"""Import segmentation-models-pytorch, and find the initial weights of an encoder.

The library is an optional extra and slow to import, so no module imports it at its top. Weights are
random, those of ImageNet from the Hugging Face hub, or a file.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from geothresh.base.config import BaseConfig
from geothresh.errors import InputError, ModelError, UsageError
from geothresh.files import require_file
from geothresh.nn.modelfile import digest, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

_LOGGER = logging.getLogger("geothresh.base")

# Operators of torchvision's compiled library for which its Python code registers functions.
_OPERATORS = ("nms", "qnms")
_keep: list[object] = []

NONE = "none"
IMAGENET = "imagenet"
NAMED = (NONE, IMAGENET)
"""Encoder weights that are no file."""


@cache
def segmentation_models() -> ModuleType:
    """Import the module ``segmentation_models_pytorch``.

    Raises:
        UsageError: the module is not installed.
    """
    try:
        _import_torchvision()
        return importlib.import_module("segmentation_models_pytorch")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"base networks need a package that is not installed ({error.name}); "
            "run: pip install 'geothresh[base]'"
        ) from error


def _import_torchvision() -> None:
    """Import torchvision even where its compiled library cannot be loaded.

    The torchvision of PyPI is built for CUDA. With a torch for CPUs, its compiled library does not
    load. torchvision ignores that, and then fails with "operator torchvision::nms does not exist"
    when it registers a shape function for that operator. The operators are for boxes, and no
    segmentation network calls them. So their signatures are declared here without implementation,
    which is all that the import needs. If the library loads, nothing is declared.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    else:
        return
    _LOGGER.info("the compiled library of torchvision does not load; box operators are left out")
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]

    from torch import library

    operators = library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # The declarations live as long as this object.
    _keep.append(operators)
    importlib.import_module("torchvision")


def weights_name(weights: str) -> str:
    """Identity of encoder weights: ``none``, ``imagenet``, or a file's sha256.

    Raises:
        InputError: the file does not exist.
    """
    if weights in NAMED:
        return weights
    _require_weights_file(weights)
    return f"sha256:{digest(weights)}"


def normalisation(config: BaseConfig, weights: str) -> BaseConfig:
    """Set the mean and standard deviation that the encoder's weights expect in a configuration.

    Args:
        config: configuration of the network.
        weights: ``none``, ``imagenet`` (timm's encoders ask the hub), or a safetensors file of the
            encoder's state dict. For a file the library's values for the encoder are used, or
            ImageNet's if it has none.

    Raises:
        UsageError: the encoder has no such weights, or they are not for RGB images.
        InputError: the hub cannot be reached, or the file does not exist.
    """
    encoder, encoders = config.encoder, segmentation_models().encoders
    if weights == NONE:
        return config
    from_file = weights != IMAGENET
    if from_file:
        _require_weights_file(weights)
    if not encoder.startswith("tu-"):
        if from_file:
            return config
        if IMAGENET not in encoders.encoders[encoder]["pretrained_settings"]:
            raise UsageError(
                f"encoder {encoder!r} has no {IMAGENET} weights; say `encoder_weights=none`, or "
                "choose another encoder"
            )
    try:
        with _fetching(config):
            wanted = encoders.get_preprocessing_params(encoder, pretrained=IMAGENET)
    except InputError:
        if from_file:  # timm knows the encoder, but has no weights of it
            return config
        raise
    if wanted.get("input_space", "RGB") != "RGB":
        raise UsageError(
            f"the {IMAGENET} weights of encoder {encoder!r} want {wanted['input_space']} images; "
            "choose another encoder, or say `encoder_weights=none`"
        )
    most = (wanted.get("input_range") or (0, 1))[1]
    return BaseConfig.from_dict(
        {
            **config.as_dict(),
            "mean": [float(value) / most for value in wanted.get("mean") or (0, 0, 0)],
            "std": [float(value) / most for value in wanted.get("std") or (most,) * 3],
        }
    )


def encoder_tensors(config: BaseConfig, weights: str) -> dict[str, Tensor] | None:
    """Load the initial tensors of an encoder of full depth; None for random weights.

    Raises:
        InputError: the weights cannot be fetched, or the file does not exist.
        ModelError: the tensors of the file do not fit the encoder, or are not finite.
    """
    if weights == NONE:
        return None
    encoders = segmentation_models().encoders
    if weights == IMAGENET:
        kind = True if config.encoder.startswith("tu-") else weights
        with _fetching(config):
            return dict(encoders.get_encoder(config.encoder, weights=kind).state_dict())
    _require_weights_file(weights)
    expected = encoders.get_encoder(config.encoder, weights=None).state_dict()
    try:
        return read_tensors(weights, expected)
    except ModelError as error:
        raise ModelError(
            f"{error}; `encoder_weights` wants the state dict of segmentation-models-pytorch's "
            f"encoder {config.encoder!r} as safetensors"
        ) from error


def _require_weights_file(weights: str) -> None:
    if not weights.endswith(".safetensors"):
        raise UsageError(
            f"encoder weights {weights!r}: say none, imagenet, or name a .safetensors file"
        )
    require_file(weights, Path(weights))


@contextmanager
def _fetching(config: BaseConfig) -> Iterator[None]:
    """Report any exception inside as an InputError: weights cannot be fetched.

    The libraries raise many types of exceptions for connections that fail. The last exception of a
    chain says least, so the first one is shown.
    """
    try:
        yield
    except Exception as error:
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        reason = " ".join(str(first).split())[:200]
        raise InputError(
            f"the {IMAGENET} weights of encoder {config.encoder!r} cannot be fetched ({reason}); "
            "connect to the network, give a file of them, or train from scratch with "
            "`encoder_weights=none`"
        ) from error
