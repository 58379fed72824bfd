"""ResUNet, ResUNet++, RFCN and PFAN: what their papers say of them holds, and they learn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geothresh.base.config import BaseConfig
from geothresh.base.networks import build_network, describe_network, load_base_weights
from geothresh.base.predictor import BaseSource
from geothresh.base.resunet import AtrousPyramid, DecoderAttention, ResidualUnit, SqueezeExcite
from geothresh.base.saliency import PFAN, RFCN, RFCN_STEPS, SpatialAttention
from geothresh.base.task import normalised, segmentation_loss
from geothresh.errors import ModelError, UsageError
from geothresh.nn.modelfile import BASE, save_model
from geothresh.raster.pairs import read_mask
from geothresh.raster.pictures import read_rgb, resized
from tests.support.networks import encoder_file

PAPER = ("resunet", "resunetpp", "rfcn", "pfan")
POLYPS = Path(__file__).parents[3] / "shared" / "data" / "polyps-clinicdb"


class Narrow(nn.Module):
    """An encoder like VGG's, of few channels: VGG itself takes seconds to build."""

    channels = (4, 4, 8, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels[:-1])
        self.features = nn.Sequential(
            *(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)),
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for convolution in self.features:
            image = torch.relu(convolution(image))
            found.append(image)
            image = nn.functional.max_pool2d(image, 2)
        return [*found, image]


def built(network: str) -> Any:
    torch.manual_seed(0)
    if network in ("rfcn", "pfan"):
        make = RFCN if network == "rfcn" else PFAN
        return make(Narrow(), Narrow.channels)
    return build_network(describe_network(network))


def on_vgg16(network: str) -> Any:
    with torch.device("meta"):  # of which the shapes alone are looked at
        return build_network(describe_network(network, "vgg16"))


def parameters(network: torch.nn.Module, without: str = "nothing") -> int:
    return sum(p.numel() for name, p in network.named_parameters() if without not in name)


def test_resunet_has_the_parameters_of_its_paper_but_for_shortcuts() -> None:
    network = built("resunet")
    assert round(parameters(network, "shortcut") / 1e6, 1) == 7.8
    assert parameters(network) == 8_220_993


@pytest.mark.parametrize(
    ("network", "millions"), [("resunetpp", 4.05), ("rfcn", 14.72), ("pfan", 16.38)]
)
def test_parameters_are_those_that_the_docs_say(network: str, millions: float) -> None:
    made = on_vgg16(network) if network in ("rfcn", "pfan") else built(network)
    assert round(parameters(made) / 1e6, 2) == millions


@pytest.mark.parametrize("name", PAPER)
def test_a_forward_is_deterministic_and_finite(name: str) -> None:
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, second = (built(name).eval()(image) for _ in range(2))
    assert first.shape == (1, 1, 64, 96) and torch.isfinite(first).all()
    assert torch.equal(first, second)


def test_a_residual_unit_is_its_shortcut_where_its_convolutions_are_nothing() -> None:
    unit = ResidualUnit(3, 5, stride=2).eval()
    torch.nn.init.zeros_(unit.body[1][2].weight)
    torch.nn.init.zeros_(unit.body[1][2].bias)
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(unit(image), unit.shortcut(image))
        assert unit(image).shape == (1, 5, 4, 4)


def test_squeeze_and_excitation_weighs_whole_channels() -> None:
    features = torch.rand(2, 16, 5, 7) + 0.1
    with torch.no_grad():
        share = SqueezeExcite(16)(features) / features
    assert torch.allclose(share, share[..., :1, :1].expand_as(share))
    assert ((share > 0) & (share < 1)).all()


