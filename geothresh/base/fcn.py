"""Define FCN-8s on an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FCN8s(nn.Module):
    """FCN-8s (Long, Shelhamer and Darrell, CVPR 2015) on an encoder.

    Scores of 1 x 1 convolutions at 1/32, 1/16 and 1/8 of the image are upsampled and added up. The
    two upsamplings by 2 are learnt, starting as bilinear interpolation; the last one is bilinear.
    """

    def __init__(self, encoder: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.score8, self.score16, self.score32 = (nn.Conv2d(c, 1, 1) for c in channels[-3:])
        self.up32, self.up16 = _doubling(), _doubling()

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, 1, H, W)."""
        fine, middle, coarse = self.encoder(image)[-3:]
        score = self.score16(middle) + self.up32(self.score32(coarse))
        score = self.score8(fine) + self.up16(score)
        return functional.interpolate(score, scale_factor=8, mode="bilinear")


def _doubling() -> nn.ConvTranspose2d:
    """Make a transposed convolution that starts as bilinear interpolation to twice the size."""
    doubling = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
    tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        doubling.weight.copy_(torch.outer(tent, tent)[None, None])
    return doubling
