"""Losses of the paper (section 3.5), and three more: soft IoU, soft clDice and harm.

Focal and boundary terms compare with the region-thresholded target, cross entropy with the ground
truth. Predictions in [0, 1] and targets in {0, 1} are float tensors (B, 1, H, W). They are passed
by keyword only, because swapped they would still give a number. Predictions may have a leading axis
of branches, which all have the same target. Values and gradients are finite at 0 and 1.

``valid`` has the target's shape and is 1 where a pixel counts; None = everywhere. Other pixels do
not influence any loss and get no gradient: means are over the valid pixels of the batch, and the
border of an invalid area is not an edge.

Soft clDice (Shit et al., 2021, section 3.2, algorithms 1, 2) measures how much of the predicted
centreline lies in the true mask, and of the true centreline in the prediction. So a short gap in a
road costs as much as many wrong pixels along its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geothresh.nn.config import LossWeights

#: Confidences are scaled into [margin, 1 - margin] before a logarithm is taken. They are not
#: clamped: that would stop the gradient exactly where the prediction is most wrong.
_MARGIN = 1e-6
#: Edge maps are exactly 0 wherever a map is flat, so their margin is wider.
_EDGE_MARGIN = 1e-3

#: Confidences of 0.27 and 0.73 become 0.02 and 0.98: nearly the mask, and there is a gradient.
_SHARPNESS = 4

#: Skeletons are computed at half of the chip's resolution, in a quarter of the time: roads are
#: wider than two pixels.
_SCALE = 2
#: Erosions at that resolution: they find the centrelines of roads up to 42 pixels wide.
_ITERATIONS = 10


def focal_loss(*, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of -(1 - c_t)^2 log c_t, where c_t is the confidence in the true class."""
    # Gives exactly p or 1 - p; torch.where would take longer than this arithmetic.
    true = (target > 0.5).to(prediction.dtype)
    given = (1 - true) + (2 * true - 1) * prediction
    return _mean(-((1 - given) ** 2) * torch.log(_inside(given, _MARGIN)), valid)


