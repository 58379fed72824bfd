"""Fuse batch norm, bias, shortcut and ReLU into the convolutions of a trained network.

A batch norm that no longer learns is a scale and a shift per channel, which the convolution's own
weights and bias can hold. The bias, the sum of a shortcut and the rectifier are then done by the
libraries behind torch, oneDNN on CPUs and cuDNN on GPUs, while a result is still in registers:
apart, each of them reads and writes all features once more, which takes longer than the
convolution.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geothresh.nn.network import ConvNorm, Decoder, ThreshNet

_LOGGER = logging.getLogger("geothresh.nn")

_TOLERANCE = 0.02
"""Of the largest value: a wrong kernel is off by more, rounding by less."""


class FoldedConv(nn.Module):
    """A `ConvNorm` whose batch norm is folded into the convolution.

    The first pass tries the kernel that does all at once beside the several that do the same one
    after the other, and takes it if it is there and they agree: torch has these kernels for its
    own compiler, without a promise that they stay or know every shape.
    """

    def __init__(self, layers: ConvNorm) -> None:
        """Take the layers of a `ConvNorm` in evaluation mode."""
        super().__init__()
        convolution, norm = layers
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError(f"{layers} is not a convolution and its batch norm")
        self.conv = fuse_conv_bn_eval(convolution, norm)
        self.rectified = layers.rectified
        self._at_once: bool | None = None if self.rectified else False

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """As `ConvNorm`."""
        if self._at_once is None:
            self._at_once = self._agree(x, plus)
        return self._rectified(x, plus) if self._at_once else self._step_by_step(x, plus)

    def _step_by_step(self, x: Tensor, plus: Tensor | None) -> Tensor:
        y: Tensor = self.conv(x)
        if plus is not None:
            y = y + plus
        return F.relu(y) if self.rectified else y

    def _rectified(self, x: Tensor, plus: Tensor | None) -> Tensor:
        conv = self.conv
        weight, bias, groups = conv.weight, conv.bias, conv.groups
        stride, dilation = conv.stride, conv.dilation
        padding = [int(width) for width in conv.padding]
        y: Tensor
        if x.device.type == "cuda":
            sizes = (stride, padding, dilation)
            if plus is None:
                y = torch.cudnn_convolution_relu(x, weight, bias, *sizes, groups)
            else:
                y = torch.cudnn_convolution_add_relu(x, weight, plus, 1.0, bias, *sizes, groups)
        else:
            onednn = torch.ops.mkldnn._convolution_pointwise
            given = (weight, bias, padding, stride, dilation, groups)
            if plus is None:
                y = onednn(x, *given, "relu", [], "")
            else:
                y = onednn.binary(x, plus, *given, "add", 1.0, "relu", [], "")
        return y

    def _agree(self, x: Tensor, plus: Tensor | None) -> bool:
        """Whether the fused kernel exists for such tensors and agrees with the separate steps.

        That is judged by numbers that are always the same: by those at hand, a run that goes on
        where another one was interrupted could choose otherwise.
        """
        if x.device.type not in ("cpu", "cuda"):
            return False
        probe, added = _numbers_like(x), None
        expected = self._step_by_step(probe, None)
        if plus is not None:
            added = _numbers_like(expected)
            expected = self._step_by_step(probe, added)
        try:
            found = self._rectified(probe, added)
            self._rectified(x, plus)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (AttributeError, RuntimeError) as error:
            _LOGGER.info("%s: convolution and rectifier apart (%s)", self.conv, error)
            return False
        # Steps apart round more often, in bf16 to three digits.
        agree = bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
        if not agree:
            _LOGGER.info("%s: convolution and rectifier apart, which differ at once", self.conv)
        return agree


def _numbers_like(x: Tensor) -> Tensor:
    """One small map, (1, C, 16, 16) at most, with the channels and the layout of ``x``."""
    _, channels, height, width = x.shape
    shape = (1, channels, min(16, height), min(16, width))
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5
    layout = torch.contiguous_format
    if x.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    return numbers.to(x).contiguous(memory_format=layout)


def fold_norms(network: nn.Module) -> None:
    """Fold the batch norms of a network: replace each `ConvNorm` by a `FoldedConv`, in place.

    The outputs are the same but for rounding. Done in the precision of the weights, so fold fp32
    weights and lower them afterwards.

    Args:
        network: in evaluation mode; it cannot be trained any more when this returns.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, ConvNorm):
                setattr(module, name, FoldedConv(child))


def lower_precision(network: ThreshNet, dtype: torch.dtype) -> None:
    """Cast the weights of all convolutions but the heads to ``dtype``, in place.

    Features then have this type from the stem on. Heads, sigmoids and the mean of the branches
    stay fp32: bf16 would round the logits to three digits.
    """
    heads = {id(module.head) for module in network.modules() if isinstance(module, Decoder)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and id(module) not in heads:
            module.to(dtype)
