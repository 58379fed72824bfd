"""Folding: the quick network gives what the trained one gives, whichever kernels torch has."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from geothresh.nn.config import NetworkConfig
from geothresh.nn.network import (
    ConvNorm,
    FoldedConv,
    ThreshNet,
    fold,
    fold_norms,
    lower_precision,
    unfold,
)

WIDE = NetworkConfig(widths=(8, 12, 16, 24), blocks=(1, 1, 1, 1), patch=32)

with_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def trained(config: NetworkConfig = WIDE) -> ThreshNet:
    """A network whose norms are not those that every network starts from."""
    torch.manual_seed(0)
    net = ThreshNet(config).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.2, 0.2)
    return net.to(memory_format=torch.channels_last)


def folded(dtype: torch.dtype = torch.float32) -> ThreshNet:
    """The same network, folded."""
    net = trained()
    fold_norms(net)
    lower_precision(net, dtype)
    return net.to(memory_format=torch.channels_last)


def refined(net: ThreshNet) -> torch.Tensor:
    """Of two tiles, always the same."""
    tiles = torch.rand((2, 1, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return net.refine(tiles.contiguous(memory_format=torch.channels_last))


def kernels(net: ThreshNet) -> set[bool | None]:
    """What the convolutions with a rectifier have chosen."""
    found = [m for m in net.modules() if isinstance(m, FoldedConv) and m.rectified]
    assert found
    return {module._fused for module in found}


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_a_folded_network_gives_what_the_trained_one_gives(
    dtype: torch.dtype, within: float
) -> None:
    net = folded(dtype)
    assert not any(isinstance(m, ConvNorm | torch.nn.BatchNorm2d) for m in net.modules())
    assert (refined(net) - refined(trained())).abs().max() < within


@with_onednn
def test_on_a_cpu_all_is_done_at_once() -> None:
    net = folded()
    assert kernels(net) == {None}
    refined(net)
    assert kernels(net) == {True}


@pytest.mark.parametrize("lacking", [AttributeError("no such operator"), RuntimeError("no engine")])
def test_kernels_that_are_not_there_are_done_without_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lacking: Exception
) -> None:
    expected = refined(trained())

    def rectified(*_: object) -> torch.Tensor:
        raise lacking

    monkeypatch.setattr(FoldedConv, "_fused_step", rectified)
    net = folded()
    with caplog.at_level(logging.INFO, "geothresh.nn"):
        assert (refined(net) - expected).abs().max() < 1e-5
    assert kernels(net) == {False}
    assert f"apart ({lacking})" in caplog.text


def test_kernels_that_give_something_else_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = FoldedConv._fused_step

    def forgetful(self: FoldedConv, x: torch.Tensor, plus: torch.Tensor | None) -> torch.Tensor:
        return right(self, x, None)

    monkeypatch.setattr(FoldedConv, "_fused_step", forgetful)
    net = folded()
    with caplog.at_level(logging.INFO, "geothresh.nn"):
        assert (refined(net) - refined(trained())).abs().max() < 1e-5
    # Where nothing is added there is nothing to forget.
    assert kernels(net) == {True, False}
    assert "which differ at once" in caplog.text


@pytest.mark.parametrize("where", ["plain", "plus"])
def test_what_is_not_a_number_is_not_taken_for_agreement(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(
        FoldedConv, "_fused_step", lambda self, x, plus: torch.full((1,), torch.nan)
    )
    layers = ConvNorm(3, 8).eval()
    x = torch.rand((1, 3, 16, 16))
    plus = torch.rand((1, 8, 16, 16)) if where == "plus" else None
    with torch.inference_mode():
        assert not FoldedConv(layers)._agree(x, plus)


@with_onednn
def test_the_choice_does_not_depend_on_the_first_tile() -> None:
    x = torch.full((1, 3, 40, 40), torch.nan)
    with torch.inference_mode():
        assert FoldedConv(ConvNorm(3, 8).eval())._agree(x, torch.zeros((1, 8, 40, 40)))


def test_memory_that_runs_out_is_no_reason_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def rectified(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FoldedConv, "_fused_step", rectified)
    net = folded()
    with pytest.raises(torch.OutOfMemoryError):
        refined(net)
    assert kernels(net) == {None}


def test_only_a_convolution_and_its_norm_can_be_folded() -> None:
    layers = ConvNorm(3, 8)
    layers[1] = torch.nn.Identity()
    with pytest.raises(TypeError, match="not a convolution and its batch norm"):
        FoldedConv(layers)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_features_keep_their_memory_layout_throughout(layout: torch.memory_format) -> None:
    net = folded().to(memory_format=layout)
    strange = []

    def look(module: torch.nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        for tensor in (*given, found):
            if not tensor.is_contiguous(memory_format=layout):
                strange.append((module, tuple(tensor.shape)))

    for module in net.modules():
        if isinstance(module, FoldedConv):
            module.register_forward_hook(look)
    with torch.inference_mode():
        net.refine(torch.rand((2, 1, 128, 128)))
    assert not strange


def test_patches_are_folded_alike_in_either_layout() -> None:
    x = torch.rand((2, 5, 8, 12))
    for layout in (torch.channels_last, torch.contiguous_format):
        patches = fold(x.contiguous(memory_format=layout), 2, 3)
        assert patches.is_contiguous(memory_format=layout)
        assert torch.equal(patches, fold(x, 2, 3))
        assert torch.equal(unfold(patches, 2, 3), x)


def test_weights_are_named_as_before() -> None:
    # Model files of earlier versions name them so.
    names = set(ThreshNet(dataclasses.replace(WIDE, head="correction")).state_dict())
    assert {"stem.0.weight", "stem.1.running_mean", "encoder.1.0.shortcut.1.bias"} <= names
    assert {"local_decoder.levels.0.gate.signal.0.weight", "pyramid.join.1.weight"} <= names
