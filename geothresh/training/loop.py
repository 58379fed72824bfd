"""The training loop (paper, section 4.2): read it from the top."""

from __future__ import annotations

import copy
import csv
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from geothresh._version import __version__
from geothresh.errors import ModelError, OutputError
from geothresh.files import replacing
from geothresh.nn import optimizers
from geothresh.nn.checkpoint import load_weights, read_card, save_model
from geothresh.nn.config import NetworkConfig
from geothresh.nn.device import pick_device, pick_dtype
from geothresh.nn.losses import threshnet_loss
from geothresh.nn.modelfile import beside
from geothresh.nn.network import ThreshNet, memory_layout
from geothresh.training.chips import ChipDataset
from geothresh.training.prefetch import prefetched
from geothresh.training.recipe import Recipe
from geothresh.training.sizes import require_batch
from geothresh.training.sources import ChipSource, ValidationMap
from geothresh.training.state import Progress, SavedRun, save_state
from geothresh.training.validation import validate

#: Called after each step with epoch (from 1), step within it, steps of an epoch, and the loss.
OnStep = Callable[[int, int, int, float], None]
#: Called after each epoch with its row of the log.
OnEpoch = Callable[[Mapping[str, float]], None]

#: Within an epoch the state is written when so many seconds have passed since the last time.
STATE_SECONDS = 120.0


