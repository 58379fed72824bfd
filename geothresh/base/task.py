"""Train a base network as a task of the training loop: crops, loss, snapshots.

Each crop has a random generator seeded by (seed, number of the crop), so that a resumed run sees
the same crops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geothresh._version import __version__
from geothresh.base.config import BaseConfig, BasePlan, BaseRecipe, ImageData
from geothresh.base.networks import build_network, require_any_size
from geothresh.base.pretrained import NONE, weights_name
from geothresh.nn.modelfile import BASE, beside, save_model
from geothresh.raster.image_pairs import ImagePair, find_images
from geothresh.training.chips import ArrayCache, in_passes, pad_to, random_window, turned
from geothresh.training.loop import Task, cosine_rate, prefetched, training_place
from geothresh.training.state import Progress
from geothresh.types import Float32Array

Batch = tuple[Tensor, Tensor]
"""Normalised images (B, 3, H, W), and masks (B, H, W), 0 or 1."""

#: Decoded images are kept in memory up to this many bytes.
_CACHE_BYTES = 4 * 1024**3


class BaseTask(Task):
    """Trains a base network in one epoch with the steps of its recipe; nothing is scored."""

    kind = BASE
    # A finished run has its model and needs no state.
    keeps_state = False
    size_options = "`batch_size` or `crop_size`"

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        output: Path,
        *,
        config: BaseConfig,
        plan: BasePlan,
        data: Mapping[str, Any],
        device: str = "auto",
        resumed: bool = False,
    ) -> None:
        """Prepare training on images.

        Args:
            pairs: images to learn from.
            output: the model file; snapshots, ``.stepNNNNN``, are written beside it.
            config: configuration of the network.
            plan: network and recipe.
            data: description of the data for the model file, with the ids under ``train``; a
                resumed run must have the same.
            device: auto, cpu, cuda, cuda:i or mps.
            resumed: whether the weights come from a state.

        Raises:
            UsageError, InputError: the device, the encoder or its weights are not available.
        """
        recipe = plan.recipe_for(len(pairs))
        place, dtype = training_place(device, recipe.precision)
        torch.manual_seed(recipe.seed)
        network = build_network(config, NONE if resumed else plan.encoder_weights)
        require_any_size(network, config)
        # torch's stubs have no memory_format beside a device.
        network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = {
            "config": config.as_dict(),
            "recipe": recipe.as_dict(),
            "data": dict(data),
            "encoder_weights": weights_name(plan.encoder_weights),
            "snapshots": plan.snapshots,
        }
        super().__init__(
            network,
            run=run,
            dtype=dtype,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        self.recipe, self.output, self._config = recipe, output, config
        self._crops = Crops(pairs, recipe)
        self._marks = set(snapshot_steps(recipe.steps, plan.snapshots))
        self.steps = recipe.steps
        self.samples = recipe.steps * recipe.batch_size

    def is_over(self, progress: Progress) -> bool:
        """Whether all steps are done."""
        return progress.epoch > 0

    def batches(self, epoch: int, first: int) -> Iterable[tuple[Batch, int]]:
        """Batches of crops for the steps of the run."""
        return prefetched(self._batch(step) for step in range(first, self.steps))

    def _batch(self, step: int) -> tuple[Batch, int]:
        images, masks = self._crops.batch(step)
        return (normalised(images, self._config), torch.from_numpy(masks)), len(images)

    def seed(self, step: int) -> int:
        """Seed of dropout."""
        return self.recipe.seed * 1_000_003 + step

    def rate(self, step: int) -> float | None:
        """Learning rate along half a cosine."""
        return cosine_rate(step, self.steps, highest=self.recipe.learning_rate)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy plus Dice, averaged over the outputs of the network."""
        images, masks = batch
        with self.autocast():
            logits = self.network(images.to(self.device, non_blocking=True))
        truth = masks.to(self.device)
        # Some networks have several outputs in training, such as those of recurrent steps.
        each = [segmentation_loss(output.float(), truth) for output in logits.unbind(1)]
        return {"total": torch.stack(each).mean()}

    def after_step(self, progress: Progress) -> None:
        """Write a snapshot if one is due after this step."""
        if progress.step in self._marks:
            # The loss is that of the weights before the step, so these are checked here.
            self.require_finite(progress)
            self._save(snapshot_file(self.output, progress.step), progress)

    def after_epoch(
        self, progress: Progress, losses: Mapping[str, float], scores: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the model."""
        self._save(self.output, progress)
        return losses

    def _save(self, path: Path, progress: Progress) -> None:
        # The card has no times: a run that was stopped and resumed must write the same bytes.
        made = {"geothresh": __version__, "torch": torch.__version__, "step": progress.step}
        save_model(
            path,
            kind=BASE,
            tensors=self.network.state_dict(),
            config=self._config,
            training={**self.told, **made},
        )


def normalised(images: Float32Array, config: BaseConfig) -> Tensor:
    """Normalise images (B, H, W, 3) in [0, 1] to (B, 3, H, W).

    The tensor is a view in channels-last memory if the images are contiguous.
    """
    mean, std = (np.array(part, np.float32) for part in (config.mean, config.std))
    values = (images - mean) / std
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def segmentation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy plus 1 - Dice over the batch; both (B, H, W), truth 0 or 1."""
    share = torch.sigmoid(logits)
    common, size = (share * truth).sum(), share.sum() + truth.sum()
    # With + 1, the Dice coefficient of two empty masks is 1, and its gradient is finite.
    dice = (2 * common + 1) / (size + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth) + 1 - dice


def snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """Steps after which snapshots are kept: evenly spread, without the last step."""
    marks = {round(steps * k / (snapshots + 1)) for k in range(1, snapshots + 1)}
    return sorted(marks - {0, steps})


def snapshot_file(output: Path, step: int) -> Path:
    """The model file of a snapshot."""
    return beside(output, f".step{step:05}.safetensors")


def images_of(data: ImageData) -> list[ImagePair]:
    """Find images and masks in folders; raises as `find_images` does."""
    return find_images(
        data.folders, skip_unpaired=data.skip_unpaired, layout=data.layout, resize=data.resize
    )


class Crops:
    """Batches of crops by the number of the step."""

    def __init__(self, pairs: Sequence[ImagePair], recipe: BaseRecipe) -> None:
        self.pairs = list(pairs)
        self.recipe = recipe
        self._cache = ArrayCache(_CACHE_BYTES)

    def batch(self, step: int) -> tuple[Float32Array, Float32Array]:
        """Cut the crops of a step, counted from 0.

        Returns:
            Images (B, T, T, 3) in [0, 1] and masks (B, T, T), 0 or 1.
        """
        first = step * self.recipe.batch_size
        drawn = [self._crop(first + k) for k in range(self.recipe.batch_size)]
        images, masks = zip(*drawn, strict=True)
        return np.stack(images), np.stack(masks)

    def _crop(self, number: int) -> tuple[Float32Array, Float32Array]:
        recipe, size = self.recipe, self.recipe.crop_size
        rng = np.random.default_rng([recipe.seed, number])
        pair = self.pairs[in_passes(number, len(self.pairs), (recipe.seed,))]
        image, mask = self._cache.get(pair.image, pair.read)
        window = random_window(mask.shape, size, rng)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        picture, truth = (
            turned(pad_to(array[window], size, size), turns, flip) for array in (image, mask)
        )
        contrast = np.float32(1 + rng.uniform(-recipe.jitter, recipe.jitter))
        brightness = np.float32(rng.uniform(-recipe.jitter, recipe.jitter) / 2)
        values = picture.astype(np.float32) / np.float32(255)
        mean = values.mean()
        values = np.clip((values - mean) * contrast + mean + brightness, 0, 1)
        return np.asarray(values, np.float32), truth.astype(np.float32)
