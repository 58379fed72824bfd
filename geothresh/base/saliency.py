"""Define RFCN and PFAN, which are saliency networks on a VGG encoder.

Both take images (B, 3, H, W), H and W multiples of 32, and return logits (B, 1, H, W).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from geothresh.base.fcn import FCN8s
from geothresh.base.resunet import SqueezeExcite

#: Steps of RFCN's recurrence.
RFCN_STEPS = 2
# PFAN: channels of each convolution of a pyramid, its dilations, channels after the pyramids and of
# fine features, kernel length of spatial attention, reduction in squeeze and excitation.
_PYRAMID, _DILATIONS = 32, (3, 5, 7)
_WIDTH = 64
_REACH = 9
_SQUEEZE = 4


class RFCN(nn.Module):
    """RFCN on VGG: a recurrent network that reads its previous output as a fourth channel.

    Wang and others, "Saliency detection with recurrent fully convolutional networks", ECCV 2016,
    and TPAMI 2018. A fully convolutional network reads the image and the saliency of the step
    before, which is 0 in the first step. All steps share their weights. The papers score the last
    layers of a VGG with the wide layers of its classifier; here FCN-8s scores the features of the
    convolutions. It is our choice that there are two steps, and that each is trained towards the
    truth.

    In training the logits are (B, steps, H, W), the last step first; otherwise (B, 1, H, W), of the
    last step.
    """

    def __init__(self, encoder: nn.Module, channels: list[int], steps: int = RFCN_STEPS) -> None:
        """Make a network.

        Args:
            encoder: a VGG encoder for images of three channels; it is widened to four.
            channels: channels of the encoder's features.
            steps: number of recurrent steps, at least 1.
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
    """Make the convolution `first` with one more input channel.

    The weights of the new channel start from torch's default. With 0 all steps would be equal at
    first.
    """
    wide = nn.Conv2d(4, first.out_channels, 3, padding=1, bias=first.bias is not None)
    with torch.no_grad():
        wide.weight[:, :3] = first.weight
        if first.bias is not None and wide.bias is not None:
            wide.bias.copy_(first.bias)
    return wide


class ContextPyramid(nn.Module):
    """Context-aware feature extraction of PFAN: a 1 x 1 convolution and three dilated ones."""

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
    """Spatial attention of PFAN: weights for the fine features, computed from the coarse ones.

    One branch convolves along rows and then along columns, the other along columns first; both are
    added up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, half = channels // 2, _REACH // 2
        row, column = (1, _REACH), (_REACH, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, inner, a, padding=(half * (a[0] > 1), half * (a[1] > 1))),
                nn.BatchNorm2d(inner),
                nn.ReLU(inplace=True),
                nn.Conv2d(inner, 1, b, padding=(half * (b[0] > 1), half * (b[1] > 1))),
            )
            for a, b in ((row, column), (column, row))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to weights (B, 1, H, W) in [0, 1]."""
        first, second = (branch(features) for branch in self.branches)
        return torch.sigmoid(first + second)


class PFAN(nn.Module):
    """PFAN on VGG: coarse features by dilated pyramids, fine ones by attention.

    Zhao and Wu, "Pyramid feature attention network for saliency detection", CVPR 2019. The features
    at 1/4, 1/8 and 1/16 of the image go through pyramids of dilated convolutions and channel
    attention. Those at 1 and 1/2 are weighted pixel by pixel by the coarse ones. All are
    concatenated and scored. There are 16.4 million parameters on VGG-16, 14.7 of them VGG's; no
    count of the authors' is known to us. The authors' loss has an edge term; here it is trained
    with the loss of the other base networks.
    """

    def __init__(self, encoder: nn.Module, channels: list[int]) -> None:
        """Make a network.

        Args:
            encoder: a VGG encoder.
            channels: channels of the encoder's features, from full size down.
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
        # All are enlarged to 1/4 of the image, the size of the first.
        joined = torch.cat([_enlarged(pyramid, 2**k) for k, pyramid in enumerate(pyramids)], 1)
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
