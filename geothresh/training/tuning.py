"""What fine-tuning a model was worth: the same held-out maps, cut, refined as before, and after."""

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
    """Mean over maps, each data set and base network counted alike."""

    mean: float
    """0 to 1."""
    standard_error: float | None
    """Over maps taken as independent; None for a single one."""

    @classmethod
    def of(cls, values: Sequence[float], groups: Sequence[str]) -> Mean:
        """Weigh the values of maps so that each group of them counts alike.

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
        """In points (hundredths), such as ``41.20 (s.e. 1.31)``."""
        error = "" if self.standard_error is None else f" (s.e. {100 * self.standard_error:.2f})"
        return f"{100 * self.mean:{sign}.2f}{error}"

    @property
    def may_be_chance(self) -> bool:
        """Whether a difference of this size is less than two standard errors."""
        return self.standard_error is not None and abs(self.mean) < 2 * self.standard_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One measure of the same maps, 0 to 1."""

    cut: Mean
    """Unrefined, cut at 0.5."""
    start: Mean | None
    """Refined by the model that training started from; None where it started from nothing."""
    tuned: Mean
    """Refined by the trained one."""
    gain: Mean
    """Trained less start, or less the cut where there is none; of each map, then the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What training was worth on maps that were held out."""

    start: str | None
    """Name of the model that training started from."""
    maps: int
    """Maps, or tiles of scenes, that were scored."""
    epoch: int
    """Of the trained model that is compared: the best one on these maps, or with folds the last."""
    folds: int | None
    """How many runs held out a part of the maps each; None = one split."""
    helped: bool
    """Whether training gained, by the mean of both measures; if it did not, the model that is
    written is the start."""
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
        """Compare the same maps in the same order.

        Args:
            figures: of the cut and of the start.
            tuned: of the trained model.
            epoch: that it had.
            start: name of the model that training started from.
            folds: how many runs made up the figures.
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
        """JSON types, with the sentence."""
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
        """What came of it, and what is in the model file."""
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
    """Figures of the held-out maps; in the state of a run, so that none are made twice."""

    cut: list[Figures] = field(default_factory=list)
    start: list[Figures] = field(default_factory=list)
    """Empty where training starts from nothing."""
    tuned: list[Figures] = field(default_factory=list)
    """Of the best epoch so far, or of the folds that are done."""
    epoch: int = 0
    """The best so far."""

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> TuningFigures:
        """From JSON types. Raises KeyError, TypeError or ValueError where they are none."""
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
    """What epochs are compared by: the mean of miou and Boundary IoU, 0 to 1."""
    return fmean((scores["miou"], scores["boundary_iou"]))


def _compared(figures: TuningFigures, tuned: Sequence[Figures], measure: Measure) -> Compared:
    groups = [one.group for one in tuned]
    cut, start, after = (
        [float(getattr(one, measure)) for one in some]
        for some in (figures.cut, figures.start, tuned)
    )
    before = start or cut
    return Compared(
        cut=Mean.of(cut, groups),
        start=Mean.of(start, groups) if start else None,
        tuned=Mean.of(after, groups),
        gain=Mean.of([b - a for a, b in zip(before, after, strict=True)], groups),
    )
