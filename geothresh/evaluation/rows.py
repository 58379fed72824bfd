"""What a report holds: ways to turn maps into masks (rows) and measures of them."""

from __future__ import annotations

from dataclasses import dataclass

from geothresh.metrics import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to turn the maps into masks, and what it scores."""

    key: str
    """Name in JSON."""
    label: str
    """The same in words."""
    oracle: bool
    """True = chosen with knowledge of the truth of these very maps."""
    threshold: float | None
    """The cut, where it is one for all maps."""
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure of `Summary` that masks are compared by."""

    field: str
    """Its name in `Summary`."""
    suffix: str
    """Ends the key of the row whose one threshold is the best by this measure."""
    name: str
    """Short name; ``{unit}`` stands for what one map is."""
    title: str
    """Name in the table; ``{reach}`` stands for the reach of Boundary IoU in pixels."""

    def of(self, summary: Summary) -> float:
        """The figure, 0 to 1."""
        return float(getattr(summary, self.field))


MEASURES = (
    Measure(
        field="miou",
        suffix="",
        name="IoU (mean of {unit}s)",
        title="IoU (mean of {unit}s)",
    ),
    Measure(
        field="iou_pooled",
        suffix="_pooled",
        name="IoU of all pixels",
        title="IoU (all pixels)",
    ),
    Measure(
        field="miou_two_class",
        suffix="_two_class",
        name="mIoU",
        title="mean of both classes (mIoU)",
    ),
    Measure(
        field="boundary_iou",
        suffix="_boundary",
        name="Boundary IoU",
        title="Boundary IoU (d = {reach} px)",
    ),
)
