"""Define ResUNet and ResUNet++, which are U-Nets of residual units.

Both take images (B, 3, H, W), H and W multiples of 8, and return logits (B, 1, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Channels of ResUNet at 1, 1/2, 1/4 and 1/8 of the image, as in its paper.
RESUNET_WIDTHS = (64, 128, 256, 512)
#: Channels of ResUNet++ at 1, 1/2, 1/4 and 1/8 of the image, and of its bridge.
RESUNETPP_WIDTHS = (16, 32, 64, 128, 256)
# Dilations of the atrous convolutions of ResUNet++.
_RATES = (1, 6, 12, 18)
# Reduction of channels in squeeze and excitation.
_REDUCTION = 8


def _pre_activated(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Make a 3 x 3 convolution after batch norm and ReLU (full pre-activation)."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
    )


class ResidualUnit(nn.Module):
    """Two convolutions with pre-activation, added to a 1 x 1 convolution of the input.

    The papers draw an identity shortcut, although channels or stride change in every unit, and
    leave open how its ends are matched. Here a 1 x 1 convolution matches them.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, first: bool = False) -> None:
        """Make a unit.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            stride: stride of the first convolution.
            first: whether the unit reads the image, without norm and ReLU before it.
        """
        super().__init__()
        opening: nn.Module = _pre_activated(inputs, outputs, stride=stride)
        if first:
            opening = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.body = nn.Sequential(opening, _pre_activated(outputs, outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to (B, outputs, H / stride, W / stride)."""
        return cast(Tensor, self.body(features) + self.shortcut(features))


class ResUNet(nn.Module):
    """ResUNet (Zhang, Liu and Wang, "Road extraction by deep residual U-Net", GRSL 2018).

    Three residual units go down, one is the bridge, and three go up. On the way up, features are
    upsampled by nearest neighbour and concatenated with those of the encoder. The paper counts 7.8
    million parameters in the 3 x 3 convolutions; with the 1 x 1 shortcuts there are 8.2 million.
    """

    def __init__(self, widths: Sequence[int] = RESUNET_WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            ResidualUnit(inputs, outputs, stride=1 if k == 0 else 2, first=k == 0)
            for k, (inputs, outputs) in enumerate(zip((3, *widths[:-1]), widths, strict=True))
        )
        self.up = nn.ModuleList(
            ResidualUnit(below + beside, beside)
            for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.score = nn.Conv2d(widths[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W)."""
        features, kept = image, []
        for unit in self.down:
            features = unit(features)
            kept.append(features)
        kept.pop()
        for unit in self.up:
            features = unit(torch.cat([_doubled(features), kept.pop()], 1))
        return cast(Tensor, self.score(features))


class SqueezeExcite(nn.Module):
    """Squeeze and excitation (Hu and others, CVPR 2018): channels weighted by global means."""

    def __init__(self, channels: int, reduction: int = _REDUCTION) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.ReLU(inplace=True), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to the same shape."""
        weights = torch.sigmoid(self.weigh(features.mean((2, 3), keepdim=True)))
        return features * weights


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: parallel convolutions of several dilations, added up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate), nn.BatchNorm2d(outputs)
            )
            for rate in _RATES
        )
        self.mix = nn.Conv2d(outputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, H, W)."""
        first, *others = (convolution(features) for convolution in self.convolutions)
        return cast(Tensor, self.mix(sum(others, first)))


class DecoderAttention(nn.Module):
    """Attention of ResUNet++: coarse features, weighted by the encoder's finer features."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(_pre_activated(fine, coarse), nn.MaxPool2d(2))
        self.coarse = _pre_activated(coarse, coarse)
        self.both = _pre_activated(coarse, coarse)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Features (B, fine, 2 H, 2 W) and (B, coarse, H, W) to the shape of the latter."""
        return cast(Tensor, self.both(self.fine(fine) + self.coarse(coarse)) * coarse)


class ResUNetPlusPlus(nn.Module):
    """ResUNet++: residual units with squeeze and excitation, atrous pyramids, attention.

    Jha and others, "ResUNet++: an advanced architecture for medical image segmentation", ISM 2019.
    It has a stem and three residual units, each followed by squeeze and excitation; an atrous
    pyramid as the bridge; three times attention, upsampling and a residual unit; and an atrous
    pyramid before the score. We chose what the paper leaves open: the widths (16 channels at full
    size, doubled with each halving), the dilations (1, 6, 12 and 18), the reduction in squeeze and
    excitation (8), and the 2 x 2 maximum that reduces the finer input of attention to the size of
    the coarser one. There are 4.05 million parameters; we know no count by the authors.
    """

    def __init__(self, widths: Sequence[int] = RESUNETPP_WIDTHS) -> None:
        super().__init__()
        *encoder, bridge = widths
        self.down = nn.ModuleList(
            ResidualUnit(inputs, outputs, stride=1 if k == 0 else 2, first=k == 0)
            for k, (inputs, outputs) in enumerate(zip((3, *encoder[:-1]), encoder, strict=True))
        )
        # The output of the last unit goes into the bridge without squeeze and excitation.
        self.excite = nn.ModuleList(SqueezeExcite(width) for width in encoder[:-1])
        self.bridge = AtrousPyramid(encoder[-1], bridge)
        below = (bridge, *encoder[:1:-1])
        beside = encoder[-2::-1]
        self.attend = nn.ModuleList(
            DecoderAttention(fine, coarse) for fine, coarse in zip(beside, below, strict=True)
        )
        self.up = nn.ModuleList(
            ResidualUnit(coarse + fine, outputs)
            for coarse, fine, outputs in zip(below, beside, encoder[:0:-1], strict=True)
        )
        self.pyramid = AtrousPyramid(encoder[1], encoder[0])
        self.score = nn.Conv2d(encoder[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W)."""
        features, kept = image, []
        for k, unit in enumerate(self.down):
            features = unit(features if k == 0 else self.excite[k - 1](features))
            kept.append(features)
        features = self.bridge(kept.pop())
        for attend, unit in zip(self.attend, self.up, strict=True):
            fine = kept.pop()
            features = unit(torch.cat([_doubled(attend(fine, features)), fine], 1))
        return cast(Tensor, self.score(self.pyramid(features)))


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2, mode="nearest")
