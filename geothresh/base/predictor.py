"""Run inference with a base network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geothresh.base.config import STRIDE, BaseConfig
from geothresh.base.networks import build_network, load_base_weights, read_base_card
from geothresh.base.task import normalised
from geothresh.errors import ModelError
from geothresh.mosaic import Refiner, Sink, mosaic
from geothresh.nn.device import (
    Batches,
    compute_threads,
    lost_device_reported,
    pick_device,
    pick_dtype,
)
from geothresh.nn.modelfile import digest, require_digest
from geothresh.options import BaseTiling, BatchSize, Precision
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.windows import PixelWindow, RasterSize


class BasePredictor:
    """A base network as a `Refiner` that makes confidences of images with three bands.

    It runs in evaluation mode, on the compute thread of the process.
    """

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
        batch_size: BatchSize = "auto",
        cores: int | None = None,
    ) -> None:
        self.name = name
        self.digest = sha256
        self.config = config
        self.device = pick_device(device)
        self.dtype = pick_dtype(precision, self.device)
        self._batches = Batches(batch_size, self.device)
        self._threads = compute_threads(1, cores)
        self.network = self._threads.run(self._network, weights)

    def _network(self, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
        # Not built on the meta device: some encoders keep constants that are not among the weights.
        network = build_network(self.config)
        network.load_state_dict(weights)
        # torch's stubs have no memory_format beside a device.
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)

    @property
    def batch_size(self) -> int:
        """Tiles in a forward pass: as asked for, or fewer if that did not fit into memory."""
        return self._batches.size

    def __call__(self, tiles: Float32Array) -> Float32Array:
        """Predict confidences (B, T, T) of tiles (B, 3, T, T), red, green and blue in [0, 1].

        Raises:
            ModelError: there are not three bands, T is no multiple of 32, or not even one tile
                fits in memory.
            DeviceLostError: the GPU has failed.
        """
        if tiles.ndim != 4 or tiles.shape[1] != 3 or any(s % STRIDE for s in tiles.shape[2:]):
            raise ModelError(
                f"tiles of shape {tiles.shape} do not suit a base network, which reads three bands "
                f"and sides that are multiples of {STRIDE}"
            )
        with lost_device_reported(self.device):
            return self._threads.run(self._batches.run, self._forward, tiles)

    def _forward(self, tiles: Float32Array) -> Float32Array:
        batch = normalised(tiles.transpose(0, 2, 3, 1), self.config).to(self.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32),
        ):
            logits = self.network(batch)[:, 0].float()
        return np.asarray(torch.sigmoid(logits).cpu().numpy())


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSource:
    """A small, picklable description from which any process can load a base network."""

    path: str
    """Absolute path of the model file."""
    sha256: str
    """SHA-256 of the file, which is checked when it is loaded."""
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: BatchSize = "auto"
    """Tiles per forward pass; auto: 1 on a CPU, 16 on a GPU."""

    @classmethod
    def find(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: BatchSize = "auto",
    ) -> BaseSource:
        """Look a model file up and check its card.

        Raises:
            ModelError: the file is missing, or is no base network.
        """
        path = Path(os.fspath(path))
        read_base_card(path)
        return cls(
            path=str(path.absolute()),
            sha256=digest(path),
            device=device,
            precision=precision,
            batch_size=batch_size,
        )

    @property
    def patch(self) -> int:
        """Number of pixels of which the sides of tiles must be multiples."""
        return STRIDE

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.path).stem

    def load(self, *, cores: int | None = None) -> BasePredictor:
        """Load the model onto its device.

        Args:
            cores: processor cores that it may use; by default all that torch uses.

        Raises:
            ModelError: the file changed since it was looked up, or is damaged.
            UsageError, InputError: the library or the device is not available.
        """
        require_digest(self.path, self.sha256)
        config = read_base_card(self.path).config
        return BasePredictor(
            load_base_weights(self.path, config),
            config,
            name=self.name,
            sha256=self.sha256,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            cores=cores,
        )


class PictureReader:
    """A picture (H, W, 3) in 8 bits as a `RasterReader` of three bands."""

    def __init__(self, picture: UInt8Array) -> None:
        self._picture = picture

    @property
    def size(self) -> RasterSize:
        """Extent of the picture."""
        return RasterSize(height=self._picture.shape[0], width=self._picture.shape[1])

    def read(self, window: PixelWindow) -> tuple[Float32Array, BoolArray]:
        """Read a window as (3, height, width) in [0, 1]; all of it is valid."""
        values = self._picture[window.slices()].transpose(2, 0, 1).astype(np.float32)
        values /= np.float32(255)
        return values, np.ones(values.shape[1:], np.bool_)


def predict_picture(
    predictor: Refiner,
    image: UInt8Array,
    tiling: BaseTiling = BaseTiling(),
    *,
    batch_size: int = 1,
) -> UInt8Array:
    """Predict the confidence map (H, W) of a picture (H, W, 3), as confidence x 255.

    A picture that fits into a tile goes through the network in one pass, padded by mirroring to the
    next multiple of the patch. A larger picture goes through in tiles, see `geothresh.mosaic`.
    """
    reader = PictureReader(image)
    size, patch = reader.size, predictor.patch
    longest = -(-max(size.height, size.width) // patch) * patch
    tile, overlap = tiling.tile_size, tiling.overlap
    if longest <= tile:
        tile, overlap = longest, 0
    confidence = np.empty((size.height, size.width), np.float32)

    def store(window: PixelWindow, values: Float32Array, valid: BoolArray) -> None:
        confidence[window.slices()] = values

    grid = TileGrid(size=size, tile=tile, overlap=overlap, patch=patch)
    mosaic(reader, predictor, Sink(store), grid=grid, blend=tiling.blend, batch_size=batch_size)
    return np.rint(confidence * 255).astype(np.uint8)
