"""Draw a figure of a map: confidence, masks, truth, and errors before and after refining."""

from __future__ import annotations

from geothresh.evaluation.scoring import CUT, Sample
from geothresh.metrics import Counts
from geothresh.raster.pictures import Panel, change_picture, confidence_picture, mask_picture, sheet
from geothresh.types import BoolArray, UInt8Array

_LEAST_SIDE = 360
"""Least width of a panel in pixels; smaller maps are enlarged, so that the titles have room."""


def error_picture(prediction: BoolArray, truth: BoolArray, valid: BoolArray) -> UInt8Array:
    """Errors of a mask: hits amber, misses blue, false alarms red, background dark; (H, W, 3)."""
    # Drawn as the change from prediction to truth, which removes what is false and adds the misses.
    return change_picture(prediction, truth, valid)


def figure(
    sample: Sample, *, threshold: float, source: str, keep: float | None = None
) -> UInt8Array:
    """Draw a map: confidence, cut and refined mask; below, the truth and the errors of both.

    Args:
        sample: the map; without a refined confidence the refined panels are left out.
        threshold: cut of the refined confidence.
        keep: cut for the foreground of the input, see `cut_mask`.
        source: name of the base network, for the heading.

    Returns:
        uint8 (height, width, 3).
    """
    truth, valid = sample.truth, sample.counted
    masks = {f"cut at {CUT}": sample.confidence >= CUT}
    refined = sample.mask(threshold, keep)
    if refined is not None:
        masks["refined"] = refined
    above = [Panel(title="confidence", image=confidence_picture(sample.confidence, valid))]
    below = [Panel(title="truth", image=mask_picture(truth, valid))]
    for name, mask in masks.items():
        iou = Counts.of(prediction=mask, target=truth, valid=valid).iou()
        above.append(Panel(title=name, image=mask_picture(mask, valid)))
        below.append(
            Panel(title=f"{name}: IoU {100 * iou:.1f}", image=error_picture(mask, truth, valid))
        )
    heading = f"{sample.id}, {source}: missed blue, falsely found red"
    return sheet(heading, [[_enlarged(p) for p in row] for row in (above, below)])


def _enlarged(panel: Panel) -> Panel:
    factor = -(-_LEAST_SIDE // panel.image.shape[1])
    image = panel.image.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else panel.image
    return Panel(title=panel.title, image=image)
