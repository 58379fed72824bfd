"""The centreline term of the loss: soft clDice (Shit et al., 2021, section 3.2, algorithms 1, 2).

It asks whether the prediction's centreline lies in the true mask and the true centreline in the
prediction, so a gap across a road costs as much as a road's width of wrong pixels elsewhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Skeletons are drawn at half of the chip's resolution: a quarter of the time, and roads are wider
#: than two pixels.
_SCALE = 2
#: Erosions at that resolution: the centrelines of roads up to 42 pixels wide are found.
_ITERATIONS = 10


def soft_skeleton(confidence: Tensor, *, iterations: int) -> Tensor:
    """The centrelines of soft masks: what an opening removes, at one erosion after the other.

    Args:
        confidence: (B, 1, H, W) in [0, 1].
        iterations: erosions; shapes up to ``2 * iterations + 1`` pixels wide have a centreline.

    Returns:
        (B, 1, H, W) in [0, 1]; of a hard mask it is 0 or 1.
    """
    # Chips as channels, channels last: pooling is an order quicker than over single planes.
    eroded = confidence.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    smaller = _eroded(eroded)
    skeleton = F.relu(eroded - _dilated(smaller))
    for _ in range(iterations):
        eroded, smaller = smaller, _eroded(smaller)
        skeleton = skeleton + (1 - skeleton) * F.relu(eroded - _dilated(smaller))
    return skeleton.transpose(0, 1)


def centerline_loss(*, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 minus the harmonic mean of the shares of centreline in the other mask, for each chip.

    One pixel is added to each sum: a chip without foreground then still pulls its false positives
    down.

    Args:
        prediction: confidences in [0, 1], float (B, 1, H, W).
        target: 0 or 1, the same shape.
        valid: 1 where a pixel counts, the same shape; None = everywhere.
    """
    if valid is not None:
        prediction, target = (torch.where(valid > 0.5, m, 0.0) for m in (prediction, target))
    predicted, true = (F.avg_pool2d(mask, _SCALE) for mask in (prediction, target))
    precision = _share(soft_skeleton(predicted, iterations=_ITERATIONS), inside=true)
    with torch.no_grad():
        centerline = soft_skeleton(true, iterations=_ITERATIONS)
    sensitivity = _share(centerline, inside=predicted)
    return torch.mean(1 - 2 * precision * sensitivity / (precision + sensitivity))


def _share(centerline: Tensor, *, inside: Tensor) -> Tensor:
    dims = (1, 2, 3)
    return ((centerline * inside).sum(dims) + 1) / (centerline.sum(dims) + 1)


def _dilated(confidence: Tensor) -> Tensor:
    return F.max_pool2d(confidence, 3, stride=1, padding=1)


def _eroded(confidence: Tensor) -> Tensor:
    return -_dilated(-confidence)
