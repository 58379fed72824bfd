"""ThreshNet as a torch module (arXiv 2211.06560, sections 3.3 and 3.4), and its inference form.

It has an encoder of four levels, pyramid pooling at the bottleneck, and two decoders of the same
features: the global one sees the whole tile, the local one each patch separately. Their confidences
are averaged.

For inference, batch norms are folded into the weights and biases of their convolutions. oneDNN (on
CPUs) and cuDNN (on GPUs) then apply bias, residual sum and ReLU while a result is still in
registers. As separate steps, each would read and write all features once more, which takes longer
than the convolution.

Shape letters: B tiles, T side of a tile, S space-to-depth factor, C channels, H = W = side of a
level, P side of a patch; at level l (0 to 3) one feature is ``S * 2**l`` pixels wide.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geothresh.nn.config import LOGIT_MARGIN, NetworkConfig

_LOGGER = logging.getLogger("geothresh.nn")
_TOLERANCE = 0.02
"""Largest difference by rounding, as a share of the largest value. A wrong kernel differs more."""


def memory_layout(config: NetworkConfig) -> torch.memory_format:
    """Memory format of a network's tensors: channels last, the fastest on CPUs and GPUs.

    Networks with fewer than 8 channels, which only tests have, are contiguous: on CPUs without
    AVX-512, oneDNN's backward convolutions of channels last write beyond their memory (torch
    2.13.0: "double free or corruption").
    """
    return torch.channels_last if min(config.widths) >= 8 else torch.contiguous_format


def _layout_of(x: Tensor) -> torch.memory_format:
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, optional residual sum, ReLU; padded to keep the size.

    Sum and ReLU are included because for inference one kernel computes all of it (`FoldedConv`).

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        kernel: side of the kernel, odd.
        stride: stride of the convolution.
        rectified: whether a ReLU follows.
    """

    def __init__(
        self, n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1, rectified: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out)
        )
        self.rectified = rectified

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride), the shape of ``plus``."""
        convolution, norm = self
        y: Tensor = norm(convolution(x))
        if plus is not None:
            y = y + plus
        return F.relu(y) if self.rectified else y


class ResidualBlock(nn.Module):
    """Basic block of ResNet-34: two 3x3 convolutions and a shortcut."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNorm(n_in, n_out, stride=stride)
        self.conv2 = ConvNorm(n_out, n_out)
        self.shortcut: nn.Module = nn.Identity()
        if n_in != n_out or stride != 1:
            self.shortcut = ConvNorm(n_in, n_out, kernel=1, stride=stride, rectified=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, H / stride, W / stride)."""
        y: Tensor = self.conv2(self.conv1(x), plus=self.shortcut(x))
        return y


class PyramidPooling(nn.Module):
    """Concatenates the input with its means over grids of cells, each after a 1x1 convolution."""

    def __init__(self, channels: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        self.branches = nn.ModuleList(ConvNorm(channels, channels, kernel=1) for _ in sizes)
        self.join = ConvNorm(channels * (len(sizes) + 1), channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        parts = [x]
        layout = _layout_of(x)
        for size, branch in zip(self.sizes, self.branches, strict=True):
            # A map smaller than the grid is pooled to its own pixels.
            pooled = F.adaptive_avg_pool2d(x, (min(size, x.shape[-2]), min(size, x.shape[-1])))
            wide = F.interpolate(
                branch(pooled), size=x.shape[-2:], mode="bilinear", align_corners=False
            )
            # Interpolating a map of one cell loses the memory layout.
            parts.append(wide.contiguous(memory_format=layout))
        y: Tensor = self.join(torch.cat(parts, dim=1))
        return y


class AttentionGate(nn.Module):
    """Additive gate of Attention U-Net: the decoder's signal weighs the skip, pixel by pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.signal = ConvNorm(channels, inner, kernel=1, rectified=False)
        self.skip = ConvNorm(channels, inner, kernel=1)
        self.weight = nn.Conv2d(inner, 1, 1)

    def forward(self, signal: Tensor, skip: Tensor) -> Tensor:
        """(B, C, H, W) and (B, N, H, W) -> the latter, weighted by pixel."""
        return skip * torch.sigmoid(self.weight(self.skip(skip, plus=self.signal(signal))))


