"""A trained network made quick: norms folded into the convolutions before them, one number format.

A batch norm that no longer learns is a scale and a shift per channel, which the convolution's own
weights and bias can hold. Half of the network's kernels and of the memory traffic go with it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geothresh.nn.network import Decoder, ThreshNet


def fold_norms(network: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution into it, in place.

    The outputs are the same but for rounding. Done in the precision of the weights, so fold fp32
    weights and lower them afterwards.

    Args:
        network: in evaluation mode; it cannot be trained any more when this returns.
    """
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) == 2:
            convolution, norm = module
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = fuse_conv_bn_eval(convolution, norm)
                del module[1]


def lower_precision(network: ThreshNet, dtype: torch.dtype) -> None:
    """Hold the weights of all convolutions but the heads in ``dtype``, in place.

    Features then have this type from the stem on. Heads, sigmoids and the mean of the branches
    stay fp32: bf16 would round the logits to three digits.
    """
    heads = {id(module.head) for module in network.modules() if isinstance(module, Decoder)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and id(module) not in heads:
            module.to(dtype)