def fit(
    train: Sequence[ChipSource],
    validation: Sequence[ValidationMap],
    *,
    config: NetworkConfig,
    recipe: Recipe,
    output: Path,
    facts: Mapping[str, Any],
    init: Path | None = None,
    state: Path | None = None,
    device: str = "auto",
    loader_workers: int = 0,
    on_begin: Callable[[], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Progress:
    """Train a network; after each epoch write the model, its log and the state to go on from.

    The state is also written before the first step, and within an epoch when `STATE_SECONDS` have
    passed since the last time.

    Args:
        train: maps to learn from.
        validation: maps to score after each epoch, of other places.
        config: sizes of the network.
        recipe: hyperparameters.
        output: the model file, best epoch so far; ``.last``, ``.state`` and ``.csv`` stand beside.
        facts: what the model file and the state say of the data; a resumed run must agree.
        init: model file of the same sizes to start from.
        state: go on from this one, which `find_state` has found.
        device: auto, cpu, cuda, cuda:i or mps.
        loader_workers: processes that prepare chips; 0 = this one.
        on_begin: called when the state fits, or the first one is on the disk.
        on_step, on_epoch: progress.

    Raises:
        ModelError: the state or the initial model does not fit, or the loss or a weight is not
            finite.
        OutputError: a file cannot be written.
        UsageError, InputError: the device or the precision is not there.
    """
    place = pick_device(device)
    dtype = pick_dtype(recipe.precision, place)
    if dtype == torch.float16:
        # What auto gives on GPUs without bf16: small gradients would vanish in it.
        dtype = torch.float32
    torch.manual_seed(recipe.seed)
    network = ThreshNet(config, dropout=recipe.dropout)
    network.to(place, memory_format=memory_layout(config))  # type: ignore[call-overload]
    if init is not None:
        if read_card(init).config != config:
            raise ModelError(f"{init}: a network of other sizes; name one of the same preset")
        network.load_state_dict(load_weights(init, config))
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=recipe.patience, min_lr=recipe.min_learning_rate
    )
    run = {"recipe": recipe.as_dict(), **facts}
    progress, rows = Progress(), []
    if state is not None:
        saved = SavedRun.read(state)
        saved.require_same(config, run)
        saved.restore(network=network, average=average, optimizer=optimizer)
        plateau.load_state_dict(saved.schedule)
        progress, rows = saved.progress, saved.rows

    chips = ChipDataset(train, recipe, patch=config.patch)
    require_batch(
        config, chip_size=recipe.chip_size, batch_size=recipe.batch_size, n_chips=len(chips)
    )
    positions = batches_of(len(chips), recipe.batch_size)
    n_steps = len(positions)
    log = EpochLog(beside(output, ".csv"), rows)

    def is_over() -> bool:
        return progress.epoch >= recipe.epochs or _exhausted(recipe, progress)

    def keep_state() -> None:
        save_state(
            beside(output, ".state.safetensors"),
            network=network,
            average=average,
            optimizer=optimizer,
            progress=progress,
            rows=log.rows,
            config=config,
            run=run,
            schedule=plateau.state_dict(),
            finished=is_over(),
        )

    if state is None:
        # Before the first step too: a run that can be gone on with is told from files of others.
        keep_state()
    if on_begin is not None:
        on_begin()
    clock = kept = time.perf_counter()
    while not is_over():
        epoch = progress.epoch + 1
        chips.set_epoch(epoch)
        network.train()
        for batch in _batches(chips, positions[progress.batch :], loader_workers):
            # What is left out by dropout depends on seed and step alone, as the chips do.
            torch.manual_seed(1_000_003 * (progress.step + 1) + recipe.seed)
            if recipe.schedule == "cosine":
                optimizers.set_rate(
                    optimizer, cosine_rate(recipe, progress.step, n_steps * recipe.epochs)
                )
            losses = _step(network, optimizer, batch, recipe, dtype)
            progress.step += 1
            progress.batch += 1
            _follow(average, network, decay=_decay(recipe, progress.step))
            for name, value in losses.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value * len(batch[0])
            if not math.isfinite(losses["total"]):
                raise _diverged(f"the loss is {losses['total']}", progress)
            clock, before = time.perf_counter(), clock
            progress.seconds += clock - before
            if clock - kept >= STATE_SECONDS and progress.batch < n_steps:
                keep_state()
                kept = time.perf_counter()
            if on_step is not None:
                on_step(epoch, progress.batch, n_steps, losses["total"])
        # The loss of a step is of the weights before it: what the last one did is seen here.
        tensors = average.state_dict()
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise _diverged("the weights are not finite", progress)
        # Sums over chips, not means of batch means: the last batch is smaller.
        row = {f"train_{name}": value / len(chips) for name, value in progress.sums.items()}
        rate = optimizer.param_groups[0]["lr"]
        scores = validate(average, validation, dtype=dtype)
        progress.epoch, progress.batch, progress.sums = epoch, 0, {}
        clock, before = time.perf_counter(), clock
        progress.seconds += clock - before
        if recipe.schedule == "plateau":
            plateau.step(row["train_total"])
        _count(progress, row["train_total"])

        score = (scores["miou"] + scores["boundary_iou"]) / 2
        # Nothing of the clock: a run that was stopped leaves the same bytes as one that was not.
        card = {
            **run,
            "geothresh": __version__,
            "torch": torch.__version__,
            "epoch": epoch,
            "steps": progress.step,
            "validation": scores,
        }
        save_model(
            beside(output, ".last.safetensors"), tensors=tensors, config=config, training=card
        )
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, epoch
            save_model(output, tensors=tensors, config=config, training=card)
        row = {"epoch": epoch, "seconds": progress.seconds, "learning_rate": rate, **row, **scores}
        log.append(row)
        # Last: whoever goes on from the state before it makes all of these anew, the same.
        keep_state()
        kept = time.perf_counter()
        if on_epoch is not None:
            on_epoch(row)
    return progress


def _step(
    network: ThreshNet,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[torch.Tensor],
    recipe: Recipe,
    dtype: torch.dtype,
) -> dict[str, float]:
    device = next(network.parameters()).device
    whole = bool(batch[3].all())
    confidence, region_target, truth, valid = (part.to(device, non_blocking=True) for part in batch)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = network(confidence.contiguous(memory_format=memory_layout(network.config)))
    losses = threshnet_loss(
        logits=logits,
        region_target=region_target,
        truth=truth,
        # Where every pixel counts, as in folders of maps, the losses take half the time.
        valid=None if whole else valid,
        weights=recipe.loss,
    )
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def batches_of(n_chips: int, batch_size: int) -> list[range]:
    """Positions of the chips of each step of an epoch; the last step may have fewer, or one more:
    a chip left over alone, over which batch norm has no statistics, joins the step before."""
    batches = [range(k, min(k + batch_size, n_chips)) for k in range(0, n_chips, batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [range(batches[-2].start, n_chips)]
    return batches


def _batches(
    chips: ChipDataset, positions: Sequence[range], workers: int
) -> Iterable[list[torch.Tensor]]:
    # The chips are drawn at random already: in their order, so that it is the same everywhere.
    batches = DataLoader(chips, batch_sampler=[list(p) for p in positions], num_workers=workers)
    if not workers:
        return prefetched(batches)
    with _signals_held():
        return iter(batches)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let signals that end a run wait; processes that are begun meanwhile never hear them.

    Ctrl-C goes to a whole group of processes, and one voice is enough: workers end with the run.
    Nor is what a handler raises lost in a callback at a fork, where Python ignores it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cosine_rate(recipe: Recipe, step: int, n_steps: int) -> float:
    """Learning rate of a step (from 0) by the recipe's cosine schedule."""
    return optimizers.cosine_rate(
        step, n_steps, highest=recipe.learning_rate, least=recipe.min_learning_rate
    )


def _decay(recipe: Recipe, step: int) -> float:
    # Early on the average is short, or the random start would stay in it for long.
    return min(recipe.ema, (1 + step) / (10 + step))


@torch.no_grad()
def _follow(average: ThreshNet, network: ThreshNet, *, decay: float) -> None:
    """Move the average towards the network, statistics of the norms included."""
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _diverged(what: str, progress: Progress) -> ModelError:
    kept = "the last whole epoch is kept: " if progress.epoch else ""
    return ModelError(
        f"{what} in epoch {progress.epoch + 1}, step {progress.batch}; {kept}lower "
        "--learning-rate and start anew"
    )


def _count(progress: Progress, loss: float) -> None:
    if loss < progress.least_loss:
        progress.least_loss, progress.epochs_without_gain = loss, 0
    else:
        progress.epochs_without_gain += 1


def _exhausted(recipe: Recipe, progress: Progress) -> bool:
    return recipe.schedule == "plateau" and progress.epochs_without_gain >= recipe.stop_patience


class EpochLog:
    """One line of CSV per epoch; the state has the rows too, so a lost file is written anew."""

    def __init__(self, path: Path, rows: list[dict[str, str]]) -> None:
        self.path = path
        self.rows = list(rows)

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row and write the file anew, whole or not at all."""
        self.rows.append(
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
        )
        with replacing(self.path) as temporary:
            try:
                with temporary.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, fieldnames=list(self.rows[-1]))
                    writer.writeheader()
                    writer.writerows(self.rows)
            except OSError as error:
                raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