class DecoderLevel(nn.Module):
    """Upsample and convolve, gate the skip, concatenate, two 3x3 convolutions."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.up = ConvNorm(n_in, n_out)
        self.gate = AttentionGate(n_out)
        self.conv1 = ConvNorm(2 * n_out, n_out)
        self.conv2 = ConvNorm(n_out, n_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, H, W) and (B, N, 2H, 2W) -> (B, N, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.up(x)
        y: Tensor = self.conv2(self.conv1(torch.cat([x, self.gate(x, skip)], dim=1)))
        return y


class Decoder(nn.Module):
    """Three levels up to the resolution of level one, and a 1x1 head in fp32.

    With ``patch``, features are cut into patches that are folded into the batch. Upsampling, gates,
    convolutions and zero padding then end at the patch's border: no information crosses it, and the
    number of calls does not depend on P (section 3.4).
    """

    def __init__(self, widths: tuple[int, ...], n_out: int, *, patch: int | None) -> None:
        super().__init__()
        self.patch = patch
        self.levels = nn.ModuleList(
            DecoderLevel(widths[i + 1], widths[i]) for i in reversed(range(len(widths) - 1))
        )
        self.head = nn.Conv2d(widths[0], n_out, 1)

    def forward(self, bottleneck: Tensor, skips: list[Tensor]) -> Tensor:
        """``bottleneck`` (B, C3, H/8, W/8), ``skips`` levels 2, 1, 0 -> (B, n_out, H, W), fp32."""
        n_rows = n_cols = 1
        if self.patch is not None:
            n_rows = skips[-1].shape[-2] // self.patch
            n_cols = skips[-1].shape[-1] // self.patch
        x = fold(bottleneck, n_rows, n_cols)
        for level, skip in zip(self.levels, skips, strict=True):
            x = level(x, fold(skip, n_rows, n_cols))
        with torch.autocast(x.device.type, enabled=False):
            logits = self.head(x.float())
        return unfold(logits, n_rows, n_cols)


def fold(x: Tensor, n_rows: int, n_cols: int) -> Tensor:
    """Cut (B, C, H, W) into n_rows x n_cols patches: (B * n_rows * n_cols, C, H/rows, W/cols).

    The memory layout of ``x`` is kept: mixed layouts make the operations that follow slower.
    """
    if n_rows == n_cols == 1:
        return x
    b, c, h, w = x.shape
    if _layout_of(x) == torch.channels_last:
        y = x.permute(0, 2, 3, 1).reshape(b, n_rows, h // n_rows, n_cols, w // n_cols, c)
        y = y.transpose(2, 3).reshape(b * n_rows * n_cols, h // n_rows, w // n_cols, c)
        return y.permute(0, 3, 1, 2)
    y = x.reshape(b, c, n_rows, h // n_rows, n_cols, w // n_cols)
    return y.permute(0, 2, 4, 1, 3, 5).reshape(b * n_rows * n_cols, c, h // n_rows, w // n_cols)


def unfold(x: Tensor, n_rows: int, n_cols: int) -> Tensor:
    """Put patches back together: the inverse of `fold`."""
    if n_rows == n_cols == 1:
        return x
    n, c, h, w = x.shape
    x = x.reshape(n // (n_rows * n_cols), n_rows, n_cols, c, h, w)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, c, n_rows * h, n_cols * w)


class ThreshNet(nn.Module):
    """The network: confidence tiles in, logits of the branches out.

    Args:
        config: the sizes.
        dropout: probability that a channel of the bottleneck is dropped in training mode.
    """

    def __init__(self, config: NetworkConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        widths, s = config.widths, config.shuffle
        self.stem = ConvNorm(s * s, widths[0])
        self.encoder = nn.ModuleList()
        for i, (width, n_blocks) in enumerate(zip(widths, config.blocks, strict=True)):
            first = ResidualBlock(widths[max(i - 1, 0)], width, stride=1 if i == 0 else 2)
            rest = [ResidualBlock(width, width) for _ in range(n_blocks - 1)]
            self.encoder.append(nn.Sequential(first, *rest))
        self.pyramid = PyramidPooling(widths[-1], config.pool_sizes)
        self.dropout = nn.Dropout2d(dropout)
        if config.branches != "local":
            self.global_decoder = Decoder(widths, s * s, patch=None)
        if config.branches != "global":
            self.local_decoder = Decoder(widths, s * s, patch=config.patch // s)
        if config.head == "correction":
            for decoder in self.decoders():
                nn.init.zeros_(decoder.head.weight)
                # A Conv2d may have no bias; this one was made with it.
                nn.init.zeros_(decoder.head.bias)  # type: ignore[arg-type]

    def decoders(self) -> list[Decoder]:
        """The decoders of the configured branches, the global one first."""
        decoders = []
        if self.config.branches != "local":
            decoders.append(self.global_decoder)
        if self.config.branches != "global":
            decoders.append(self.local_decoder)
        return decoders

    def forward(self, confidence: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, T, T) in [0, 1] -> fp32 logits of the branches, the global one first.

        Each is (B, 1, T, T); T must be a multiple of P.
        """
        x = 2 * F.pixel_unshuffle(confidence, self.config.shuffle) - 1
        # Features have the dtype of the weights, which `lower_precision` may have changed.
        x = self.stem(x.to(next(self.stem.parameters()).dtype))
        features = []
        for level in self.encoder:
            x = level(x)
            features.append(x)
        skips = features[-2::-1]
        bottleneck = self.dropout(self.pyramid(features[-1]))
        logits = tuple(
            F.pixel_shuffle(decoder(bottleneck, skips), self.config.shuffle)
            for decoder in self.decoders()
        )
        if self.config.head == "confidence":
            return logits
        prior = torch.logit(confidence.float().clamp(LOGIT_MARGIN, 1 - LOGIT_MARGIN))
        return tuple(branch + prior for branch in logits)

    def refine(self, confidence: Tensor) -> Tensor:
        """Mean confidence of the branches, fp32, (B, 1, T, T)."""
        branches: tuple[Tensor, ...] = self(confidence)
        refined = branches[0].sigmoid()
        for branch in branches[1:]:
            refined = refined + branch.sigmoid()
        return refined / len(branches)


