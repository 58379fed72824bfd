"""Base networks as a task of the training loop: crops, loss, snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geothresh._version import __version__
from geothresh.base.checkpoint import save_base_model
from geothresh.base.config import BaseConfig, BasePlan
from geothresh.base.crops import Crops
from geothresh.base.networks import build_network
from geothresh.base.pretrained import NONE, weights_name
from geothresh.nn.modelfile import BASE, beside
from geothresh.raster.image_pairs import ImagePair
from geothresh.training.loop import Task, cosine_rate, prefetched, training_place
from geothresh.training.state import Progress
from geothresh.types import Float32Array

Batch = tuple[Tensor, Tensor]
"""Images as the network wants them, and masks (B, H, W), 0 or 1."""


class BaseTask(Task):
    """A base network, trained in one epoch of as many steps as its recipe says, without a score."""

    kind = BASE
    # The model is there when nothing is left to be done, and needs no state.
    keeps_state = False

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
            output: the model file; snapshots, ``.stepNNNNN``, stand beside it.
            config: of the network.
            plan: how it is trained.
            data: what the model file says of the data, with the ids under ``train``; a resumed run
                must agree.
            device: auto, cpu, cuda, cuda:i or mps.
            resumed: the weights come from a state.

        Raises:
            UsageError, InputError: the device, the encoder or its weights are not there.
        """
        recipe = plan.recipe_for(len(pairs))
        place, dtype = training_place(device, recipe.precision)
        torch.manual_seed(recipe.seed)
        network = build_network(config, NONE if resumed else plan.encoder_weights)
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
        """After all steps."""
        return progress.epoch > 0

    def batches(self, epoch: int, first: int) -> Iterable[tuple[Batch, int]]:
        """Crops by the number of the step."""
        return prefetched(self._batch(step) for step in range(first, self.steps))

    def _batch(self, step: int) -> tuple[Batch, int]:
        images, masks = self._crops.batch(step)
        return (normalised(images, self._config), torch.from_numpy(masks)), len(images)

    def seed(self, step: int) -> int:
        """Of dropout."""
        return self.recipe.seed * 1_000_003 + step

    def rate(self, step: int) -> float | None:
        """Along half a cosine."""
        return cosine_rate(step, self.steps, highest=self.recipe.learning_rate)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy plus Dice."""
        images, masks = batch
        with self.autocast():
            logits = self.network(images.to(self.device, non_blocking=True))
        return {"total": segmentation_loss(logits[:, 0].float(), masks.to(self.device))}

    def after_step(self, progress: Progress) -> None:
        """Write a snapshot where one is due."""
        if progress.step in self._marks:
            # The loss is of the weights before the step.
            self.require_finite(progress)
            self._save(snapshot_file(self.output, progress.step), progress)

    def after_epoch(
        self, progress: Progress, losses: Mapping[str, float], scores: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the model."""
        self._save(self.output, progress)
        return losses

    def _save(self, path: Path, progress: Progress) -> None:
        # Nothing of the clock: a run that was stopped leaves the same bytes as one that was not.
        made = {"geothresh": __version__, "torch": torch.__version__, "step": progress.step}
        save_base_model(
            path,
            tensors=self.network.state_dict(),
            config=self._config,
            training={**self.told, **made},
        )


def normalised(images: Float32Array, config: BaseConfig) -> Tensor:
    """Images (B, H, W, 3) in [0, 1] as the network wants them: (B, 3, H, W), channels last."""
    mean, std = (np.array(part, np.float32) for part in (config.mean, config.std))
    values = (images - mean) / std
    # Permuted, not copied: memory stays in the order of channels_last.
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def segmentation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy plus 1 - Dice over the batch; both (B, H, W), truth 0 or 1."""
    share = torch.sigmoid(logits)
    common, size = (share * truth).sum(), share.sum() + truth.sum()
    # 1: of two empty masks, the Dice coefficient is 1, and its gradient finite.
    dice = (2 * common + 1) / (size + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth) + 1 - dice


def snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """The steps after which snapshots are kept: evenly spread, without the last."""
    marks = {round(steps * k / (snapshots + 1)) for k in range(1, snapshots + 1)}
    return sorted(marks - {0, steps})


def snapshot_file(output: Path, step: int) -> Path:
    """The model file of a snapshot."""
    return beside(output, f".step{step:05}.safetensors")
