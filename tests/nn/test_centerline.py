"""The centreline term against a skeleton by scipy, and what it is for: gaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from geothresh.nn.config import LossWeights
from geothresh.nn.losses import centerline_loss, soft_skeleton, threshnet_loss


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=(2, 40, 48)), (0, 3, 3)) > 0


def road(*, gap: int = 0, shift: int = 0) -> torch.Tensor:
    mask = np.zeros((1, 1, 64, 64), np.float32)
    mask[..., 28 + shift : 36 + shift, :] = 1
    mask[..., 30 : 30 + gap] = 0
    return torch.from_numpy(mask)


@pytest.mark.parametrize("iterations", [0, 1, 6])
def test_the_skeleton_of_hard_masks_is_the_morphological_one(iterations: int) -> None:
    masks = blobs(0)
    square = np.ones((3, 3), bool)
    for mask in masks:
        expected, eroded = np.zeros_like(mask), mask
        for _ in range(iterations + 1):
            # Beyond the border there is foreground, as the pooling has it: no skeleton at a frame.
            smaller = ndimage.binary_erosion(eroded, square, border_value=True)
            expected |= eroded & ~ndimage.binary_dilation(smaller, square)
            eroded = smaller
        tensor = torch.from_numpy(mask[None, None].astype(np.float32))
        found = soft_skeleton(tensor, iterations=iterations)
        np.testing.assert_array_equal(found[0, 0].numpy() == 1, expected)
        assert set(np.unique(found)) <= {0.0, 1.0}


def test_a_chip_alone_and_in_a_batch_has_the_same_skeleton() -> None:
    batch = torch.rand(3, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    together = soft_skeleton(batch, iterations=3)
    for chip, found in zip(batch, together, strict=True):
        torch.testing.assert_close(soft_skeleton(chip[None], iterations=3)[0], found)


def test_a_gap_costs_more_than_as_many_wrong_pixels_beside_the_road() -> None:
    target = road()
    cut, displaced = road(gap=16), road(shift=1)
    assert (cut != target).sum() == (displaced != target).sum()
    losses = [centerline_loss(prediction=p, target=target).item() for p in (cut, displaced)]
    assert centerline_loss(prediction=target, target=target) < 1e-6
    assert losses[0] > 0.1 and losses[1] < 0.02


def test_false_roads_on_an_empty_chip_are_pulled_down() -> None:
    prediction = (0.4 * road()).requires_grad_(True)
    centerline_loss(prediction=prediction, target=torch.zeros_like(road())).backward()
    assert prediction.grad is not None and prediction.grad.sum() > 0


def test_the_term_joins_the_total_where_it_has_a_weight() -> None:
    logits = (torch.logit(0.8 * road(gap=10) + 0.1), torch.logit(0.5 * road() + 0.2))
    plain, weighed = (
        threshnet_loss(
            confidence=road(), logits=logits, region_target=road(), truth=road(), weights=weights
        )
        for weights in (LossWeights(), LossWeights(centerline=0.5))
    )
    assert "centerline" not in plain
    expected = np.mean(
        [centerline_loss(prediction=b.sigmoid(), target=road()).item() for b in logits]
    )
    assert weighed["centerline"].item() == pytest.approx(expected, rel=1e-5)
    assert (weighed["total"] - plain["total"]).item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_a_skeleton_is_the_same_with_and_without_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    # Few levels, so that neighbours are often alike.
    chips = torch.randint(0, 5, (3, 1, 23, 31), generator=generator) / 4
    followed = soft_skeleton(chips.clone().requires_grad_(), iterations=4)
    assert followed.requires_grad
    assert torch.equal(soft_skeleton(chips, iterations=4), followed)
