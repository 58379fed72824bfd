"""Run CascadePSP by its authors' package, with a file of weights.

Cheng, Chung, Tai and Tang, "CascadePSP: toward class-agnostic and very high-resolution segmentation
via global and local refinement", CVPR 2020; package ``segmentation-refinement``.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from geothresh.errors import InputError, ModelError, UsageError
from geothresh.nn.device import full_memory_reported, is_of_device, pick_device
from geothresh.options import PathLike
from geothresh.rivals.protocol import require_image
from geothresh.types import Float32Array, UInt8Array

_INSTALL = "run: pip install segmentation-refinement"


class CascadePSP:
    """CascadePSP as a `Rival`. Its package refines masks, so it gets the cut at 0.5.

    The package takes weights only from a folder with a file ``model``, and would otherwise download
    them, which is prevented here. PyTorch reads the file with weights_only, so no code is run.
    """

    name = "CascadePSP"

    def __init__(self, weights: PathLike, *, device: str = "cpu", fast: bool = False) -> None:
        """Load the weights.

        Args:
            weights: the file ``model`` that the authors publish.
            device: auto, cpu, cuda, cuda:i or mps.
            fast: run the global step alone.

        Raises:
            UsageError: the package is not installed.
            InputError: the file of weights, or the device, does not exist.
            ModelError: the file holds other weights, or they do not fit in memory.
            DeviceLostError: the GPU has failed.
        """
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"{path}: no such file of CascadePSP's weights; fetch what its authors publish"
            )
        try:
            package: Any = importlib.import_module("segmentation_refinement")
        except ImportError as error:
            raise UsageError(
                f"CascadePSP needs a package that is not installed ({error}); {_INSTALL}"
            ) from error
        self.fast = fast
        # Chosen first, so that a device that is not there is not taken for a fault of the weights.
        place = pick_device(device)
        with (
            full_memory_reported(place, self.name),
            tempfile.TemporaryDirectory() as folder,
        ):
            (Path(folder) / "model").symlink_to(path.resolve())
            try:
                self._refiner = package.Refiner(
                    device=str(place), model_folder=folder, download_and_check_model=False
                )
            except Exception as error:  # unpickling fails in many ways
                if is_of_device(error):
                    raise
                text = " ".join(str(error).split())[:200]
                raise ModelError(
                    f"{path}: not the weights of CascadePSP ({text}); fetch what its authors "
                    "publish"
                ) from error

    def __call__(self, confidence: Float32Array, image: UInt8Array | None = None) -> Float32Array:
        """See `Rival`."""
        seen = require_image(self.name, confidence, image)
        mask = np.where(confidence >= 0.5, 255, 0).astype(np.uint8)
        found = self._refiner.refine(seen, mask, fast=self.fast)
        return np.asarray(found, np.float32) / np.float32(255)
