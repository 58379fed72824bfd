"""Train a ThreshNet as a task of the training loop (paper, section 4.2)."""

from __future__ import annotations

import copy
import csv
import io
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from geothresh._version import __version__
from geothresh.errors import ModelError
from geothresh.files import write_text
from geothresh.nn.config import NetworkConfig
from geothresh.nn.losses import threshnet_loss
from geothresh.nn.modelfile import THRESHNET, beside, load_weights, read_card, save_model
from geothresh.nn.network import ThreshNet, memory_layout
from geothresh.training.chips import ChipDataset
from geothresh.training.data import ChipSource, ValidationMap
from geothresh.training.loop import Task, cosine_rate, prefetched, training_place
from geothresh.training.recipe import Recipe
from geothresh.training.sizes import require_batch
from geothresh.training.start import Start
from geothresh.training.state import Progress
from geothresh.training.tuning import Tuning, TuningFigures, score_of
from geothresh.training.validation import Figures, means, score_network, score_unrefined


class ThreshNetTask(Task):
    """Trains a ThreshNet; after each epoch the model is written if it is the best so far."""

    kind = THRESHNET

    def __init__(
        self,
        train: Sequence[ChipSource],
        validation: Sequence[ValidationMap],
        output: Path,
        *,
        config: NetworkConfig,
        recipe: Recipe,
        facts: Mapping[str, Any],
        init: Path | None = None,
        device: str = "auto",
        loader_workers: int = 0,
    ) -> None:
        """Prepare training on maps.

        Args:
            train: maps to learn from.
            validation: maps to score after each epoch, of other places.
            output: the model file, of the best epoch; ``.last`` and ``.csv`` are written beside it.
            config: sizes of the network.
            recipe: hyperparameters.
            facts: description of the data for the model file; a resumed run must have the same.
            init: model file of the same sizes to start from.
            device: auto, cpu, cuda, cuda:i or mps.
            loader_workers: number of processes that prepare chips; 0 = this process does.

        Raises:
            ModelError: the initial model does not fit.
            UsageError, InputError: the device or the precision is not available.
        """
        self._start = None if init is None else Start.of(init)
        place, dtype = training_place(device, recipe.precision)
        torch.manual_seed(recipe.seed)
        network = ThreshNet(config, dropout=recipe.dropout)
        self._layout = memory_layout(config)
        network.to(place, memory_format=self._layout)  # type: ignore[call-overload]
        if init is not None:
            if read_card(init).config != config:
                raise ModelError(f"{init}: a network of other sizes; name one of the same preset")
            network.load_state_dict(load_weights(init, config))
        super().__init__(
            network,
            run={"config": config.as_dict(), "recipe": recipe.as_dict(), **facts},
            dtype=dtype,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        self.recipe, self.output, self.loader_workers = recipe, output, loader_workers
        self._average = copy.deepcopy(network).eval().requires_grad_(False)
        self._plateau = self._new_plateau()
        self._validation = validation
        self._figures = TuningFigures()
        self._found: list[Figures] = []
        self._learn_from(train)
        self._log = EpochLog(beside(output, ".csv"))

    def _new_plateau(self) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, patience=self.recipe.patience, min_lr=self.recipe.min_learning_rate
        )

    def _learn_from(self, sources: Sequence[ChipSource]) -> None:
        """Take the chips of the coming epochs from these sources."""
        recipe, config = self.recipe, self._average.config
        self._chips = ChipDataset(sources, recipe, patch=config.patch)
        self.samples = len(self._chips)
        require_batch(
            config, chip_size=recipe.chip_size, batch_size=recipe.batch_size, n_chips=self.samples
        )
        self._positions = batches_of(self.samples, recipe.batch_size)
        self.steps = len(self._positions)

    @property
    def tuning(self) -> Tuning | None:
        """Gain of the training so far over the initial model.

        None if there is no initial model, or if no epoch is done.
        """
        if self._start is None or not self._figures.tuned:
            return None
        return self._compared(self._figures.tuned, self._figures.epoch)

    def _compared(
        self, tuned: Sequence[Figures], epoch: int, *, folds: int | None = None
    ) -> Tuning:
        """Compare the figures of an epoch with those before the training."""
        start = None if self._start is None else self._start.name
        return Tuning.of(self._figures, tuned, epoch=epoch, start=start, folds=folds)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """The network and the moving average of its weights, which becomes the model."""
        return {"weights.": self.network, "average.": self._average}

    def is_over(self, progress: Progress) -> bool:
        """Whether all epochs are done, or the training loss has stalled."""
        stalled = progress.epochs_without_gain >= self.recipe.stop_patience
        by_loss = self.recipe.schedule == "plateau"
        return progress.epoch >= self.recipe.epochs or (by_loss and stalled)

    def batches(self, epoch: int, first: int) -> Iterable[tuple[list[Tensor], int]]:
        """Batches of the chips of an epoch, in the order of the chips' numbers."""
        self._chips.set_epoch(epoch)
        sampler = [list(positions) for positions in self._positions[first:]]
        loader = DataLoader(self._chips, batch_sampler=sampler, num_workers=self.loader_workers)
        if not self.loader_workers:
            batches: Iterable[list[Tensor]] = prefetched(loader)
        else:
            with _signals_held():
                batches = iter(loader)
        return ((batch, len(batch[0])) for batch in batches)

    def seed(self, step: int) -> int:
        """Seed of dropout."""
        return 1_000_003 * (step + 1) + self.recipe.seed

    def rate(self, step: int) -> float | None:
        """Learning rate along half a cosine; None with the schedule ``plateau``."""
        if self.recipe.schedule != "cosine":
            return None
        return cosine_rate(
            step,
            self.steps * self.recipe.epochs,
            highest=self.recipe.learning_rate,
            least=self.recipe.min_learning_rate,
        )

    def losses(self, batch: list[Tensor]) -> dict[str, Tensor]:
        """The paper's loss, with the terms that the recipe adds."""
        whole = bool(batch[3].all())
        confidence, region_target, truth, valid = (
            part.to(self.device, non_blocking=True) for part in batch
        )
        with self.autocast():
            logits = self.network(confidence.contiguous(memory_format=self._layout))
        return threshnet_loss(
            confidence=confidence,
            logits=logits,
            region_target=region_target,
            truth=truth,
            # Without a validity mask, as for folders of maps, the losses take half the time.
            valid=None if whole else valid,
            weights=self.recipe.loss,
        )

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Move the average towards the network, statistics of the norms included."""
        # The average is short at first, or else the random start would stay in it for long.
        decay = min(self.recipe.ema, (1 + progress.step) / (10 + progress.step))
        for mean, value in zip(
            self._average.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def score_start(self) -> dict[str, float] | None:
        """Score the initial model on the held-out maps.

        None if there is no initial model, or if a resumed run has the scores already.
        """
        if self._start is None or self._figures.is_known:
            return None
        return self._score_before()

    def _score_before(self) -> dict[str, float]:
        """Score the held-out maps as they are, and refined by the initial model if there is one."""
        figures = self._figures
        figures.cut = score_unrefined(self._validation)
        if self._start is not None:
            scope = self._start.scope
            figures.start = self._score(
                self._validation, smooth=scope.smooth, strength=scope.strength
            )
        return means(figures.start or figures.cut)

    def validate(self) -> dict[str, float]:
        """Score the average of the weights on the held-out maps."""
        self._found = self._score(self._validation, smooth=self.recipe.smooth)
        return means(self._found)

    def _score(
        self, maps: Sequence[ValidationMap], *, smooth: bool, strength: float = 1.0
    ) -> list[Figures]:
        """Score the average of the weights on maps; for the options see `ModelScope`."""
        return score_network(
            self._average, maps, dtype=self.dtype, smooth=smooth, strength=strength
        )

    def after_epoch(
        self, progress: Progress, losses: Mapping[str, float], scores: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the last model, the best model if this epoch is the best, and the log."""
        rate = self._count_losses(progress, losses) if losses else None
        # The card has no times: a run that was stopped and resumed must write the same bytes.
        card = {**self._card(progress), "validation": scores}
        if losses and self._start is not None:
            self._figures.offer(progress.epoch, self._found)
            card["tuning"] = self._compared(self._found, progress.epoch).as_dict()
        files = [beside(self.output, ".last.safetensors")] if losses else []
        if score_of(scores) > progress.best_score:
            progress.best_score, progress.best_epoch = score_of(scores), progress.epoch
            files += [self.output] if losses else []
        self._save_average(files, card)
        if self._start is not None and progress.best_epoch == 0:
            tuning = self.tuning
            entry = {} if tuning is None else {"tuning": tuning.as_dict()}
            self._save_start(self._start, {**self._card(progress), **entry})
        return self._log_row(progress, rate, losses, scores)

    def _count_losses(self, progress: Progress, losses: Mapping[str, float]) -> float:
        """Update the schedule by the loss of an epoch, and return the epoch's learning rate."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        if self.recipe.schedule == "plateau":
            self._plateau.step(losses["total"])
        if losses["total"] < progress.least_loss:
            progress.least_loss, progress.epochs_without_gain = losses["total"], 0
        else:
            progress.epochs_without_gain += 1
        return rate

    def _card(self, progress: Progress) -> dict[str, Any]:
        """Entry ``training`` of the card of a model written now."""
        return {
            **self.told,
            "geothresh": __version__,
            "torch": torch.__version__,
            "epoch": progress.epoch,
            "steps": progress.step,
        }

    def _save_average(self, files: Sequence[Path], card: Mapping[str, Any]) -> None:
        """Write the average of the weights as model files."""
        average = self._average
        for file in files:
            save_model(file, tensors=average.state_dict(), config=average.config, training=card)

    def _save_start(self, start: Start, tried: Mapping[str, Any]) -> None:
        """Write the initial model as the model, with `tried` added to its card."""
        config = self._average.config
        save_model(
            self.output,
            tensors=load_weights(start.path, config),
            config=config,
            training={**start.training, "tried": tried},
        )

    def _log_row(
        self,
        progress: Progress,
        rate: float | None,
        losses: Mapping[str, float],
        scores: Mapping[str, float],
        *,
        fold: str | None = None,
    ) -> Mapping[str, Any]:
        """Append the row of an epoch to the log, and return it."""
        row = {
            "epoch": progress.epoch,
            **({} if fold is None else {"fold": fold}),
            "seconds": progress.seconds,
            **({} if rate is None else {"learning_rate": rate}),
            **{f"train_{name}": value for name, value in losses.items()},
            **scores,
        }
        self._log.append(row)
        return row

    def memory(self) -> dict[str, Any]:
        """Rows of the log, state of the schedule, and scores of the held-out maps."""
        return {
            "rows": self._log.rows,
            "schedule": self._plateau.state_dict(),
            "figures": asdict(self._figures),
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Restore what `memory` returned in an earlier run.

        Raises:
            ModelError: the state lacks an entry.
        """
        try:
            self._log.rows = [dict(row) for row in memory["rows"]]
            self._plateau.load_state_dict(dict(memory["schedule"]))
            self._figures = TuningFigures.of_dict(memory["figures"])
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"the state of the run is damaged ({error!r})") from error


def batches_of(n_chips: int, batch_size: int) -> list[range]:
    """Positions of the chips of each step of an epoch.

    The last step may have fewer chips, or one more: if a single chip is left over, it joins the
    step before, as batch norm has no statistics over a single chip.
    """
    batches = [range(k, min(k + batch_size, n_chips)) for k in range(0, n_chips, batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [range(batches[-2].start, n_chips)]
    return batches


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block SIGINT and SIGTERM inside; processes that are started inside inherit the block.

    Ctrl-C goes to the whole process group, and workers end with the run anyway. Besides, Python
    would ignore an exception that a signal handler raises in a callback at a fork.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class EpochLog:
    """Log of a training: CSV, one line per epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row and rewrite the file atomically; rows may lack columns."""
        self.rows.append(
            {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
        )
        text = io.StringIO(newline="")
        # Columns are in the order of the longest row, as epoch 0 has no losses.
        columns = dict.fromkeys([*max(self.rows, key=len), *(c for row in self.rows for c in row)])
        writer = csv.DictWriter(text, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
