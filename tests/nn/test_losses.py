"""The losses against their formulas, and where formulas break down: at 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from geothresh.nn import losses
from geothresh.nn.config import LossWeights
from geothresh.nn.losses import threshnet_loss

LOSSES = [
    losses.focal_loss,
    losses.cross_entropy_loss,
    losses.boundary_loss,
    losses.overlap_loss,
    losses.centerline_loss,
]


def maps(seed: int, *, margin: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    prediction = torch.from_numpy(rng.uniform(margin, 1 - margin, (2, 1, 24, 24)))
    blobs = ndimage.gaussian_filter(rng.normal(size=(2, 1, 24, 24)), (0, 0, 2, 2)) > 0
    return prediction, torch.from_numpy(blobs.astype(np.float64))


def test_focal_is_the_papers_formula() -> None:
    prediction, target = maps(0, margin=0.01)
    p, t = prediction.numpy(), target.numpy()
    given = np.where(t == 1, p, 1 - p)
    expected = np.mean(-((1 - given) ** 2) * np.log(given))
    found = losses.focal_loss(prediction=prediction, target=target)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_cross_entropy_is_torchs() -> None:
    prediction, target = maps(1, margin=0.01)
    found = losses.cross_entropy_loss(prediction=prediction, target=target)
    torch.testing.assert_close(
        found, F.binary_cross_entropy(prediction, target), rtol=1e-4, atol=1e-6
    )


def test_the_edge_map_is_the_hyperbolic_tangent_of_the_laplacian() -> None:
    _, target = maps(2)
    expected = np.abs(np.tanh(ndimage.laplace(target[0, 0].numpy(), mode="nearest")))
    found = losses.edge_map(target.float())[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not losses.edge_map(torch.ones(1, 1, 5, 5)).any(), "the frame is no edge"


def test_overlap_is_one_minus_iou_for_hard_masks() -> None:
    _, target = maps(3)
    _, other = maps(4)
    both, either = ((target * other).sum((1, 2, 3)), (target + other).clamp(max=1).sum((1, 2, 3)))
    found = losses.overlap_loss(prediction=other, target=target)
    assert found.item() == pytest.approx((1 - (both + 1) / (either + 1)).mean().item())


@pytest.mark.parametrize("loss", LOSSES)
def test_prediction_and_target_cannot_be_swapped_by_position(loss) -> None:
    with pytest.raises(TypeError):
        loss(*maps(5))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_value_and_gradient_are_finite_at_0_and_1(loss, dtype: torch.dtype, value: float) -> None:
    target = maps(6)[1].to(dtype)
    for prediction in (torch.full_like(target, value), target.clone(), 1 - target):
        prediction.requires_grad_(True)
        result = loss(prediction=prediction, target=target)
        result.backward()
        assert torch.isfinite(result)
        assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_falls_as_the_prediction_moves_to_the_target(loss) -> None:
    start, target = (part.float() for part in maps(7))
    # From the far side through the start: no part may reward standing still.
    values = [
        loss(prediction=torch.lerp(start, target, share), target=target).item()
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.6 * values[0]


def test_the_gradient_points_to_the_target() -> None:
    start, target = (part.float() for part in maps(8))
    for loss in (losses.focal_loss, losses.cross_entropy_loss, losses.overlap_loss):
        prediction = start.clone().requires_grad_(True)
        loss(prediction=prediction, target=target).backward()
        assert ((prediction.grad < 0) == (target == 1)).all(), loss.__name__


def test_the_total_weighs_the_parts_as_section_3_5_does() -> None:
    prediction, region_target = (part.float() for part in maps(9))
    truth = maps(10)[1].float()
    branches = (torch.logit(prediction), torch.logit(prediction) / 2)
    weights = LossWeights(region=0.7, focal=1.0, boundary=1.0, overlap=0.0)
    found = threshnet_loss(
        confidence=prediction, logits=branches, region_target=region_target, truth=truth,
        weights=weights,
    )  # fmt: skip
    expected = 0.0
    for branch in branches:
        p = branch.sigmoid()
        region = losses.focal_loss(prediction=p, target=region_target)
        region += losses.boundary_loss(prediction=p, target=region_target)
        regular = losses.cross_entropy_loss(prediction=p, target=truth)
        expected += (0.7 * region + 0.3 * regular).item() / 2
    assert found["total"].item() == pytest.approx(expected, rel=1e-5)
    with_overlap = threshnet_loss(
        confidence=prediction,
        logits=branches,
        region_target=region_target,
        truth=truth,
        weights=LossWeights(overlap=2.0),
    )
    extra = with_overlap["total"] - found["total"]
    assert extra.item() == pytest.approx(2 * found["overlap"].item(), rel=1e-4)


def test_harm_is_the_iou_that_a_mask_loses_and_nothing_where_it_gains() -> None:
    confidence, target = maps(11)
    cut = (confidence >= 0.5).double()
    worse, better = torch.minimum(cut, 1 - target), torch.maximum(cut, target)
    lost = losses.harm_loss(confidence=cut, prediction=worse, target=target)
    overlaps = [losses.overlap_loss(prediction=mask, target=target) for mask in (worse, cut)]
    assert lost.item() == pytest.approx((overlaps[0] - overlaps[1]).item())
    assert losses.harm_loss(confidence=cut, prediction=better, target=target) == 0
    assert losses.harm_loss(confidence=cut, prediction=cut, target=target) == 0


def test_harm_counts_each_chip_by_itself_and_the_cut_not_the_certainty() -> None:
    target = maps(12)[1]
    unsure, wrong = 0.25 + 0.5 * target, 1 - target
    one_of_two = torch.cat([1 - unsure[:1], target[1:]])
    half = losses.harm_loss(confidence=unsure, prediction=one_of_two, target=target)
    whole = losses.harm_loss(confidence=unsure[:1], prediction=1 - unsure[:1], target=target[:1])
    assert half.item() == pytest.approx(whole.item() / 2, rel=0.05)
    sure = losses.harm_loss(confidence=unsure, prediction=wrong, target=target)
    as_unsure = losses.harm_loss(confidence=unsure, prediction=1 - unsure, target=target)
    assert as_unsure.item() == pytest.approx(sure.item(), rel=0.05)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_harm_and_its_gradient_are_finite_at_0_and_1(value: float) -> None:
    target = maps(13)[1].float()
    confidence = torch.full_like(target, value)
    for prediction in (torch.full_like(target, value), target.clone(), 1 - target):
        prediction.requires_grad_(True)
        result = losses.harm_loss(confidence=confidence, prediction=prediction, target=target)
        result.backward()
        assert torch.isfinite(result)
        assert torch.isfinite(prediction.grad).all()


def test_harm_joins_the_total_where_it_has_a_weight() -> None:
    confidence, target = (part.float() for part in maps(14))
    logits = (torch.logit(0.2 + 0.6 * (1 - target)), torch.logit(0.4 + 0.2 * target))
    plain, weighed = (
        threshnet_loss(
            confidence=confidence, logits=logits, region_target=target, truth=target,
            weights=weights,
        )
        for weights in (LossWeights(), LossWeights(harm=3.0))
    )  # fmt: skip
    assert "harm" not in plain
    mean = torch.stack(logits).sigmoid().mean(0)
    lost = losses.harm_loss(confidence=confidence, prediction=mean, target=target)
    assert lost > 0.01
    assert (weighed["total"] - plain["total"]).item() == pytest.approx(3 * lost.item(), rel=1e-4)


def holes(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=(2, 1, 24, 24)), (0, 0, 3, 3)) > -0.05
    return torch.from_numpy(blobs.astype(np.float64))


@pytest.mark.parametrize("loss", LOSSES)
def test_pixels_that_are_not_valid_have_no_influence(loss) -> None:
    valid = holes(11)
    assert 0.2 < valid.mean() < 0.9
    outcomes = []
    for seed in (12, 13):
        prediction, target = maps(14, margin=0.01)
        other_prediction, other_target = maps(seed, margin=0.01)
        prediction = torch.where(valid == 1, prediction, other_prediction).requires_grad_(True)
        target = torch.where(valid == 1, target, other_target)
        value = loss(prediction=prediction, target=target, valid=valid)
        value.backward()
        assert not prediction.grad[valid == 0].any()
        assert prediction.grad[valid == 1].any()
        outcomes.append((value.item(), prediction.grad))
    assert outcomes[0][0] == outcomes[1][0]
    assert torch.equal(outcomes[0][1], outcomes[1][1])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_over_all_pixels_is_the_loss_without_a_mask(loss) -> None:
    prediction, target = (part.float() for part in maps(15))
    with_mask = loss(prediction=prediction, target=target, valid=torch.ones_like(target))
    assert with_mask.item() == pytest.approx(
        loss(prediction=prediction, target=target).item(), rel=1e-6
    )
    nothing = loss(prediction=prediction, target=target, valid=torch.zeros_like(target))
    assert nothing.item() == 0


def test_means_are_over_the_valid_pixels() -> None:
    prediction, target = maps(16, margin=0.01)
    valid = torch.zeros_like(target)
    valid[:, :, :, 5:17] = 1
    inside = [part[:, :, :, 5:17].contiguous() for part in (prediction, target)]
    # A rectangle stands for itself in these: its border is replicated as a map's own is.
    for loss in (losses.focal_loss, losses.cross_entropy_loss, losses.boundary_loss):
        found = loss(prediction=prediction, target=target, valid=valid)
        expected = loss(prediction=inside[0], target=inside[1])
        assert found.item() == pytest.approx(expected.item(), rel=1e-9), loss.__name__


def test_the_border_of_missing_data_is_no_edge() -> None:
    valid = holes(17).float()
    flat = torch.where(valid == 1, 1.0, 0.0)
    edges = losses.edge_map(flat, valid)
    assert not edges[valid == 1].any()
    assert losses.edge_map(flat)[valid == 1].any()


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss is not losses.centerline_loss])
@pytest.mark.parametrize("gaps", [False, True])
def test_branches_together_give_the_mean_over_branches(loss, gaps: bool) -> None:
    first, target = maps(15)
    second, _ = maps(16)
    valid = holes(17) if gaps else None
    both = loss(prediction=torch.stack([first, second]), target=target, valid=valid)
    alone = [loss(prediction=p, target=target, valid=valid).item() for p in (first, second)]
    assert both.item() == pytest.approx(np.mean(alone), rel=1e-12)
