"""RFCN and PFAN: networks that find what stands out in an image, on an encoder of the VGG kind.

Both take images (B, 3, H, W), H and W multiples of 32, and give logits (B, 1, H, W).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from geothresh.base.fcn import FCN8s
from geothresh.base.resunet import SqueezeExcite

#: How often RFCN looks at an image.
RFCN_STEPS = 2
# Of PFAN: channels of each convolution of a pyramid, its dilations, channels behind the pyramids
# and of fine features, and the reach of spatial attention.
_PYRAMID, _DILATIONS = 32, (3, 5, 7)
_WIDTH = 64
_REACH = 9
_SQUEEZE = 4


class RFCN(nn.Module):
    """RFCN on VGG: it looks at an image again with what it has found.

    Wang and others, "Saliency detection with recurrent fully convolutional networks", ECCV 2016,
    and TPAMI 2018. A fully convolutional network reads the image and the saliency that it found
    the step before as a fourth channel; before the first step nothing is known, and that channel
    is 0. All steps share their weights. The papers take their scores from the last layers of a VGG
    with the wide layers of a classifier; here they are those of FCN-8s on the features of the
    convolutions. The number of steps is ours (two), and so is that each of them is trained towards
    the truth.

    In training the logits are (B, steps, H, W), the last step first; otherwise (B, 1, H, W), of the
    last step.
    """

    def __init__(self, encoder: nn.Module, channels: list[int], steps: int = RFCN_STEPS) -> None:
        """A network.

        Args:
            encoder: VGG's, for images of three channels; it is widened to four.
            channels: of its features.
            steps: at least 1.
        """
        super().__init__()
        layers = cast(nn.Sequential, encoder.features)
        layers[0] = _with_prior(cast(nn.Conv2d, layers[0]))
        self.once = FCN8s(encoder, channels)
        self.steps = steps

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W), in training (B, steps, H, W)."""
        prior = torch.zeros_like(image[:, :1])
        found: list[Tensor] = []
        for _ in range(self.steps):
            found.insert(0, self.once(torch.cat([image, prior], 1)))
            prior = torch.sigmoid(found[0]).to(image.dtype)
        return torch.cat(found, 1) if self.training else found[0]


def _with_prior(first: nn.Conv2d) -> nn.Conv2d:
    """A convolution that reads one channel more, its other weights those of `first`.

    The weights of the new channel start at random, as small as torch has them: at 0 the steps would
    be alike and the network not recurrent to begin with.
    """
    wide = nn.Conv2d(4, first.out_channels, 3, padding=1, bias=first.bias is not None)
    with torch.no_grad():
        wide.weight[:, :3] = first.weight
        if first.bias is not None and wide.bias is not None:
            wide.bias.copy_(first.bias)
    return wide


class ContextPyramid(nn.Module):
    """Context-aware feature extraction of PFAN: one 1 x 1 convolution and three dilated ones."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(inputs, _PYRAMID, 1, bias=False),
                *(
                    nn.Conv2d(inputs, _PYRAMID, 3, padding=d, dilation=d, bias=False)
                    for d in _DILATIONS
                ),
            ]
        )
        self.norm = nn.BatchNorm2d(_PYRAMID * (1 + len(_DILATIONS)))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, 128, H, W)."""
        joined = torch.cat([convolution(features) for convolution in self.convolutions], 1)
        return functional.relu(self.norm(joined))


class SpatialAttention(nn.Module):
    """Where fine features matter, told by the coarse ones: a row and a column convolution in turn.

    One branch goes along rows first, the other along columns; both are added up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, half = channels // 2, _REACH // 2
        row, column = (1, _REACH), (_REACH, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, inner, one, padding=(half * (one[0] > 1), half * (one[1] > 1))),
                nn.BatchNorm2d(inner),
                nn.ReLU(inplace=True),
                nn.Conv2d(inner, 1, two, padding=(half * (two[0] > 1), half * (two[1] > 1))),
            )
            for one, two in ((row, column), (column, row))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to weights (B, 1, H, W) in [0, 1]."""
        one, two = (branch(features) for branch in self.branches)
        return torch.sigmoid(one + two)


class PFAN(nn.Module):
    """PFAN on VGG: coarse features by dilated pyramids, fine ones by attention.

    Zhao and Wu, "Pyramid feature attention network for saliency detection", CVPR 2019. The features
    at 1/4, 1/8 and 1/16 of the image go through pyramids of dilated convolutions, their channels
    are weighted; those at 1 and 1/2 are weighted pixel by pixel by what came of the coarse ones;
    all are joined and scored. There are 16.4 million parameters on VGG-16, 14.7 of them its own; no
    count of the authors' is known to us. Their loss has a part that follows edges; here it is
    trained with the loss of the other base networks.
    """

    def __init__(self, encoder: nn.Module, channels: list[int]) -> None:
        """A network.

        Args:
            encoder: VGG's.
            channels: of its features, from full size on.
        """
        super().__init__()
        self.encoder = encoder
        full, half, *coarse = channels[:5]
        self.pyramids = nn.ModuleList(ContextPyramid(width) for width in coarse)
        joined = len(coarse) * _PYRAMID * (1 + len(_DILATIONS))
        self.weigh = SqueezeExcite(joined, _SQUEEZE)
        self.coarse = _convolution(joined, _WIDTH)
        self.at_full, self.at_half = _convolution(full, _WIDTH), _convolution(half, _WIDTH)
        self.fine = _convolution(2 * _WIDTH, _WIDTH)
        self.attend = SpatialAttention(_WIDTH)
        self.score = nn.Conv2d(2 * _WIDTH, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W)."""
        full, half, *levels = self.encoder(image)[:5]
        pyramids = [make(level) for make, level in zip(self.pyramids, levels, strict=True)]
        # Each is brought to 1/4 of the image, where the first of them is.
        joined = torch.cat([_enlarged(one, 2**k) for k, one in enumerate(pyramids)], 1)
        coarse = _enlarged(self.coarse(self.weigh(joined)), 4)
        fine = self.fine(torch.cat([self.at_full(full), _enlarged(self.at_half(half), 2)], 1))
        return cast(Tensor, self.score(torch.cat([fine * self.attend(coarse), coarse], 1)))


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _enlarged(features: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return features
    return functional.interpolate(features, scale_factor=factor, mode="bilinear")
