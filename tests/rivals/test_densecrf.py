"""DenseCRF on a lattice, beside the sums over all pairs of pixels that it stands for."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from geothresh.errors import DeviceLostError, InputError, ModelError, UsageError
from geothresh.rivals.cascadepsp import CascadePSP
from geothresh.rivals.densecrf import (
    CRFSettings,
    DenseCRF,
    bilateral_kernel,
    bilateral_points,
    place_kernel,
    search,
)
from geothresh.rivals.lattice import PermutohedralLattice


def gaussian(points: np.ndarray) -> np.ndarray:
    """The kernel between all pairs of points (N, d)."""
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    return np.exp(-squares / 2)


def naive(confidence: np.ndarray, image: np.ndarray, settings: CRFSettings) -> np.ndarray:
    """The mean field by sums over all pairs of pixels and over both labels."""
    rows, columns = np.indices(confidence.shape)
    places = np.stack([rows.ravel(), columns.ravel()], -1) / settings.place
    kernels = []
    for weight, points in (
        (settings.place_weight, places),
        (settings.both_weight, bilateral_points(image, settings)),
    ):
        kernel = gaussian(points)
        root = 1 / np.sqrt(kernel.sum(1))
        kernels.append(weight * kernel * root[:, None] * root[None])
    unary = np.stack([-np.log(1 - confidence.ravel()), -np.log(confidence.ravel())])
    share = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(settings.steps):
        energy = unary + sum(kernel @ share[::-1].T for kernel in kernels).T  # the other label's
        share = np.exp(-energy) / np.exp(-energy).sum(0)
    return share[1].reshape(confidence.shape)


def scene(seed: int = 0, side: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy map of a bright square, its image and its truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((side, side), bool)
    truth[side // 4 : 3 * side // 4, side // 4 :] = True
    image = np.where(truth[..., None], 200, 60) + rng.integers(-8, 9, (side, side, 3))
    confidence = expit(rng.normal(np.where(truth, 0.8, -0.8), 1.2))
    return confidence.astype(np.float32), image.astype(np.uint8), truth


@given(st.integers(1, 5), st.integers(0, 9))
def test_each_point_has_shares_in_its_simplex_that_sum_to_one(d: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(0, 3, (40, d))
    lattice = PermutohedralLattice(points)
    shares = lattice._slice
    np.testing.assert_allclose(np.asarray(shares.sum(1)).ravel(), 1)
    assert shares.data.min() >= -1e-9
    assert lattice.corners <= 40 * (d + 1)
    values = np.random.default_rng(seed + 1).random((40, 2))
    np.testing.assert_allclose(lattice.filtered(values)[:, 0], lattice.filtered(values[:, 0]))


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_lattice_blurs_like_a_gaussian(d: int) -> None:
    """Points close together: beyond the corners in use nothing is blurred."""
    rng = np.random.default_rng(d)
    points = rng.normal(0, 0.7, (1500, d))
    values = np.sin(points.sum(1)) + 1
    lattice, kernel = PermutohedralLattice(points), gaussian(points)
    found = lattice.filtered(values) / lattice.filtered(np.ones(len(points)))
    expected = kernel @ values / kernel.sum(1)
    assert np.abs(found - expected).max() < 0.15
    assert np.corrcoef(found, expected)[0, 1] > 0.98


def test_points_that_are_too_far_apart_for_a_lattice_are_told() -> None:
    with pytest.raises(UsageError, match="too far apart"):
        PermutohedralLattice(np.array([[0.0] * 5, [1e6] * 5]))


def test_the_kernels_are_those_of_all_pairs() -> None:
    _, image, truth = scene()
    settings = CRFSettings(both_place=6, both_colour=30)
    values = np.where(truth, 1.0, -1.0)
    for found, points in (
        (place_kernel((16, 16), 3.0), np.stack(np.indices((16, 16)), -1).reshape(-1, 2) / 3),
        (bilateral_kernel(image, settings), bilateral_points(image, settings)),
    ):
        kernel = gaussian(points)
        root = 1 / np.sqrt(kernel.sum(1))
        expected = root * (kernel @ (root * values.ravel()))
        np.testing.assert_allclose(found(values).ravel(), expected, atol=0.2)
    # The Gaussian of places has no lattice, and is exact.
    exact = place_kernel((16, 16), 3.0)(values).ravel()
    kernel = gaussian(np.stack(np.indices((16, 16)), -1).reshape(-1, 2) / 3)
    root = 1 / np.sqrt(kernel.sum(1))
    np.testing.assert_allclose(exact, root * (kernel @ (root * values.ravel())), atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_field_is_that_of_all_pairs_and_follows_the_image(seed: int) -> None:
    confidence, image, truth = scene(seed)
    settings = CRFSettings(place_weight=1, both_place=6, both_colour=30, both_weight=2, steps=4)
    found = DenseCRF(settings=settings)(confidence, image)
    expected = naive(confidence, image, settings)
    assert np.abs(found - expected).mean() < 0.03
    assert ((found >= 0.5) == (expected >= 0.5)).mean() > 0.98
    assert ((found >= 0.5) == truth).mean() > 0.95 > ((confidence >= 0.5) == truth).mean()


def test_without_weights_or_steps_a_map_stays_as_it_is() -> None:
    confidence, image, _ = scene()
    for settings in (CRFSettings(place_weight=0, both_weight=0), CRFSettings(steps=0)):
        np.testing.assert_allclose(
            DenseCRF(settings=settings)(confidence, image), confidence, atol=1e-5
        )
    assert np.isfinite(DenseCRF()(np.zeros((4, 4), np.float32), image[:4, :4])).all()


def test_a_search_takes_what_scores_best() -> None:
    samples = [scene(seed) for seed in range(2)]
    good = CRFSettings(place_weight=1, both_place=6, both_colour=30, both_weight=2)
    nothing = CRFSettings(place_weight=0, both_weight=0)
    told: list[tuple[int, int]] = []
    assert search(samples, [nothing, good], progress=lambda *at: told.append(at)) == good
    assert told[-1] == (4, 4)
    with pytest.raises(UsageError, match="needs a map and settings"):
        search([], [good])


def test_images_that_do_not_fit_are_told() -> None:
    confidence, image, _ = scene()
    with pytest.raises(UsageError, match="DenseCRF looks at the image, and there is none"):
        DenseCRF()(confidence)
    with pytest.raises(UsageError, match="the shape .8, 8, 3., its map .16, 16.;"):
        DenseCRF()(confidence, image[:8, :8])
    with pytest.raises(UsageError, match="widths of the kernels are above 0"):
        CRFSettings(place=0)


def test_cascadepsp_says_what_is_missing(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match="no such file of CascadePSP's weights"):
        CascadePSP(tmp_path / "model")
    (tmp_path / "model").write_bytes(b"weights")

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UsageError, match="pip install segmentation-refinement"):
        CascadePSP(tmp_path / "model")


def test_cascadepsp_gets_the_cut_and_its_answer_is_a_confidence(tmp_path, monkeypatch) -> None:
    """The package's own interface, without its network."""
    seen: dict[str, object] = {}

    class Refiner:
        def __init__(self, device, model_folder, download_and_check_model) -> None:
            assert download_and_check_model is False
            held = (tmp_path.__class__(model_folder) / "model").read_bytes()
            if held != b"weights":
                raise RuntimeError("invalid magic number")

        def refine(self, image, mask, fast) -> np.ndarray:
            seen.update(image=image, mask=mask, fast=fast)
            return 255 - mask

    package = type("package", (), {"Refiner": Refiner})
    monkeypatch.setattr(importlib, "import_module", lambda name: package)
    (tmp_path / "model").write_bytes(b"weights")
    confidence, image, _ = scene()
    found = CascadePSP(tmp_path / "model", fast=True)(confidence, image)
    np.testing.assert_array_equal(seen["mask"], np.where(confidence >= 0.5, 255, 0))
    assert seen["fast"] is True and seen["image"] is image
    np.testing.assert_array_equal(found, (confidence < 0.5).astype(np.float32))
    (tmp_path / "other").write_bytes(b"others")
    with pytest.raises(ModelError, match="not the weights of CascadePSP .invalid magic number"):
        CascadePSP(tmp_path / "other")


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), ModelError, "CascadePSP does not fit in"),
        (torch.AcceleratorError("CUDA error: launch failure"), DeviceLostError, "is lost"),
    ],
)
def test_faults_of_the_device_are_not_blamed_on_the_weights(
    tmp_path, monkeypatch, fault, expected, message
) -> None:
    class Refiner:
        def __init__(self, **_: object) -> None:
            raise fault

    package = type("package", (), {"Refiner": Refiner})
    monkeypatch.setattr(importlib, "import_module", lambda name: package)
    (tmp_path / "model").write_bytes(b"weights")
    with pytest.raises(expected, match=message):
        CascadePSP(tmp_path / "model")
    with pytest.raises(InputError, match="device cuda:99"):
        CascadePSP(tmp_path / "model", device="cuda:99")


@pytest.mark.parametrize("shape", [(8, 8, 4), (8,), (8, 8), (9, 8, 3)])
def test_an_image_of_another_shape_is_told_with_it(shape) -> None:
    told = re.escape(f"the shape {shape}, its map (8, 8); give an image (H, W, 3)")
    with pytest.raises(UsageError, match=told):
        DenseCRF()(np.full((8, 8), 0.6, np.float32), np.zeros(shape, np.uint8))
