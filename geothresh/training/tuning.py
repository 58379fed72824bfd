"""Compute the gain of a training on held-out maps, over the initial model or the cut at 0.5."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from geothresh.training.validation import Figures, means

Measure = Literal["iou", "boundary_iou"]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over maps, in which each data set and base network has the same weight."""

    mean: float
    """The mean, 0 to 1."""
    standard_error: float | None
    """Standard error of the mean, with maps taken as independent; None for a single map."""

    @classmethod
    def of(cls, values: Sequence[float], groups: Sequence[str]) -> Mean:
        """Average the values of maps so that each group has the same weight.

        Example:
            >>> Mean.of([0.25, 0.75, 0.5], ["one", "one", "other"]).mean
            0.5
        """
        sizes = Counter(groups)
        weights = [1 / (len(sizes) * sizes[group]) for group in groups]
        mean = math.fsum(w * v for w, v in zip(weights, values, strict=True))
        n = len(values)
        if n < 2:
            return cls(mean, None)
        squares = (w * w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True))
        return cls(mean, math.sqrt(n / (n - 1) * math.fsum(squares)))

    def text(self, *, sign: str = "") -> str:
        """Format the mean in points (hundredths), such as ``41.20 (s.e. 1.31)``."""
        error = "" if self.standard_error is None else f" (s.e. {100 * self.standard_error:.2f})"
        return f"{100 * self.mean:{sign}.2f}{error}"

    @property
    def may_be_chance(self) -> bool:
        """Whether a difference of this size is less than two standard errors."""
        return self.standard_error is not None and abs(self.mean) < 2 * self.standard_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One measure of the same maps, cut and refined, 0 to 1."""

    cut: Mean
    """Scores of the unrefined maps, cut at 0.5."""
    start: Mean | None
    """Scores of the maps refined by the initial model; None if there is none."""
    tuned: Mean
    """Scores of the maps refined by the trained model."""
    gain: Mean
    """Mean over maps of `tuned` minus `start`, or minus `cut` if there is no initial model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The gain of a training on held-out maps."""

    start: str | None
    """Name of the initial model; None if there is none."""
    maps: int
    """Number of maps, or of tiles of scenes, that were scored."""
    epoch: int
    """Epoch of the trained model: the best one on these maps, or with folds the last one."""
    folds: int | None
    """Number of folds; None = one split."""
    helped: bool
    """Whether the mean of both measures is higher than before the training. If not, the initial
    model is written."""
    miou: Compared
    boundary_iou: Compared

    @classmethod
    def of(
        cls,
        figures: TuningFigures,
        tuned: Sequence[Figures],
        *,
        epoch: int,
        start: str | None,
        folds: int | None = None,
    ) -> Tuning:
        """Compare the figures of the same maps in the same order.

        Args:
            figures: figures of the cut and of the initial model.
            tuned: figures of the trained model.
            epoch: epoch of the trained model.
            start: name of the initial model.
            folds: number of folds; None = one split.
        """
        before = figures.start or figures.cut
        return cls(
            start=start,
            maps=len(tuned),
            epoch=epoch,
            folds=folds,
            helped=score_of(means(tuned)) > score_of(means(before)),
            miou=_compared(figures, tuned, "iou"),
            boundary_iou=_compared(figures, tuned, "boundary_iou"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types, with the sentence."""
        return {"sentence": self.sentence(), **asdict(self)}

    def lines(self) -> list[str]:
        """A line for each measure, in points: cut -> start -> tuned."""
        return [
            " -> ".join(
                [
                    f"{name}: cut at 0.5 {compared.cut.text()}",
                    *([f"{self.start} {compared.start.text()}"] if compared.start else []),
                    f"{self._tuned} {compared.tuned.text()}",
                ]
            )
            for name, compared in (("miou", self.miou), ("Boundary IoU", self.boundary_iou))
        ]

    def sentence(self) -> str:
        """The result in words, and which model was written."""
        gains = (
            f"{self.miou.gain.text(sign='+')} points of miou and "
            f"{self.boundary_iou.gain.text(sign='+')} of Boundary IoU against "
            f"{self.start or 'the cut at 0.5'}"
        )
        if self.folds is None:
            where = f"on {self.maps} held-out maps"
            caveat = "; the epoch was chosen on them, so expect less elsewhere"
        else:
            where = f"on {self.maps} maps, each held out in one of {self.folds} folds"
            caveat = "; the model is trained on all of them, and itself scored on none"
        what = "Tuning" if self.start else "Training"
        if self.helped:
            chance = ", which may be chance" if self.miou.gain.may_be_chance else ""
            return f"{what} helped: {gains} {where}{chance}{caveat}."
        best = "" if self.folds else "the best epoch has "
        end = f"; the model written is {self.start} as it was" if self.start else ""
        return f"{what} did not help: {best}{gains} {where}{end}."

    @property
    def _tuned(self) -> str:
        what = "tuned" if self.start else "trained"
        return f"{what}, {self.folds} folds" if self.folds else f"{what}, epoch {self.epoch}"


@dataclass(slots=True, kw_only=True)
class TuningFigures:
    """Figures of the held-out maps, which are stored in the state of a run."""

    cut: list[Figures] = field(default_factory=list)
    start: list[Figures] = field(default_factory=list)
    """Empty without an initial model."""
    tuned: list[Figures] = field(default_factory=list)
    """Figures of the best epoch so far, or of the finished folds."""
    epoch: int = 0
    """The best epoch so far."""

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> TuningFigures:
        """Make it of JSON types; KeyError, TypeError or ValueError if they do not fit."""
        lists = {
            name: [Figures(str(g), float(i), float(b)) for g, i, b in values[name]]
            for name in ("cut", "start", "tuned")
        }
        return cls(**lists, epoch=int(values["epoch"]))

    @property
    def is_known(self) -> bool:
        """Whether the maps were scored before training."""
        return bool(self.cut)

    def offer(self, epoch: int, tuned: Sequence[Figures]) -> None:
        """Keep an epoch's figures if they are the best so far."""
        if not self.tuned or score_of(means(tuned)) > score_of(means(self.tuned)):
            self.epoch, self.tuned = epoch, list(tuned)


def score_of(scores: Mapping[str, float]) -> float:
    """Score by which epochs are compared: the mean of miou and Boundary IoU, 0 to 1."""
    return fmean((scores["miou"], scores["boundary_iou"]))


def _compared(figures: TuningFigures, tuned: Sequence[Figures], measure: Measure) -> Compared:
    groups = [figure.group for figure in tuned]
    cut, start, after = (
        [float(getattr(figure, measure)) for figure in of_maps]
        for of_maps in (figures.cut, figures.start, tuned)
    )
    before = start or cut
    return Compared(
        cut=Mean.of(cut, groups),
        start=Mean.of(start, groups) if start else None,
        tuned=Mean.of(after, groups),
        gain=Mean.of([b - a for a, b in zip(before, after, strict=True)], groups),
    )