def test_an_atrous_pyramid_sees_eighteen_pixels_to_each_side() -> None:
    pyramid = AtrousPyramid(1, 1).eval()
    for name, parameter in pyramid.named_parameters():
        if "bias" not in name:
            torch.nn.init.ones_(parameter)
    point = torch.zeros(1, 1, 63, 63)
    with torch.no_grad():
        nothing = pyramid(point)
        point[0, 0, 31, 31] = 1
        (rows,) = torch.nonzero((pyramid(point) - nothing)[0, 0].abs().sum(1), as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (31 - 18, 31 + 18)


def test_attention_of_the_decoder_has_the_shape_of_what_it_weighs() -> None:
    out = DecoderAttention(4, 6)(torch.rand(1, 4, 16, 8), torch.rand(1, 6, 8, 4))
    assert out.shape == (1, 6, 8, 4)


def test_spatial_attention_reaches_four_pixels_along_rows_and_columns() -> None:
    attend = SpatialAttention(2).eval()
    point = torch.zeros(1, 2, 31, 31)
    with torch.no_grad():
        before = attend(point)
        assert ((before >= 0) & (before <= 1)).all()
        point[0, :, 15, 15] = 5
        touched = torch.nonzero((attend(point) - before)[0, 0])
    assert touched.amin(0).tolist() == [11, 11] and touched.amax(0).tolist() == [19, 19]


def test_rfcn_looks_again_with_what_it_has_found() -> None:
    network = built("rfcn")
    image = torch.rand(2, 3, 64, 64)
    assert network(image).shape == (2, RFCN_STEPS, 64, 64)
    network.eval()
    with torch.no_grad():
        once = network.once(torch.cat([image, torch.zeros(2, 1, 64, 64)], 1))
        twice = network.once(torch.cat([image, torch.sigmoid(once)], 1))
        assert torch.equal(network(image), twice)
        assert not torch.equal(once, twice)
        # Blind to what it has found, it finds the same again.
        network.once.encoder.features[0].weight[:, 3:] = 0
        assert torch.equal(network(image), network.once(torch.cat([image, image[:, :1]], 1)))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["rfcn", "pfan"])
def test_an_encoder_of_vgg_starts_from_a_file(tmp_path: Path, network: str) -> None:
    path = tmp_path / "vgg.safetensors"
    tensors = encoder_file(path, "vgg11")
    got: Any = build_network(BaseConfig(network=network, encoder="vgg11"), str(path))
    encoder = got.once.encoder if network == "rfcn" else got.encoder
    for name, value in encoder.state_dict().items():
        assert torch.equal(value[:, :3] if name == "features.0.weight" else value, tensors[name])


@pytest.mark.parametrize(
    ("network", "encoder", "weights", "said"),
    [
        ("resunet", "resnet18", "none", "resunet is of one piece and takes no encoder"),
        ("resunetpp", None, "imagenet", "no encoder that weights could be loaded into"),
        ("pfan", "resnet18", "none", "pfan is made for encoders of the VGG kind"),
        ("unet", "own", "none", "unet wants an encoder"),
    ],
)
def test_encoders_that_do_not_go_with_a_network_are_named(
    network: str, encoder: str | None, weights: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        describe_network(network, encoder, weights)


def test_networks_of_one_piece_have_their_own_name() -> None:
    assert describe_network("resunet").name == "resunet"
    assert describe_network("pfan").name == "pfan-vgg16_bn"
    assert describe_network("unet").name == "unet-resnet18"


@pytest.mark.parametrize(
    "name", ["resunetpp", *(pytest.param(n, marks=pytest.mark.slow) for n in PAPER[2:])]
)
def test_a_file_rebuilds_a_network_and_no_other(tmp_path: Path, name: str) -> None:
    config = describe_network(name, "vgg11" if name in ("rfcn", "pfan") else None)
    network, path = build_network(config).eval(), tmp_path / "m.safetensors"
    facts: dict[str, Any] = {"data": {"train": []}}
    save_model(path, kind=BASE, tensors=network.state_dict(), config=config, training=facts)
    tiles = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    with torch.no_grad():
        logits = network(normalised(tiles.transpose(0, 2, 3, 1), config))
    found = BaseSource.find(path, device="cpu", precision="fp32").load()(tiles)
    np.testing.assert_allclose(found, torch.sigmoid(logits)[:, 0].numpy(), atol=1e-5)
    with pytest.raises(ModelError, match=r"missing|unknown|shape"):
        load_base_weights(path, describe_network("resunet"))


@pytest.mark.slow
@pytest.mark.skipif(not POLYPS.is_dir(), reason="the images are not here")
@pytest.mark.parametrize(
    ("name", "encoder", "steps"),
    [
        ("resunet", None, 40), ("resunetpp", None, 80), ("rfcn", "vgg11_bn", 20),
        ("pfan", "vgg11_bn", 20),
    ],
)  # fmt: skip
def test_it_learns_on_real_images(name: str, encoder: str | None, steps: int) -> None:
    """Eight frames of four places, all of them in every step, small: the loss falls by a fifth."""
    config = describe_network(name, encoder)
    frames = [f"{number:03}" for number in range(1, 101, 13)]
    images = [resized(read_rgb(POLYPS / f"{i}_sat.jpg"), 64) for i in frames]
    masks = [resized(read_mask(POLYPS / f"{i}_mask.png"), 64) for i in frames]
    batch = normalised(np.stack(images).astype(np.float32) / np.float32(255), config)
    truth = torch.from_numpy(np.stack(masks)).float()
    torch.manual_seed(0)
    network = build_network(config).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = segmentation_loss(network(batch)[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
