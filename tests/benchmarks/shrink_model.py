r"""Half a model, to train on: fewer residual blocks, one decoder, the weights that are left.

    python tests/benchmarks/shrink_model.py roads --branches global --blocks 1,1,1,1 \
        -o half.safetensors
    python tests/benchmarks/train_packaged.py roads --data DATA --maps MAPS -o RUN \
        --init half.safetensors --split geothresh/nn/models/roads.split.json --steps 1500

The first blocks of each level stay, which change the number of channels; those that are left out
add to what passes them by, so that the rest is a start and not noise. Prints the operations and
the processor time of a tile of 512 x 512 before and after.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from measuring import script_parser
from torch.utils.flop_counter import FlopCounterMode

from geothresh.api.models import load_model
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import load_weights, read_card, save_model
from geothresh.nn.network import ThreshNet
from geothresh.nn.packaged import find_model


def gigaflops(config: NetworkConfig) -> float:
    """Operations of one tile of 512 x 512, two for each multiplication with its sum."""
    network = ThreshNet(config).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, 1, 512, 512))
    return float(counter.get_total_flops()) / 1e9


def milliseconds(path: Path, *, repeat: int = 15) -> float:
    """Processor time of one tile as `refine` computes it: the least of some passes."""
    model = load_model(path, device="cpu")
    tile = np.random.default_rng(0).random((1, 512, 512), np.float32)
    model(tile)
    times = []
    for _ in range(repeat):
        start = time.process_time()
        model(tile)
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    """Write the smaller model."""
    parser = script_parser(__doc__)
    parser.add_argument("model", help="packaged model or model file")
    parser.add_argument("--branches", choices=["both", "global", "local"], default="both")
    parser.add_argument("--blocks", required=True, help="of the four levels, as 1,1,1,1")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    card = read_card(find_model(arguments.model))
    config = dataclasses.replace(
        card.config,
        branches=arguments.branches,
        blocks=tuple(int(n) for n in arguments.blocks.split(",")),
    )
    weights = load_weights(find_model(arguments.model), card.config)
    kept = {name: weights[name] for name in ThreshNet(config).state_dict()}
    save_model(arguments.output, tensors=kept, config=config, training=card.training)
    before, after = gigaflops(card.config), gigaflops(config)
    print(f"{before:.2f} -> {after:.2f} GFLOP a tile, {after / before:.2f}")
    before, after = milliseconds(find_model(arguments.model)), milliseconds(arguments.output)
    print(f"{before:.1f} -> {after:.1f} ms of a processor a tile, {after / before:.2f}")


if __name__ == "__main__":
    main()
