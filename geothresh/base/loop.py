"""The training loop of base networks: read it from the top."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from geothresh._version import __version__
from geothresh.base.checkpoint import save_base_model
from geothresh.base.config import BaseConfig, BaseRecipe
from geothresh.base.crops import Crops
from geothresh.base.networks import build_network
from geothresh.base.pretrained import NONE, weights_name
from geothresh.base.state import SavedRun, save_state
from geothresh.errors import ModelError
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.modelfile import beside
from geothresh.nn.optimizers import cosine_rate, set_rate
from geothresh.nn.states import forget_states
from geothresh.raster.imagery import ImagePair

#: Called after each step with the steps done, their number, and the loss.
OnStep = Callable[[int, int, float], None]

#: The state is written when so many seconds have passed since the last time.
STATE_SECONDS = 120.0


def fit(
    pairs: Sequence[ImagePair],
    *,
    config: BaseConfig,
    recipe: BaseRecipe,
    output: Path,
    data: Mapping[str, Any],
    weights: str = NONE,
    snapshots: int = 0,
    state: Path | None = None,
    device: str = "auto",
    state_seconds: float | None = None,
    on_begin: Callable[[], None] | None = None,
    on_step: OnStep | None = None,
) -> float:
    """Train a base network and write its model files: snapshots on the way, the last step's.

    Args:
        pairs: images to learn from.
        config: which network.
        recipe: hyperparameters.
        output: the model file; ``.stepNNNNN`` and ``.state`` stand beside it, the latter until
            the run is complete.
        data: what the model file says of the data, with the ids under ``train``; a resumed run
            must agree.
        weights: that the encoder starts from: ``none``, ``imagenet`` or a file.
        snapshots: models to be kept on the way.
        state: go on from this one, which `find_state` has found.
        device: auto, cpu, cuda, cuda:i or mps.
        state_seconds: time between two writings of the state; `STATE_SECONDS` if left out.
        on_begin: called when the state fits, or the first one is on the disk.
        on_step: progress.

    Returns:
        Seconds spent training, in all.

    Raises:
        ModelError: the state does not fit, or the loss or a weight is not finite.
        OutputError: a file cannot be written.
        UsageError, InputError: the device, the encoder or its weights are not there.
    """
    place = pick_device(device)
    dtype = pick_dtype(recipe.precision, place)
    if dtype == torch.float16:
        # What auto gives on GPUs without bf16: small gradients would vanish in it.
        dtype = torch.float32
    run = {
        "recipe": recipe.as_dict(),
        "data": dict(data),
        "encoder_weights": weights_name(weights),
        "snapshots": snapshots,
    }
    state_file = beside(output, ".state.safetensors")
    torch.manual_seed(recipe.seed)
    network = build_network(config, weights if state is None else NONE)
    network = network.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    done, seconds = 0, 0.0
    if state is not None:
        saved = SavedRun.read(state)
        saved.require_same(config, run)
        saved.restore(network=network, optimizer=optimizer)
        done, seconds = saved.step, saved.seconds

    def keep_state(step: int, total: float) -> None:
        save_state(
            state_file,
            network=network,
            optimizer=optimizer,
            config=config,
            run=run,
            step=step,
            seconds=total,
        )

    if state is None:
        # Before the first step too: a run that can be gone on with is told from files of others.
        keep_state(0, 0.0)
    if on_begin is not None:
        on_begin()
    pause = STATE_SECONDS if state_seconds is None else state_seconds
    kept = set(snapshot_steps(recipe.steps, snapshots))
    crops = Crops(pairs, recipe)
    started = written = time.perf_counter()
    for step in range(done, recipe.steps):
        set_rate(optimizer, cosine_rate(step, recipe.steps, highest=recipe.learning_rate))
        images, masks = crops.batch(step)
        # Dropout's noise, too, is that of the step, wherever the run began.
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        loss = _step(network, optimizer, normalised(images, config), masks, dtype)
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} in step {step + 1}; lower --learning-rate and start anew"
            )
        last = step + 1 == recipe.steps
        if last or step + 1 in kept:
            # The loss is of the weights before the step.
            _require_finite(network, step + 1)
        now = time.perf_counter()
        total = seconds + now - started
        # Nothing of the clock: a run that was stopped leaves the same bytes as one that was not.
        card = {**run, **_made(step + 1)}
        if step + 1 in kept:
            snapshot = snapshot_file(output, step + 1)
            save_base_model(snapshot, tensors=network.state_dict(), config=config, training=card)
        if last:
            save_base_model(output, tensors=network.state_dict(), config=config, training=card)
        elif now - written >= pause:
            keep_state(step + 1, total)
            written = time.perf_counter()
        if on_step is not None:
            on_step(step + 1, recipe.steps, loss)
    forget_states(state_file)
    return seconds + time.perf_counter() - started


def normalised(images: NDArray[np.float32], config: BaseConfig) -> Tensor:
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


def _step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    masks: NDArray[np.float32],
    dtype: torch.dtype,
) -> float:
    device = next(network.parameters()).device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = network(images.to(device, non_blocking=True))
    loss = segmentation_loss(logits[:, 0].float(), torch.from_numpy(masks).to(device))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def _require_finite(network: torch.nn.Module, step: int) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise ModelError(
            f"the weights are not finite after step {step}; lower --learning-rate and start anew"
        )


def _made(step: int) -> dict[str, Any]:
    return {"geothresh": __version__, "torch": torch.__version__, "step": step}


def snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """The steps after which snapshots are kept: evenly spread, without the last."""
    marks = {round(steps * k / (snapshots + 1)) for k in range(1, snapshots + 1)}
    return sorted(marks - {0, steps})


def snapshot_file(output: Path, step: int) -> Path:
    """The model file of a snapshot."""
    return beside(output, f".step{step:05}.safetensors")