class FoldedConv(nn.Module):
    """A `ConvNorm` whose batch norm is folded into the convolution.

    The first pass compares the fused kernel with the separate steps. Later passes use the kernel
    only if it exists and agrees: torch has these kernels for its compiler, and promises neither to
    keep them nor to support every shape.
    """

    def __init__(self, layers: ConvNorm) -> None:
        """Fold the layers of a `ConvNorm` that is in evaluation mode."""
        super().__init__()
        convolution, norm = layers
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError(f"{layers} is not a convolution and its batch norm")
        self.conv = fuse_conv_bn_eval(convolution, norm)
        self.rectified = layers.rectified
        self._fused: bool | None = None if self.rectified else False

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Compute what `ConvNorm.forward` does."""
        if self._fused is None:
            self._fused = self._agree(x, plus)
        return self._fused_step(x, plus) if self._fused else self._step_by_step(x, plus)

    def keep_apart(self) -> None:
        """Use the separate steps from now on."""
        self._fused = False

    def _step_by_step(self, x: Tensor, plus: Tensor | None) -> Tensor:
        y: Tensor = self.conv(x)
        if plus is not None:
            y = y + plus
        return F.relu(y) if self.rectified else y

    def _fused_step(self, x: Tensor, plus: Tensor | None) -> Tensor:
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

        They are compared on fixed numbers, so that a run that resumes another one decides the same.
        """
        if x.device.type not in ("cpu", "cuda"):
            return False
        probe, added = _numbers_like(x), None
        expected = self._step_by_step(probe, None)
        if plus is not None:
            added = _numbers_like(expected)
            expected = self._step_by_step(probe, added)
        try:
            fused = self._fused_step(probe, added)
            self._fused_step(x, plus)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (AttributeError, RuntimeError) as error:
            _LOGGER.info("%s: convolution and rectifier apart (%s)", self.conv, error)
            return False
        # Separate steps round more often; bf16 has three digits.
        agree = bool((fused - expected).abs().max() <= _TOLERANCE * expected.abs().max())
        if not agree:
            _LOGGER.info("%s: convolution and rectifier apart, which differ at once", self.conv)
        return agree


def _numbers_like(x: Tensor) -> Tensor:
    """Fixed random numbers, at most (1, C, 16, 16), with the channels and the layout of ``x``."""
    _, channels, height, width = x.shape
    shape = (1, channels, min(16, height), min(16, width))
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5
    return numbers.to(x).contiguous(memory_format=_layout_of(x))


def fold_norms(network: nn.Module) -> None:
    """Fold the batch norms of a network: replace each `ConvNorm` by a `FoldedConv`, in place.

    The outputs change by rounding only. Weights are folded in their own precision, so fold fp32
    weights first and lower their precision afterwards.

    Args:
        network: in evaluation mode; it cannot be trained afterwards.
    """
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, ConvNorm):
                setattr(module, name, FoldedConv(child))


def take_apart(network: nn.Module) -> None:
    """Have folded convolutions, sums and ReLUs run as separate steps, in place.

    This is for compilers, which fuse the steps themselves.
    """
    for module in network.modules():
        if isinstance(module, FoldedConv):
            module.keep_apart()


def lower_precision(network: ThreshNet, dtype: torch.dtype) -> None:
    """Cast the weights of all convolutions but the heads to ``dtype``, in place.

    Features then have this dtype from the stem on. Heads, sigmoids and the mean of the branches
    stay fp32: bf16 would round the logits to three digits.
    """
    heads = {id(module.head) for module in network.modules() if isinstance(module, Decoder)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and id(module) not in heads:
            module.to(dtype)
