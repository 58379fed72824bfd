"""One tile through the network: torch in several ways, ONNX Runtime and OpenVINO.

    python tests/benchmarks/bench_network.py                   # both presets, and the differences
    python tests/benchmarks/bench_network.py --presets small --rounds 20

All ways are measured in turn, round by round, so that a machine that is busy otherwise hurts all
alike; the minimum is what to look at. `small` is the packaged model, `full` has random weights.

The first row of `full` stands in for the network that the paper's authors published, whose code is
not used: it is this network, run as the paper describes theirs, with each patch on its own through
the local decoder, in a Python loop, nothing folded. It has 299 GFLOP where theirs is said to have
361, so that it is, if anything, the quicker one of the two.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from measuring import script_parser
from scenes import scene_tiles
from torch import nn

import geothresh
from geothresh.nn.backends import CompiledRefiner, versioned
from geothresh.nn.config import PRESETS
from geothresh.nn.device import pick_dtype
from geothresh.nn.modelfile import load_weights
from geothresh.nn.network import ThreshNet
from geothresh.nn.packaged import find_model
from geothresh.nn.refiner import TorchRefiner

Run = Callable[[np.ndarray], np.ndarray]

STAND_IN = "stand-in for the published network"
REFERENCE = "torch fp32, NCHW"
TILE = 512


class PatchByPatch(nn.Module):
    """ThreshNet whose local decoder is called once for each patch, as the paper describes it."""

    def __init__(self, network: ThreshNet) -> None:
        """Share the network's weights; it is not changed but for its local decoder's patch."""
        super().__init__()
        self.network = network
        self.patch = network.config.patch // network.config.shuffle
        network.local_decoder.patch = None

    def forward(self, confidence: torch.Tensor) -> torch.Tensor:
        """(B, 1, T, T) in [0, 1] to the same, refined."""
        net = self.network
        x = torch.relu(net.stem(2 * confidence - 1))
        features = []
        for level in net.encoder:
            x = level(x)
            features.append(x)
        skips, bottleneck = features[-2::-1], net.pyramid(features[-1])
        n = confidence.shape[-1] // self.patch
        local = torch.empty_like(confidence)
        for row in range(n):
            for col in range(n):
                cut = [_patch(f, row, col, n) for f in (bottleneck, *skips)]
                _patch(local, row, col, n)[:] = net.local_decoder(cut[0], cut[1:])
        return (net.global_decoder(bottleneck, skips).sigmoid() + local.sigmoid()) / 2


def _patch(x: torch.Tensor, row: int, col: int, n: int) -> torch.Tensor:
    side = x.shape[-1] // n
    return x[..., row * side : (row + 1) * side, col * side : (col + 1) * side]


def plain(call: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    """A function of arrays from one of tensors."""

    def run(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return call(torch.from_numpy(tiles)[:, None])[:, 0].numpy()

    return run


def by_refiner(weights: dict[str, torch.Tensor], preset: str, precision: str) -> TorchRefiner:
    """As `refine` has it: norms folded, channels_last, several tiles at once."""
    return TorchRefiner(weights, PRESETS[preset], device="cpu", precision=precision)


def packaged_weights() -> dict[str, torch.Tensor]:
    """Those of the model `roads`, nothing folded."""
    return load_weights(find_model("roads"), PRESETS["small"])


def seconds_a_tile(call: Run, tile: np.ndarray, callers: ThreadPoolExecutor) -> float:
    """Of as many calls at once as the way has threads for."""
    at_once = call.parallel_calls if isinstance(call, TorchRefiner) else 1
    start = time.perf_counter()
    list(callers.map(call, [tile] * at_once))
    return (time.perf_counter() - start) / at_once


def ways(preset: str, weights: dict[str, torch.Tensor]) -> dict[str, Run | str]:
    """Every way by name; where one cannot be taken, the reason."""
    config = PRESETS[preset]

    def network() -> ThreshNet:
        net = ThreshNet(config).eval().requires_grad_(False)
        net.load_state_dict(weights)
        return net

    found: dict[str, Run | str] = {}
    if preset == "full":
        found[STAND_IN] = plain(PatchByPatch(network()))
    found[REFERENCE] = plain(network().refine)
    found["torch fp32, as refine has it"] = by_refiner(weights, preset, "fp32")
    has_bf16 = pick_dtype("auto", torch.device("cpu")) is torch.bfloat16
    no_bf16 = "this CPU has no instructions for it"
    found["torch bf16, as refine has it"] = (
        by_refiner(weights, preset, "bf16") if has_bf16 else no_bf16
    )
    for backend, precision in (
        ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")
    ):  # fmt: skip
        name = f"{backend} {precision}"
        if find_spec(backend) is None:
            found[name] = "not installed"
        elif precision == "bf16" and not has_bf16:
            found[name] = no_bf16
        else:
            arrays = {name: tensor.numpy() for name, tensor in weights.items()}
            found[name] = CompiledRefiner(
                arrays, config, backend=backend, device="cpu", precision=precision
            )
    return found


def speed(rounds: int, presets: list[str]) -> None:
    """Print seconds of a tile by each way, and how many times quicker than the stand-in it is."""
    tile = np.random.default_rng(0).random((1, TILE, TILE), np.float32)
    torch.manual_seed(0)
    measured: dict[tuple[str, str], list[float]] = {}
    calls: dict[tuple[str, str], Run] = {}
    for preset in presets:
        small = preset == "small"
        weights = packaged_weights() if small else ThreshNet(PRESETS[preset]).state_dict()
        for name, way in ways(preset, weights).items():
            if isinstance(way, str):
                print(f"{preset:6} {name:36} {way}")
            else:
                calls[preset, name] = way
    with ThreadPoolExecutor(os.cpu_count()) as callers:
        for turn in range(rounds + 1):
            for key, call in calls.items():
                seconds = seconds_a_tile(call, tile, callers)
                if turn:  # the first call compiles
                    measured.setdefault(key, []).append(seconds)
    base = min(measured.get(("full", STAND_IN), [float("nan")]))
    print(f"\n{'':43} {'minimum':>9} {'median':>9} {'tiles/s':>8} {'x stand-in':>10}")
    for (preset, name), times in measured.items():
        best = min(times)
        print(
            f"{preset:6} {name:36} {best:7.3f} s {statistics.median(times):7.3f} s "
            f"{1 / best:8.2f} {base / best:10.1f}"
        )


def agreement(n_tiles: int) -> None:
    """Print how far each way is from torch in fp32, on tiles of the demo scene."""
    every = scene_tiles()
    tiles = np.stack(every[:: max(1, len(every) // n_tiles)])
    weights = packaged_weights()
    found = ways("small", weights)
    # Slow where it is emulated, but the same numbers.
    found["torch bf16, as refine has it"] = by_refiner(weights, "small", "bf16")
    reference = found.pop(REFERENCE)(tiles)
    print(f"\nmodel roads, {len(tiles)} tiles of the demo scene, against {REFERENCE}")
    for name, way in found.items():
        if isinstance(way, str):
            continue
        refined = np.concatenate([way(tiles[i : i + 1]) for i in range(len(tiles))])
        flipped = (refined >= 0.5) != (reference >= 0.5)
        print(
            f"{name:36} greatest difference {np.abs(refined - reference).max():.1e}, "
            f"{flipped.sum()} of {flipped.size} pixels of the mask ({100 * flipped.mean():.4f} %)"
        )


def _machine() -> str:
    model = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        with facts.open(encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def main() -> None:
    """Run what the command line says."""
    parser = script_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each way")
    parser.add_argument("--presets", nargs="+", default=["full", "small"], choices=list(PRESETS))
    parser.add_argument("--tiles", type=int, default=8, help="for the differences; 0 for none")
    given = parser.parse_args()
    backends = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
    print(_machine())
    print(
        f"geothresh {geothresh.__version__}, Python {platform.python_version()}, "
        + ", ".join(versioned(name) for name in ("torch", *backends))
    )
    if given.tiles:
        agreement(given.tiles)
    speed(given.rounds, given.presets)


if __name__ == "__main__":
    main()
