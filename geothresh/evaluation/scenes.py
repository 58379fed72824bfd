"""Score each of many scenes, and find the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geothresh.evaluation.plaintext import aligned, widths
from geothresh.metrics import Counts, MapScore


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneScore:
    """Scores of all pixels of one scene."""

    name: str
    cells: int
    """Number of cells with valid pixels."""
    before: float | None
    """IoU of the plain cut, 0 to 1; None if no pixel is valid."""
    after: float | None
    """IoU of the refined mask, 0 to 1; None if nothing was refined."""
    resampling: float
    """Pixels of the model per pixel of the scene."""

    @classmethod
    def of(
        cls, name: str, cut: Sequence[MapScore], refined: Sequence[MapScore], resampling: float
    ) -> SceneScore:
        """Add up the counts of a scene's cells."""
        before, after = (
            sum((score.counts for score in scores), Counts()).iou() if scores else None
            for scores in (cut, refined)
        )
        return cls(name=name, cells=len(cut), before=before, after=after, resampling=resampling)

    @property
    def gain(self) -> float | None:
        """Gain in IoU; None if nothing was refined."""
        return None if self.before is None or self.after is None else self.after - self.before

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, with the gain."""
        return {**asdict(self), "gain": self.gain}


def scene_table(scenes: Sequence[SceneScore]) -> list[str]:
    """Table with a line for each scene, in points."""
    rows = [("scene", "cells", "IoU before", "after", "gain")]
    rows += [
        (s.name, str(s.cells), _points(s.before), _points(s.after), _points(s.gain, "+"))
        for s in scenes
    ]
    return aligned(rows, widths(rows))


def worst_sentence(scenes: Sequence[SceneScore]) -> str:
    """The scene with the least gain, or if nothing was refined the least IoU, in words."""
    gains = [(scene.gain, scene) for scene in scenes if scene.gain is not None]
    if gains:
        gain, worst = min(gains, key=lambda pair: pair[0])
        return (
            f"Refining gains least in {worst.name}: {_points(gain, '+')} points, "
            f"to {_points(worst.after)}."
        )
    known = [(scene.before, scene) for scene in scenes if scene.before is not None]
    least, worst = min(known, key=lambda pair: pair[0])
    return f"The least IoU has {worst.name}: {_points(least)}."


def _points(share: float | None, sign: str = "") -> str:
    return "-" if share is None else f"{100 * share:{sign}.2f}"
