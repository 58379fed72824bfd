"""Base networks: how they are built, what their files say, and that they learn."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from geothresh.api.models import load_model
from geothresh.base import pretrained
from geothresh.base.config import NETWORKS, BaseConfig, BasePlan, BaseRecipe
from geothresh.base.networks import (
    DilatedCentre,
    build_network,
    describe_network,
    load_base_weights,
    read_base_card,
    require_any_size,
)
from geothresh.base.predictor import BaseSource
from geothresh.base.pretrained import segmentation_models, weights_name
from geothresh.base.task import BaseTask, Crops, segmentation_loss, snapshot_steps
from geothresh.durability.resuming import find_state
from geothresh.errors import InputError, ModelError, UsageError
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import BASE, beside, digest, read_card, require_seal, save_model
from geothresh.nn.network import ThreshNet
from geothresh.raster.image_pairs import ImagePair, find_images
from geothresh.training import loop
from tests.support.imagery import image_set, in_one_pass
from tests.support.networks import encoder_file

SMALL = BaseConfig(network="linknet", encoder="mobilenet_v2")
QUICK = BaseRecipe(steps=4, crop_size=64, batch_size=2, precision="fp32")


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("rfcn", "pfan")])
def test_every_network_gives_a_logit_for_each_pixel(name: str) -> None:
    """Those on VGG, which takes seconds to build, are in test_paper_networks."""
    network = build_network(describe_network(name)).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 1, 64, 96)
    assert torch.isfinite(logits).all()


def test_d_linknet_is_linknet_but_for_its_centre() -> None:
    plain: Any = build_network(BaseConfig(network="linknet")).eval()
    dilated: Any = build_network(BaseConfig(network="dlinknet")).eval()
    centre = dilated.decoder.centre
    assert [tuple(c.dilation) for c in centre.convolutions] == [(1, 1), (2, 2), (4, 4), (8, 8)]
    own = {k.replace("decoder.", "decoder.decoder.", 1): v for k, v in plain.state_dict().items()}
    own |= {k: v for k, v in dilated.state_dict().items() if ".centre." in k}
    dilated.load_state_dict(own)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(dilated(image), plain(image))
        for convolution in centre.convolutions:
            convolution.weight.zero_()
        torch.testing.assert_close(dilated(image), plain(image), rtol=0, atol=0)


def test_the_dilated_centre_sees_thirty_one_pixels() -> None:
    centre = DilatedCentre(1)
    for convolution in centre.convolutions:
        torch.nn.init.ones_(convolution.weight)
    point = torch.zeros(1, 1, 63, 63)
    point[0, 0, 31, 31] = 1
    with torch.no_grad():
        (rows,) = torch.nonzero(centre(point)[0, 0].sum(1), as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (31 - 15, 31 + 15)


def test_fcn8s_starts_as_bilinear_interpolation_of_its_scores() -> None:
    network: Any = build_network(BaseConfig(network="fcn8s")).eval()
    for score in (network.score8, network.score16, network.score32):
        torch.nn.init.zeros_(score.weight)
    torch.nn.init.ones_(network.score32.bias)
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 256, 256))[0, 0]
        rest = network.score8.bias + network.score16.bias
    # Away from the border, where a transposed convolution misses neighbours.
    np.testing.assert_allclose(logits[64:-64, 64:-64], (1 + rest).expand(128, 128), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "encoder", "said"),
    [
        ("segnet", "resnet18", "'segnet' is unknown"),
        ("linknet", "resnet19", "'resnet19' is unknown.*resnet18"),
        ("linknet", "tu-hf-hub:timm/resnet18.a1_in1k", "no name of letters"),
    ],
)
def test_what_does_not_exist_is_named(network: str, encoder: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        describe_network(network, encoder)


def test_a_file_cannot_have_its_encoder_fetched_or_overflow_a_float(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for entry in (
        {"encoder": "tu-hf-hub:a/b"},
        {"encoder": "tu-local-dir:/"},
        {"mean": [10**400] * 3},
    ):
        values = BaseConfig().as_dict() | entry
        config = SimpleNamespace(as_dict=lambda values=values: values)
        save_model(path, kind=BASE, tensors={}, config=config, training={"data": {"train": []}})
        with pytest.raises(ModelError, match="garbled"):
            read_base_card(path)


@pytest.mark.parametrize("data", [{}, {"train": 5}, {"train": [["a"]]}])
def test_a_file_that_does_not_say_what_it_was_trained_on_is_refused(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, kind=BASE, tensors={}, config=BaseConfig(), training={"data": data})
    with pytest.raises(ModelError, match="does not say what it was trained on"):
        read_base_card(path)


def test_an_encoder_that_does_not_go_with_a_network_is_named() -> None:
    with pytest.raises(UsageError, match="linknet cannot be built on encoder 'mit_b0'"):
        build_network(BaseConfig(network="linknet", encoder="mit_b0"))


def test_an_encoder_for_images_of_one_size_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    config = describe_network("unet", "tu-swin_tiny_patch4_window7_224")
    plan = BasePlan(network="unet", encoder=config.encoder, recipe=QUICK)
    pairs = find_images(image_set(tmp_path / "set", 2))
    with pytest.raises(UsageError, match=r"tu-swin.*224.*choose another encoder"):
        BaseTask(pairs, tmp_path / "m.safetensors", config=config, plan=plan, data={}, device="cpu")


def test_the_check_before_training_changes_nothing() -> None:
    torch.manual_seed(3)
    network = build_network(SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = torch.get_rng_state()
    require_any_size(network, SMALL)
    assert network.training and torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_that_cannot_be_fetched_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        try:
            raise OSError("Name or service not known")
        except OSError:
            raise RuntimeError("the client has been closed")  # noqa: B904

    encoders = segmentation_models().encoders
    monkeypatch.setattr(encoders, "get_preprocessing_params", fails)
    monkeypatch.setattr(encoders, "get_encoder", fails)
    said = "cannot be fetched.*Name or service not known.*`encoder_weights=none`"
    with pytest.raises(InputError, match=said):
        describe_network("linknet", "resnet18", "imagenet")
    with pytest.raises(InputError, match=said):
        build_network(BaseConfig(), "imagenet")
    with pytest.raises(UsageError, match="has no imagenet weights"):
        describe_network("linknet", "resnext101_32x16d", "imagenet")


def test_the_normalisation_is_that_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"input_range": [0, 255], "mean": [51, 102, 127.5], "std": [255, 51, 51]}
    monkeypatch.setattr(
        segmentation_models().encoders, "get_preprocessing_params", lambda *_, **__: given
    )
    config = describe_network("linknet", "resnet18", "imagenet")
    assert (config.mean, config.std) == ((0.2, 0.4, 0.5), (1.0, 0.2, 0.2))


@pytest.mark.parametrize("network", ["linknet", "dlinknet", "pspnet", "fcn8s"])
def test_an_encoder_starts_from_a_file(tmp_path: Path, network: str) -> None:
    path = tmp_path / "encoder.safetensors"
    tensors = encoder_file(path)
    built: Any = build_network(BaseConfig(network=network), str(path))
    own = built.encoder.state_dict()
    assert own and all(torch.equal(value, tensors[name]) for name, value in own.items())
    assert weights_name(str(path)) == f"sha256:{digest(path)}"


def test_images_are_normalised_as_the_library_says_for_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder_file(path)
    assert describe_network("linknet", "resnet18", str(path)) == BaseConfig()
    lite = describe_network("unet", "tu-tf_efficientnet_lite0", str(path))
    assert (lite.mean, lite.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_norms_follow_the_weights_within_tens_of_steps() -> None:
    built = build_network(BaseConfig(network="pspnet", encoder="tu-tf_efficientnet_lite0"))
    norms = [m for m in built.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and {m.momentum for m in norms} == {0.1}


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder_file(path, "resnet34")
    with pytest.raises(ModelError, match=r"unknown.*state dict of .* encoder 'resnet18'"):
        build_network(BaseConfig(), str(path))
    with pytest.raises(InputError, match="no such file"):
        describe_network("linknet", "resnet18", str(tmp_path / "none.safetensors"))
    with pytest.raises(UsageError, match="imagenet21k"):
        describe_network("linknet", "resnet18", "imagenet21k")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(name: str, *rest: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", hidden)
    segmentation_models.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"pip install 'geothresh\[base\]'"):
            segmentation_models()
    finally:
        segmentation_models.cache_clear()


def test_only_the_missing_operator_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def other(name: str) -> Any:
        asked.append(name)
        raise RuntimeError("Detected that PyTorch and torchvision have different CUDA versions")

    monkeypatch.setattr(importlib, "import_module", other)
    with pytest.raises(RuntimeError, match="different CUDA"):
        pretrained._import_torchvision()
    assert asked == ["torchvision"]
    assert "torchvision" in sys.modules


def test_a_file_rebuilds_its_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    path = tmp_path / "m.safetensors"
    facts = {"data": {"train": ["b", "a"]}}
    save_model(path, kind=BASE, tensors=network.state_dict(), config=SMALL, training=facts)
    card = read_base_card(path)
    assert card.config == SMALL
    assert card.trained_ids == {"a", "b"}
    predictor = BaseSource.find(path, device="cpu", precision="fp32").load()
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    values = (image / 255 - np.array(SMALL.mean)) / np.array(SMALL.std)
    with torch.no_grad():
        logits = network(torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None])
    expected = torch.sigmoid(logits)[0, 0].numpy()
    np.testing.assert_allclose(in_one_pass(predictor, image), expected, atol=1e-5)


def test_files_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    base, thresh = tmp_path / "base.safetensors", tmp_path / "thresh.safetensors"
    network = build_network(SMALL)
    facts: dict[str, Any] = {"data": {"train": []}}
    save_model(base, kind=BASE, tensors=network.state_dict(), config=SMALL, training=facts)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16, shuffle=2)
    save_model(thresh, tensors=ThreshNet(config).state_dict(), config=config, training={})
    with pytest.raises(ModelError, match="is a base network, which is for `geothresh base predict"):
        load_model(base)
    with pytest.raises(ModelError, match="is a base network"):
        read_card(base)
    with pytest.raises(ModelError, match="is a ThreshNet, which is for `geothresh refine"):
        BaseSource.find(thresh).load()
    other = BaseConfig(network="unet", encoder="mobilenet_v2")
    with pytest.raises(ModelError, match="missing"):
        load_base_weights(base, other)


def test_the_loss_is_least_for_the_truth_and_finite_for_nothing() -> None:
    truth = (torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    right = (2 * truth - 1) * 9
    losses = [float(segmentation_loss(right * share, truth)) for share in (-1, 0, 0.5, 1)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01
    empty = torch.zeros(1, 8, 8, requires_grad=True)
    segmentation_loss(empty, torch.zeros(1, 8, 8)).backward()
    assert empty.grad is not None and torch.isfinite(empty.grad).all()


def test_crops_show_every_image_once_a_pass_and_masks_go_along(tmp_path: Path) -> None:
    pairs = find_images(image_set(tmp_path / "d", 6))
    recipe = BaseRecipe(steps=3, crop_size=64, batch_size=2, jitter=0)
    crops = Crops(pairs, recipe)
    seen = []
    for step in range(3):
        images, masks = crops.batch(step)
        assert images.shape == (2, 64, 64, 3) and masks.shape == (2, 64, 64)
        # Roads are bright, the ground is dark, whatever way the crop was turned.
        assert ((images[..., 0] > 0.5) == (masks > 0)).all()
        seen += [float(image.sum()) for image in images]
    assert len({round(value, 1) for value in seen}) == 6
    again = Crops(pairs, recipe).batch(1)
    assert all((a == b).all() for a, b in zip(again, crops.batch(1), strict=True))


def test_small_images_are_mirrored_to_the_crop(tmp_path: Path) -> None:
    pairs = find_images(image_set(tmp_path / "d", 2, side=40))
    images, masks = Crops(pairs, QUICK).batch(0)
    assert images.shape == (2, 64, 64, 3) and masks.shape == (2, 64, 64)


@pytest.mark.parametrize(
    ("steps", "snapshots", "expected"),
    [(100, 0, []), (100, 3, [25, 50, 75]), (2, 5, [1]), (10, 1, [5])],
)
def test_snapshots_are_spread_evenly(steps: int, snapshots: int, expected: list[int]) -> None:
    assert snapshot_steps(steps, snapshots) == expected


class Stopped(Exception):
    """What a kill is to the loop."""


def fit(
    pairs: list[ImagePair], output: Path, *, config: BaseConfig = SMALL,
    recipe: BaseRecipe = QUICK, snapshots: int = 0, state: Path | None = None, **on: Any,
) -> None:  # fmt: skip
    """Train a network that says of its data what none checks."""
    plan = BasePlan(recipe=recipe, snapshots=snapshots)
    task = BaseTask(
        pairs, output, config=config, plan=plan, data={"train": []}, device="cpu",
        resumed=state is not None,
    )  # fmt: skip
    loop.fit(task, output, state=state, **on)


@pytest.mark.parametrize("network", ["linknet", "pspnet"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    """PSPNet has dropout, whose noise must be that of the step."""
    pairs = find_images(image_set(tmp_path / "d", 3))
    config = BaseConfig(network=network, encoder="mobilenet_v2")

    def run(name: str, stop: int | None = None, resume: bool = False) -> Path:
        def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
            if step == stop:
                raise Stopped

        output = tmp_path / name
        states = beside(output, ".state.safetensors")
        state = find_state(states, require_seal) if resume else None
        fit(pairs, output, config=config, snapshots=1, state=state, on_step=on_step)
        return output

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    whole = run("whole.safetensors")
    with pytest.raises(Stopped):
        run("part.safetensors", stop=3)
    part = tmp_path / "part.safetensors"
    assert not part.exists() and beside(part, ".state.safetensors").exists()
    run("part.safetensors", resume=True)
    assert not beside(part, ".state.safetensors").exists()
    for ending in (".safetensors", ".step00002.safetensors"):
        assert beside(whole, ending).read_bytes() == beside(part, ending).read_bytes()


@pytest.mark.parametrize("snapshots", [0, 1])
def test_weights_that_are_not_finite_are_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: int
) -> None:
    def step(task: BaseTask, *_: object) -> dict[str, float]:
        with torch.no_grad():
            next(task.network.parameters()).fill_(torch.nan)
        return {"total": 1.0}

    monkeypatch.setattr(loop, "_step", step)
    output = tmp_path / "m.safetensors"
    at = 2 if snapshots else 4
    with pytest.raises(ModelError, match=f"weights are not finite in epoch 1, step {at}; lower `"):
        fit(find_images(image_set(tmp_path / "d", 3)), output, snapshots=snapshots)
    assert not output.exists() and not list(tmp_path.glob("m.step*"))


def test_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    pairs = find_images(image_set(tmp_path / "d", 3))
    output = tmp_path / "m.safetensors"

    def stop(*_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit(pairs, output, on_step=stop)
    other = BaseRecipe(steps=5, crop_size=64, batch_size=2, precision="fp32")
    with pytest.raises(ModelError, match=r"another recipe \(steps 4, now 5\)"):
        fit(pairs, output, recipe=other, state=beside(output, ".state.safetensors"))
