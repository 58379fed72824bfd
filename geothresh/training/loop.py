"""The training loop of ThreshNet and of base networks.

Data, loss, schedule and scores are defined by a `Task`: `training.threshnet` or `base.task`.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from geothresh.durability.resuming import forget_states
from geothresh.errors import ModelError
from geothresh.nn.device import full_memory_reported, pick_device, pick_dtype
from geothresh.nn.modelfile import Kind, beside
from geothresh.options import Precision
from geothresh.training.state import Progress, SavedRun, save_state

Item = TypeVar("Item")

#: Called after each step with epoch (from 1), step within it, steps of an epoch, and the loss.
OnStep = Callable[[int, int, int, float], None]
#: Called after each epoch with its row of the log.
OnEpoch = Callable[[Mapping[str, float]], None]

#: Within an epoch the state is written at intervals of this many seconds.
STATE_SECONDS = 120.0


class Task(ABC):
    """Data, loss, schedule and scores of one kind of network, for `fit`.

    Randomness depends only on the seed and the number of the step or chip, so that a run that was
    stopped resumes exactly.
    """

    kind: Kind
    """Kind of the model files."""
    steps: int
    """Steps of an epoch."""
    samples: int
    """Samples of an epoch."""
    keeps_state = True
    """Whether the state file is kept when the run is finished."""
    size_options = "`batch_size` or `chip_size`"
    """The options that decide how much memory a step takes."""

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        run: Mapping[str, Any],
        dtype: torch.dtype,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        """Prepare the steps of one network.

        Args:
            network: the network, on its device.
            run: network (``config``), ``recipe``, data and what else a run that goes on must agree
                with; JSON types.
            dtype: number format inside the network.
            learning_rate, weight_decay: parameters of AdamW.
        """
        self.network, self.run, self.dtype = network, run, dtype
        self.device = next(network.parameters()).device
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.optimizer = self.new_optimizer()

    def new_optimizer(self) -> torch.optim.AdamW:
        """Make a new AdamW optimiser.

        It is not torch's fused one: on a CPU that takes weights and moments in the order of memory,
        which differs between channels-last weights and the moments of a state file.
        """
        return torch.optim.AdamW(
            self.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """Modules whose tensors are in the state, by prefix of their names."""
        return {"weights.": self.network}

    @property
    def told(self) -> dict[str, Any]:
        """Description of the run in the model file, without the network's configuration."""
        return {name: value for name, value in self.run.items() if name != "config"}

    def autocast(self) -> torch.autocast:
        """Context manager that computes in the number format of the run."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    @abstractmethod
    def is_over(self, progress: Progress) -> bool:
        """Whether the run is finished."""

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterable[tuple[Any, int]]:
        """The batches of an epoch (from 1) from a step (from 0) on, and the samples in each."""

    @abstractmethod
    def seed(self, step: int) -> int:
        """Seed of dropout in a step of the run (from 0)."""

    @abstractmethod
    def rate(self, step: int) -> float | None:
        """Learning rate of a step of the run (from 0); None leaves it as it is."""

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Losses of a batch; ``total`` is the one to be minimised."""

    @abstractmethod
    def after_step(self, progress: Progress) -> None:
        """Update the moving average, or write a snapshot."""

    def score_start(self) -> dict[str, float] | None:
        """Scores before the first step by name; None if nothing is scored."""
        return None

    def validate(self) -> dict[str, float]:
        """Scores after an epoch by name."""
        return {}

    @abstractmethod
    def after_epoch(
        self, progress: Progress, losses: Mapping[str, float], scores: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the models, given mean losses and scores, and return the epoch's row of the log.

        Epoch 0 has no losses: it is the network before the first step, if that is scored.
        """

    def memory(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the tensors, as JSON types."""
        return {}

    def recall(self, memory: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore what `memory` returned in an earlier run."""

    def require_finite(self, progress: Progress) -> None:
        """Raise ModelError if a weight is not finite."""
        for module in self.modules.values():
            if not all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values()):
                raise _diverged("the weights are not finite", progress)


def fit(
    task: Task,
    output: Path,
    *,
    state: Path | None = None,
    on_begin: Callable[[], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Progress:
    """Train a network, and keep the state to resume from beside the model.

    The state is written before the first step, after each epoch, and within an epoch when
    `STATE_SECONDS` have passed since the last time.

    Args:
        task: the task to train.
        output: the model file, for the name of the state.
        state: the state to resume from; None = start from the first step.
        on_begin: called after the state was checked, or after the first state was written.
        on_step, on_epoch: called after each step and epoch, see `OnStep` and `OnEpoch`.

    Raises:
        ModelError: the state does not fit, the loss or a weight is not finite, or a step does not
            fit in memory.
        DeviceLostError: the GPU has failed.
        OutputError: a file cannot be written.
    """
    advice = f"lower {task.size_options} and start anew,"
    with full_memory_reported(task.device, "a step of the training", advice):
        return _fit(task, output, state, on_begin, on_step, on_epoch)


def _fit(
    task: Task,
    output: Path,
    state: Path | None,
    on_begin: Callable[[], None] | None,
    on_step: OnStep | None,
    on_epoch: OnEpoch | None,
) -> Progress:
    """Train as `fit` does, with errors of the device as torch raises them."""
    states = beside(output, ".state.safetensors")
    progress = Progress()
    if state is not None:
        saved = SavedRun.read(state, task.kind)
        saved.require_same(task.run)
        saved.restore(task.modules, task.optimizer)
        task.recall(saved.memory)
        progress = saved.progress

    if state is None:
        # Written before the first step too, so that this run is recognised and can be resumed.
        save_state(states, task, progress)
    if on_begin is not None:
        on_begin()
    _score_start(task, states, progress, on_epoch)
    clock = kept = time.perf_counter()
    while not task.is_over(progress):
        epoch = progress.epoch + 1
        task.network.train()
        for batch, size in task.batches(epoch, progress.batch):
            losses = _step(task, batch, progress.step)
            progress.count_step(losses, size)
            if not math.isfinite(losses["total"]):
                raise _diverged(f"the loss is {losses['total']}", progress)
            task.after_step(progress)
            clock, before = time.perf_counter(), clock
            progress.seconds += clock - before
            if clock - kept >= STATE_SECONDS and progress.batch < task.steps:
                save_state(states, task, progress)
                kept = time.perf_counter()
            if on_step is not None:
                on_step(epoch, progress.batch, task.steps, losses["total"])
        # The loss of a step is that of the weights before it; this checks those after the last.
        task.require_finite(progress)
        # Sums over samples, not means of batch means: the last batch may be smaller.
        means = {name: value / task.samples for name, value in progress.sums.items()}
        scores = task.validate()
        progress.count_epoch()
        clock, before = time.perf_counter(), clock
        progress.seconds += clock - before
        row = task.after_epoch(progress, means, scores)
        # Saved after the models: a run resumed from the state before writes the same models again.
        if task.keeps_state or not task.is_over(progress):
            save_state(states, task, progress)
        else:
            forget_states(states)
        kept = time.perf_counter()
        if on_epoch is not None:
            on_epoch(row)
    return progress


def _score_start(task: Task, states: Path, progress: Progress, on_epoch: OnEpoch | None) -> None:
    """Score the network before the first step as epoch 0, if the task asks for it."""
    clock = time.perf_counter()
    scores = task.score_start()
    if scores is None:
        return
    progress.seconds += time.perf_counter() - clock
    row = task.after_epoch(progress, {}, scores)
    save_state(states, task, progress)
    if on_epoch is not None:
        on_epoch(row)


def _step(task: Task, batch: Any, step: int) -> dict[str, float]:
    """Take a step of the optimiser, and return the losses before it by name."""
    torch.manual_seed(task.seed(step))
    rate = task.rate(step)
    if rate is not None:
        set_rate(task.optimizer, rate)
    losses = task.losses(batch)
    task.optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    task.optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def cosine_rate(step: int, n_steps: int, *, highest: float, least: float = 0.0) -> float:
    """Learning rate of a step (from 0): linear warm-up over a twentieth, then half a cosine."""
    warm_up = max(1, n_steps // 20)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    share = (step - warm_up) / max(1, n_steps - warm_up)
    return least + (highest - least) * (1 + math.cos(math.pi * share)) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def prefetched(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over items and prefetch the next one in a thread.

    An exception while an item is made is raised when that item is asked for.

    Args:
        items: items that are not None; `next` is called by one thread at a time.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="geothresh-prefetch") as pool:
        waiting = pool.submit(next, source, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, source, None)
            yield item


def training_place(device: str, precision: Precision) -> tuple[torch.device, torch.dtype]:
    """Choose device and number format of a training.

    Raises:
        UsageError, InputError: the device or the format is not available.
    """
    place = pick_device(device)
    dtype = pick_dtype(precision, place)
    # On GPUs without bf16 auto gives float16, in which small gradients would vanish.
    return place, torch.float32 if dtype == torch.float16 else dtype


def _diverged(what: str, progress: Progress) -> ModelError:
    """The error of a training whose loss or weights are not finite."""
    kept = "the last whole epoch is kept: " if progress.epoch else ""
    return ModelError(
        f"{what} in epoch {progress.epoch + 1}, step {progress.batch}; {kept}lower "
        "`learning_rate` and start anew"
    )
