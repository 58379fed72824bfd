"""A base network as the engine and the commands see it: images in, confidences out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geothresh.base.checkpoint import BaseCard, load_base_weights, read_base_card
from geothresh.base.config import STRIDE, BaseConfig
from geothresh.base.loop import normalised
from geothresh.base.networks import build_network
from geothresh.nn.modelfile import digest
from geothresh.nn.refiner import Precision, on_compute_thread, pick_device, pick_dtype

Float32Array = NDArray[np.float32]


class BasePredictor:
    """Confidences of a base network; runs on the one compute thread of the process."""

    patch = STRIDE

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        config: BaseConfig,
        *,
        name: str = "unnamed",
        sha256: str = "",
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.name = name
        self.digest = sha256
        self.config = config
        self.device = pick_device(device)
        self.dtype = pick_dtype(precision, self.device)
        self.network = on_compute_thread(self._network, weights)

    def _network(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        # Not on the meta device: some encoders keep constants that are not among the weights.
        network = build_network(self.config)
        network.load_state_dict(weights)
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)

    def image(self, image: NDArray[np.uint8]) -> Float32Array:
        """The confidence (H, W) in [0, 1] of an image (H, W, 3), in one pass of the network.

        Sides that are no multiple of 32 are mirrored outwards on the way.
        """
        height, width = image.shape[:2]
        rows, cols = -height % STRIDE, -width % STRIDE
        padded = np.pad(image, ((0, rows), (0, cols), (0, 0)), mode="symmetric")
        batch = padded[None].astype(np.float32) / np.float32(255)
        return on_compute_thread(self._forward, batch)[0, :height, :width]

    def _forward(self, images: Float32Array) -> Float32Array:
        """Images (B, H, W, 3) in [0, 1] to confidences (B, H, W)."""
        batch = normalised(images, self.config).to(self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32),
        ):
            logits = self.network(batch)[:, 0].float()
        return np.asarray(torch.sigmoid(logits).cpu().numpy())


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBase:
    """A base network that is ready, with what its file says."""

    predictor: BasePredictor
    card: BaseCard


def load_base(
    path: str | Path, *, device: str = "auto", precision: Precision = "auto"
) -> LoadedBase:
    """Load a base network from its file.

    Raises:
        ModelError: it is missing, damaged or no base network.
        UsageError, InputError: the library or the device is not there.
    """
    path = Path(path)
    card = read_base_card(path)
    predictor = BasePredictor(
        load_base_weights(path, card.config),
        card.config,
        name=path.name.removesuffix(".safetensors"),
        sha256=digest(path),
        device=device,
        precision=precision,
    )
    return LoadedBase(predictor=predictor, card=card)
