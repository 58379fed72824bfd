"""Report a calibration as a table, as JSON, and as one sentence of advice."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geothresh.calibration.candidates import Candidate
from geothresh.calibration.choosing import LEAST_TILES, LEVEL, Choice, Gain, least_places
from geothresh.errors import number_of
from geothresh.evaluation.plaintext import aligned, filled, widths

_HEADINGS = ("IoU", "gain", "s.e.", "worse", "ECE", "s/MP", "chance")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Gains of all candidates on places that they were not fitted to, and the advised candidate."""

    choice: Choice
    tiles: int
    """Maps, or cells of a scene."""
    places: int
    folds: int
    unit: str
    """Word for one map: "tile" or "cell"."""
    seconds: Mapping[str, float]
    """Seconds for a megapixel by key of the candidate, reading included."""
    output: Path | None
    """The calibration file; None = not written."""
    diagram: Path | None
    """The reliability diagram, PNG; None = not written."""

    @property
    def nothing(self) -> Candidate:
        """The candidate that does nothing."""
        return self.choice.candidates[0]

    @property
    def advice(self) -> str:
        """One sentence: what to do with such maps."""
        choice, best = self.choice, self.choice.best
        if self.tiles < LEAST_TILES:
            return f"Leave it at 0.5: {self._unknown()}"
        if choice.few_places:
            return f"Leave it at 0.5: {self._few_places()}"
        if choice.does_nothing and choice.promising is not self.nothing:
            return f"Leave it at 0.5: {self._not_followed()}"
        if choice.does_nothing:
            return f"Leave it at 0.5: {self._no_better()}"
        gain = choice.gains[best.key]
        losers = f"{100 * gain.share_worse:.0f} % of {self.tiles} {self.unit}s"
        model, what = choice.fitted.source.model, choice.fitted.transformation.text(3)
        if model:
            what = f"model {model}, {what}"
        return (
            f"Take {best.label} ({what}): places gain {_points(gain)} of IoU over the cut at "
            f"0.5, and {losers} lose more than a point."
        )

    @property
    def expectation(self) -> str | None:
        """Expected gain on other places, in words; None = unknown."""
        expected = self.choice.expected
        if expected is None or self.tiles < LEAST_TILES or self.choice.few_places:
            return None
        return (
            "Where the advice itself comes from the other folds, places "
            f"gain {_points(expected)}, and {100 * expected.share_worse:.0f} % of the {self.unit}s "
            "lose more than a point."
        )

    def _unknown(self) -> str:
        return (
            f"with {self.tiles} {self.unit}s it cannot be known whether a gain is more than "
            f"chance, nor how many {self.unit}s lose by it; label {LEAST_TILES} at least, of "
            "different places."
        )

    def _few_places(self) -> str:
        # With fewer places than folds, each is a fold, and one more place is one more fold.
        least = least_places(self.folds if self.folds < self.places else LEAST_TILES)
        return (
            f"{number_of(self.places, 'place')}; at least {least} are needed for a gain to be more "
            "than chance on those that advice comes from, without the fold that it is checked on "
            "(the least p-value of n places is 1 in 2^n): label more places."
        )

    def _not_followed(self) -> str:
        promising = self.choice.promising
        return (
            f"{promising.label} gains more than chance would "
            f"({_points(self.choice.gains[promising.key])}), but following the advice gains "
            f"nothing on the held-out folds of {self.places} places."
        )

    def _no_better(self) -> str:
        rest = [one for one in self.choice.candidates if one is not self.nothing]
        top = max(rest, key=lambda one: self.choice.gains[one.key].mean)
        gain = self.choice.gains[top.key]
        return (
            f"none of {len(rest)} ways is better on {self.places} places by more than chance "
            f"gives the best of so many in one case of {1 / LEVEL:.0f}; the highest mean is that "
            f"of {top.label}, {_points(gain)}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {
            "advice": self.advice,
            "expectation": self.expectation,
            "advised": self.choice.best.key,
            "transformation": self.choice.fitted.transformation.text(),
            "model": self.choice.fitted.source.model or None,
            **self.figures(),
            "output": None if self.output is None else str(self.output),
            "diagram": None if self.diagram is None else str(self.diagram),
        }

    def figures(self) -> dict[str, Any]:
        """The measured figures, for the calibration file."""
        choice = self.choice
        return {
            f"{self.unit}s": self.tiles,
            "places": self.places,
            "folds": self.folds,
            "candidates": {one.key: self._figures_of(one) for one in choice.candidates},
            "compared": {one.key: self._figures_of(one) for one in choice.compared},
            "bound": asdict(choice.bound),
            "expected": None if choice.expected is None else asdict(choice.expected),
        }

    def _figures_of(self, candidate: Candidate) -> dict[str, Any]:
        return {
            "label": candidate.label.rstrip("*"),
            "iou": self._iou(candidate),
            **asdict(self.choice.gains[candidate.key]),
            "ece": self.choice.outcomes[candidate.key].reliability.error,
            "seconds_per_megapixel": self.seconds[candidate.key],
        }

    def _iou(self, candidate: Candidate) -> float:
        """IoU of a candidate, mean over places."""
        return self.choice.base + self.choice.gains[candidate.key].mean

    def table(self) -> str:
        """Table of all candidates and the bound, with the advice below."""
        choice = self.choice
        rows = [["", *_HEADINGS]]
        for model, ways in itertools.groupby(choice.candidates, key=lambda one: one.model):
            if model:
                rows.append([model, *[""] * len(_HEADINGS)])
            for one in ways:
                label = f"  {one.label.removeprefix(f'{model}, ')}" if model else one.label
                rows.append([label, *self._line(one)])
        bound = f"{100 * (choice.base + choice.bound.mean):.2f}"
        rows.append(["bound*", bound, *_figures(choice.bound), "", "", ""])
        rows += [[one.label, *self._line(one)] for one in choice.compared]
        tiles, places = number_of(self.tiles, self.unit), number_of(self.places, "place")
        printed = [f"{tiles} of {places}, {self.folds} folds"]
        printed += aligned(rows, widths(rows))
        return "\n".join([*printed, "", *map(filled, self.sentences())])

    def sentences(self) -> Sequence[str]:
        """Notes on the table, and the advice."""
        notes = (
            "Points of IoU, the mean over places, each held out of what it is scored by; worse: "
            f"{self.unit}s that lose more than a point; ECE: expected calibration error; chance: "
            "how often chance gives the best of all rows as much. *the best threshold of each "
            "region, which the truth alone tells."
        )
        if self.choice.compared:
            notes += " **reads the image: to compare with, since `refine` reads none."
        sentences = [notes, "", self.advice]
        return sentences if self.expectation is None else [*sentences, self.expectation]

    def _line(self, candidate: Candidate) -> list[str]:
        gain = self.choice.gains[candidate.key]
        figures = ["", "", ""] if candidate is self.nothing else _figures(gain)
        chance = "" if candidate is self.nothing or gain.chance is None else f"{gain.chance:.3f}"
        error = self.choice.outcomes[candidate.key].reliability.error
        seconds = f"{self.seconds[candidate.key]:.2f}"
        return [f"{100 * self._iou(candidate):.2f}", *figures, f"{error:.4f}", seconds, chance]


def _figures(gain: Gain) -> list[str]:
    error = "" if gain.error is None else f"{100 * gain.error:.2f}"
    return [f"{100 * gain.mean:+.2f}", error, f"{100 * gain.share_worse:.0f} %"]


def _points(gain: Gain) -> str:
    error = "" if gain.error is None else f" (s.e. {100 * gain.error:.2f})"
    return f"{100 * gain.mean:+.2f} points{error}"
