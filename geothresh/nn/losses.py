"""The loss of section 3.5: focal and boundary terms against the region-thresholded target, cross
entropy against the ground truth.

All take confidences in [0, 1] and targets in {0, 1}, float tensors of one shape (B, 1, H, W), by
keyword only: swapped, they would still give a number. Values and gradients are finite at 0 and 1.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from geothresh.nn.centerline import centerline_loss
from geothresh.nn.loss_weights import LossWeights
from geothresh.nn.network import BranchLogits

#: Confidences are drawn this far from 0 and 1 before a logarithm is taken. Drawn, not clamped: a
#: clamp would stop the gradient just where the prediction is most wrong.
_MARGIN = 1e-6
#: Edge maps are exactly 0 wherever a map is flat, so theirs is wider.
_EDGE_MARGIN = 1e-3


def focal_loss(*, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of -(1 - c_t)^2 log c_t, c_t = confidence given to the true class."""
    given = torch.where(target > 0.5, prediction, 1 - prediction)
    return torch.mean(-((1 - given) ** 2) * torch.log(_inside(given, _MARGIN)))


def cross_entropy_loss(*, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy; the target may be soft."""
    return _cross_entropy(prediction, target, _MARGIN)


def boundary_loss(*, prediction: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy between the edge maps of target and prediction."""
    return _cross_entropy(edge_map(prediction), edge_map(target), _EDGE_MARGIN)


def overlap_loss(*, prediction: Tensor, target: Tensor) -> Tensor:
    """One minus soft IoU, averaged over chips.

    One pixel is added to intersection and union: a chip without foreground then still pulls its
    false positives down.
    """
    dims = (1, 2, 3)
    intersection = (prediction * target).sum(dims)
    union = (prediction + target - prediction * target).sum(dims)
    return torch.mean(1 - (intersection + 1) / (union + 1))


def edge_map(confidence: Tensor) -> Tensor:
    """abs(tanh(Laplace)), replicated at the border so that the frame is no edge."""
    padded = F.pad(confidence, (1, 1, 1, 1), mode="replicate")
    return torch.tanh(F.conv2d(padded, _laplace(confidence.device).to(padded.dtype))).abs()


def threshnet_loss(
    *, logits: BranchLogits, region_target: Tensor, truth: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """The training loss and its parts, each the mean over the two branches.

    Args:
        logits: of both branches, (B, 1, T, T).
        region_target: Y_th, the confidence map cut at its best region-specific thresholds.
        truth: Y, the ground truth.
        weights: of the parts.

    Returns:
        ``total`` (to be differentiated) and ``focal``, ``boundary``, ``cross_entropy``,
        ``overlap``, each unweighted; ``centerline`` too where it has a weight, for it takes time.
    """
    branches = []
    for branch in logits:
        prediction = branch.float().sigmoid()
        parts = {
            "focal": focal_loss(prediction=prediction, target=region_target),
            "boundary": boundary_loss(prediction=prediction, target=region_target),
            "cross_entropy": cross_entropy_loss(prediction=prediction, target=truth),
            "overlap": overlap_loss(prediction=prediction, target=truth),
        }
        if weights.centerline:
            parts["centerline"] = centerline_loss(prediction=prediction, target=truth)
        branches.append(parts)
    parts = {name: torch.stack([b[name] for b in branches]).mean() for name in branches[0]}
    a = weights.region
    total = (
        a * (weights.focal * parts["focal"] + weights.boundary * parts["boundary"])
        + (1 - a) * parts["cross_entropy"]
        + weights.overlap * parts["overlap"]
    )
    if weights.centerline:
        total = total + weights.centerline * parts["centerline"]
    return {"total": total, **parts}


def _inside(values: Tensor, margin: float) -> Tensor:
    return values * (1 - 2 * margin) + margin


def _cross_entropy(prediction: Tensor, target: Tensor, margin: float) -> Tensor:
    p = _inside(prediction, margin)
    return torch.mean(-target * torch.log(p) - (1 - target) * torch.log(1 - p))


@cache
def _laplace(device: torch.device) -> Tensor:
    kernel = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]
    return torch.tensor(kernel, device=device)[None, None]