def cross_entropy_loss(
    *, prediction: Tensor, target: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Mean binary cross entropy; the target may be soft."""
    return _mean(_cross_entropy(prediction, target, _MARGIN), valid)


def boundary_loss(*, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean binary cross entropy between the edge maps of target and prediction."""
    edges = edge_map(prediction, valid), edge_map(target, valid)
    return _mean(_cross_entropy(*edges, _EDGE_MARGIN), valid)


def overlap_loss(*, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """One minus soft IoU, averaged over chips.

    One pixel is added to intersection and union, so that the false positives of a chip without
    foreground are still penalised.
    """
    return torch.mean(1 - _soft_iou(prediction, target, valid))


def harm_loss(
    *, confidence: Tensor, prediction: Tensor, target: Tensor, valid: Tensor | None = None
) -> Tensor:
    """IoU that the prediction loses against the input confidence, averaged over chips.

    A chip that gains counts as 0. So a change that is right on average is made less readily where
    it may also be wrong. Both maps are sharpened first, so that what counts is how they would be
    cut at 0.5: their soft IoU would rise by surer predictions alone.

    Args:
        confidence: the chips that the network has read, in [0, 1], float (B, 1, H, W).
        prediction: confidences in [0, 1], the same shape.
        target: 0 or 1, the same shape.
        valid: 1 where a pixel counts, the same shape; None = everywhere.
    """
    with torch.no_grad():
        before = _soft_iou(_sharpened(confidence), target, valid)
    return torch.mean(F.relu(before - _soft_iou(_sharpened(prediction), target, valid)))


def edge_map(confidence: Tensor, valid: Tensor | None = None) -> Tensor:
    """Edge strength abs(tanh(Laplacian)), in [0, 1); undefined at invalid pixels.

    Borders are replicated, so neither the frame nor the border of an invalid area is an edge.
    """
    laplace = _laplacian(_known(confidence, valid))
    if valid is not None:
        # An invalid neighbour is 0 here: treat it as equal to the pixel itself. `_known` is called
        # again because with a shared result gradients would be summed in another order, and
        # trainings would no longer end in the same bytes.
        laplace = laplace + _known(confidence, valid) * _laplacian(1 - valid.to(confidence.dtype))
    return torch.tanh(laplace).abs()


def threshnet_loss(
    *,
    confidence: Tensor,
    logits: Sequence[Tensor],
    region_target: Tensor,
    truth: Tensor,
    weights: LossWeights,
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """The training loss and its parts, each averaged over the branches.

    Args:
        confidence: the chips that the network has read, (B, 1, T, T).
        logits: logits of each branch, (B, 1, T, T).
        region_target: Y_th, the confidence map cut at its best region-specific thresholds.
        truth: Y, the ground truth.
        weights: weights of the parts.
        valid: 1 where confidence and truth are known, (B, 1, T, T); None = everywhere.

    Returns:
        ``total`` (to be differentiated), and the unweighted ``focal``, ``boundary``,
        ``cross_entropy`` and ``overlap``. ``centerline`` and ``harm``, which is that of the mean
        of the branches, take time, so they are only there if their weights are not 0.
    """
    prediction = torch.stack([branch.float() for branch in logits]).sigmoid()
    parts = {
        "focal": focal_loss(prediction=prediction, target=region_target, valid=valid),
        "boundary": boundary_loss(prediction=prediction, target=region_target, valid=valid),
        "cross_entropy": cross_entropy_loss(prediction=prediction, target=truth, valid=valid),
        "overlap": overlap_loss(prediction=prediction, target=truth, valid=valid),
    }
    if weights.centerline:
        n = len(logits)
        parts["centerline"] = centerline_loss(
            prediction=prediction.flatten(0, 1),
            target=truth.repeat(n, 1, 1, 1),
            valid=None if valid is None else valid.repeat(n, 1, 1, 1),
        )
    a = weights.region
    total = (
        a * (weights.focal * parts["focal"] + weights.boundary * parts["boundary"])
        + (1 - a) * parts["cross_entropy"]
        + weights.overlap * parts["overlap"]
    )
    if weights.centerline:
        total = total + weights.centerline * parts["centerline"]
    if weights.harm:
        parts["harm"] = harm_loss(
            confidence=confidence.float(), prediction=prediction.mean(0), target=truth, valid=valid
        )
        total = total + weights.harm * parts["harm"]
    return {"total": total, **parts}


def _inside(values: Tensor, margin: float) -> Tensor:
    return values * (1 - 2 * margin) + margin


def _cross_entropy(prediction: Tensor, target: Tensor, margin: float) -> Tensor:
    p = _inside(prediction, margin)
    return -target * torch.log(p) - (1 - target) * torch.log(1 - p)


def _soft_iou(prediction: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Soft IoU of each chip, (..., B), with one pixel more in intersection and union."""
    dims = (-3, -2, -1)
    prediction, target = _known(prediction, valid), _known(target, valid)
    intersection = (prediction * target).sum(dims)
    union = (prediction + target - prediction * target).sum(dims)
    return (intersection + 1) / (union + 1)


def _sharpened(confidence: Tensor) -> Tensor:
    """The logistic of `_SHARPNESS` times the logit; finite at 0 and 1."""
    for_, against = confidence**_SHARPNESS, (1 - confidence) ** _SHARPNESS
    return for_ / (for_ + against)


def _known(values: Tensor, valid: Tensor | None) -> Tensor:
    """Set invalid pixels to 0 and stop their gradient."""
    return values if valid is None else torch.where(valid > 0.5, values, 0.0)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the valid pixels; 0 if there is none."""
    if valid is None:
        return torch.mean(values)
    counted = (valid > 0.5).expand_as(values).sum()
    return _known(values, valid).sum() / counted.clamp(min=1)


class _Laplacian(torch.autograd.Function):
    """Laplacian as the sum of differences to the neighbours inside the map.

    A convolution with replicated borders gives the same, but its forward and backward passes over a
    single channel take three quarters of the time of the whole loss on a CPU. The Laplacian is
    self-adjoint, so the backward pass is the same operation.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        laplacian = torch.zeros_like(values)
        for dim in (-2, -1):
            n = values.shape[dim] - 1
            step = values.narrow(dim, 1, n) - values.narrow(dim, 0, n)
            laplacian.narrow(dim, 0, n).add_(step)
            laplacian.narrow(dim, 1, n).sub_(step)
        return laplacian

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _laplacian(gradients[0])


def _laplacian(values: Tensor) -> Tensor:
    # torch does not annotate Function.apply.
    laplacian: Tensor = _Laplacian.apply(values)  # type: ignore[no-untyped-call]
    return laplacian


def soft_skeleton(confidence: Tensor, *, iterations: int) -> Tensor:
    """Soft skeleton of soft masks: the sum of what an opening removes after each erosion.

    Args:
        confidence: (B, 1, H, W) in [0, 1].
        iterations: erosions; shapes up to ``2 * iterations + 1`` pixels wide have a centreline.

    Returns:
        (B, 1, H, W) in [0, 1]; for a hard mask, 0 or 1.
    """
    eroded = _as_channels(confidence)
    smaller = _eroded(eroded)
    skeleton = F.relu(eroded - _dilated(smaller))
    for _ in range(iterations):
        eroded, smaller = smaller, _eroded(smaller)
        skeleton = skeleton + (1 - skeleton) * F.relu(eroded - _dilated(smaller))
    return skeleton.transpose(0, 1)


def centerline_loss(*, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Soft clDice loss: 1 minus the harmonic mean of centreline precision and sensitivity.

    Averaged over chips. One pixel is added to each sum, so that the false positives of a chip
    without foreground are still penalised.

    Args:
        prediction: confidences in [0, 1], float (B, 1, H, W).
        target: 0 or 1, the same shape.
        valid: 1 where a pixel counts, the same shape; None = everywhere.
    """
    if valid is not None:
        prediction, target = (torch.where(valid > 0.5, m, 0.0) for m in (prediction, target))
    # Same memory layout as the skeletons, because gradients take it from what they multiply.
    predicted, true = (
        _as_channels(F.avg_pool2d(mask, _SCALE)).transpose(0, 1) for mask in (prediction, target)
    )
    precision = _share(soft_skeleton(predicted, iterations=_ITERATIONS), inside=true)
    with torch.no_grad():
        centerline = soft_skeleton(true, iterations=_ITERATIONS)
    sensitivity = _share(centerline, inside=predicted)
    return torch.mean(1 - 2 * precision * sensitivity / (precision + sensitivity))


def _share(centerline: Tensor, *, inside: Tensor) -> Tensor:
    dims = (1, 2, 3)
    return ((centerline * inside).sum(dims) + 1) / (centerline.sum(dims) + 1)


def _as_channels(chips: Tensor) -> Tensor:
    """View (B, 1, H, W) as (1, B, H, W), channels last: pooling is then ten times as fast."""
    return chips.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _dilated(confidence: Tensor) -> Tensor:
    """Maximum of each pixel and its eight neighbours."""
    if confidence.requires_grad or confidence.device.type != "cpu":
        return F.max_pool2d(confidence, 3, stride=1, padding=1)
    # A fifth of the time on a CPU: pooling also stores the index of each maximum, for gradients.
    for dim in (-2, -1):
        n = confidence.shape[dim] - 1
        greatest = confidence.clone()
        for start, neighbour in ((0, 1), (1, 0)):
            part = greatest.narrow(dim, start, n)
            torch.maximum(part, confidence.narrow(dim, neighbour, n), out=part)
        confidence = greatest
    return confidence


def _eroded(confidence: Tensor) -> Tensor:
    return -_dilated(-confidence)
