"""Cross-validate over places, then train a model on all of them, in one run with one state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from geothresh.errors import ModelError
from geothresh.nn.modelfile import beside
from geothresh.training.data import ChipSource, Fold
from geothresh.training.state import Progress
from geothresh.training.threshnet import ThreshNetTask
from geothresh.training.tuning import Tuning
from geothresh.training.validation import means


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """One training of the run: that of a fold, or the last one, on all data."""

    number: int = 0
    """Number from 0; the last round has the number of folds, and a finished run one more."""
    first_epoch: int = 0
    """Number of epochs of the rounds before."""
    first_step: int = 0

    def local(self, progress: Progress) -> Progress:
        """Return the counters of this round alone."""
        return replace(
            progress,
            epoch=progress.epoch - self.first_epoch,
            step=progress.step - self.first_step,
        )


def fold_model(model: Path, number: int) -> Path:
    """Path of the model of a fold, counted from 1, beside the model of all data."""
    return beside(model, f".fold{number}.safetensors")


class FoldsTask(ThreshNetTask):
    """Trains a ThreshNet for each fold, scores it on the held-out maps, then trains on all data.

    Each training has the same initial weights, seed and schedule as a run of its own. So the scores
    of the folds estimate the score of the model. No epoch is chosen by them.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        train: Sequence[ChipSource],
        output: Path,
        *,
        keep_folds: bool = False,
        **options: Any,
    ) -> None:
        """Begin with the first fold.

        Args:
            folds: training and held-out data of each fold.
            train: all data.
            output: the model file.
            keep_folds: whether the model of each fold is written too, see `fold_model`.
            **options: see `ThreshNetTask`.
        """
        held = [held_map for fold in folds for held_map in fold.validation]
        super().__init__(folds[0].train, held, output, **options)
        self._sources = [*(fold.train for fold in folds), train]
        self._held = [fold.validation for fold in folds]
        self._initial = {k: v.clone() for k, v in self.network.state_dict().items()}
        self._round = _Round()
        self._keep_folds = keep_folds

    @property
    def tuning(self) -> Tuning | None:
        """Gain of the training on held-out maps; None until all folds are done."""
        if self._round.number < len(self._held):
            return None
        return self._compared(self._figures.tuned, self._figures.epoch, folds=len(self._held))

    def is_over(self, progress: Progress) -> bool:
        """Whether the last round is finished."""
        return self._round.number > len(self._held)

    def batches(self, epoch: int, first: int) -> Iterable[tuple[list[Tensor], int]]:
        """Batches of an epoch of the round."""
        return super().batches(epoch - self._round.first_epoch, first)

    def seed(self, step: int) -> int:
        """Seed of dropout, as in a run of the round alone."""
        return super().seed(step - self._round.first_step)

    def rate(self, step: int) -> float | None:
        """Learning rate, as in a run of the round alone."""
        return super().rate(step - self._round.first_step)

    def after_step(self, progress: Progress) -> None:
        """Move the average of the round's weights."""
        super().after_step(self._round.local(progress))

    def score_start(self) -> dict[str, float] | None:
        """Score all maps, refined by the initial model, or unrefined if there is none.

        None if a resumed run has the scores already.
        """
        return None if self._figures.is_known else self._score_before()

    def validate(self) -> dict[str, float]:
        """Return no scores: `after_epoch` scores the last epoch of a fold alone."""
        return {}

    def after_epoch(
        self, progress: Progress, losses: Mapping[str, float], scores: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the log; after a round score its fold and begin the next, or write the models."""
        if not losses:
            return self._log_row(progress, None, losses, scores)
        number = self._round.number
        rate = self._count_losses(progress, losses)
        if super().is_over(self._round.local(progress)):
            scores = self._end_round(progress)
        fold = f"{number + 1}" if number < len(self._held) else "all"
        return self._log_row(progress, rate, losses, scores, fold=fold)

    def memory(self) -> dict[str, Any]:
        """Return what `recall` needs: the memory of a single training, and the round."""
        return {**super().memory(), "round": asdict(self._round)}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Restore what `memory` returned in an earlier run.

        Raises:
            ModelError: the state lacks an entry.
        """
        super().recall(memory)
        try:
            self._round = _Round(**{name: int(n) for name, n in memory["round"].items()})
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"the state of the run is damaged ({error!r})") from error
        self._learn_from(self._sources[min(self._round.number, len(self._held))])

    def _end_round(self, progress: Progress) -> Mapping[str, float]:
        """End a round: score its fold, or write the models after the last round."""
        number = self._round.number
        if number == len(self._held):
            self._write_models(progress)
            self._round = replace(self._round, number=number + 1)
            return {}
        found = self._score(self._held[number], smooth=self.recipe.smooth)
        if self._keep_folds:
            card = self._card(self._round.local(progress))
            self._save_average([fold_model(self.output, number + 1)], card)
        self._figures.tuned += found
        self._figures.epoch = self._round.local(progress).epoch
        self._begin_round(number + 1, progress)
        return means(found)

    def _begin_round(self, number: int, progress: Progress) -> None:
        """Reset weights, optimiser and counters to the start of a round."""
        for network in self.modules.values():
            network.load_state_dict(self._initial)
        self.optimizer = self.new_optimizer()
        self._plateau = self._new_plateau()
        self._learn_from(self._sources[number])
        progress.least_loss, progress.epochs_without_gain = math.inf, 0
        self._round = _Round(number=number, first_epoch=progress.epoch, first_step=progress.step)

    def _write_models(self, progress: Progress) -> None:
        """Write the model of all data, or the initial model if the folds lost against it."""
        tuning = self._compared(self._figures.tuned, self._figures.epoch, folds=len(self._held))
        card = {**self._card(self._round.local(progress)), "tuning": tuning.as_dict()}
        files = [beside(self.output, ".last.safetensors")]
        if tuning.helped or self._start is None:
            progress.best_epoch = progress.epoch
            self._save_average([*files, self.output], card)
        else:
            self._save_average(files, card)
            self._save_start(self._start, card)
