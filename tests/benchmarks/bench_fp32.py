"""A tile through `roads` in fp32, as on a CPU without AVX-512 and bf16.

    python tests/benchmarks/bench_fp32.py
    python tests/benchmarks/bench_fp32.py --instructions all --threads 1 2 4

By default torch with its oneDNN and OpenVINO are told to leave AVX-512 alone, which they read from
the environment when they start; ONNX Runtime cannot be told. On a CPU that has no AVX-512 anyway,
such as Apple's, take --instructions all. Each number of threads has a process of its own, which
takes all ways in turn, round by round; processor time is that of all its threads.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from importlib.util import find_spec

import numpy as np
from measuring import Seconds, in_process, in_turn, machine, ratio, script_parser, table, timed

INSTRUCTIONS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "all": {},
}
"""Which of the processor's are used, and what says so to the libraries."""
USUAL = "torch, as refine has it"
TILE = 512
Run = Callable[[np.ndarray], np.ndarray]


def ways() -> dict[str, Run]:
    """Every way by name, from the weights of `roads`."""
    import torch
    from bench_network import by_refiner, packaged_weights, plain

    from geothresh.nn.backends import CompiledRefiner
    from geothresh.nn.config import PRESETS

    weights = packaged_weights()
    usual = by_refiner(weights, "small", "fp32")
    contiguous = deepcopy(usual.network).to(memory_format=torch.contiguous_format)
    compiled = by_refiner(weights, "small", "fp32")
    compiled.compile()
    found: dict[str, Run] = {
        USUAL: usual,
        "torch, one tile at a time": plain(usual.network.refine),
        "torch, NCHW, one tile at a time": plain(contiguous.refine),
        "torch, compiled": compiled,
    }
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    for backend in ("openvino", "onnxruntime"):
        if find_spec(backend) is not None:
            found[backend] = CompiledRefiner(
                arrays, PRESETS["small"], backend=backend, device="cpu", precision="fp32"
            )
    return found


def case(rounds: int) -> None:
    """Print the median wall and processor time of a tile by each way in this process."""
    tile = np.random.default_rng(0).random((1, TILE, TILE), np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as callers:

        def of_a_tile(way: Run) -> Seconds:
            at_once = getattr(way, "parallel_calls", 1)
            took = timed(lambda: list(callers.map(way, [tile] * at_once)))
            return Seconds(took.wall / at_once, took.cpu / at_once)

        cases = {name: partial(of_a_tile, way) for name, way in ways().items()}
        in_turn(cases, 1)  # the first call compiles
        runs = in_turn(cases, rounds)
    figures: dict[str, float] = {}
    for name, found in runs.items():
        for of in ("wall", "cpu"):
            figures[f"{name} {of}"] = statistics.median(getattr(one, of) for one in found)
            figures[f"{name} {of} ratio"] = ratio(found, runs[USUAL], of=of)
    print(json.dumps(figures))


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--instructions", choices=list(INSTRUCTIONS), default="avx2")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way")
    parser.add_argument("--case", action="store_true", help="measure in this process, as it is")
    arguments = parser.parse_args()
    if arguments.case:
        case(arguments.rounds)
        return
    backends = [name for name in ("openvino", "onnxruntime") if find_spec(name)]
    print(machine("torch", *backends), f"instructions: {arguments.instructions}", sep="\n")
    os.environ |= INSTRUCTIONS[arguments.instructions]
    rows = []
    for threads in arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        figures = in_process(__file__, "--case", "--rounds", arguments.rounds)
        for name in [key.removesuffix(" wall") for key in figures if key.endswith(" wall")]:
            wall, cpu = (
                [f"{1e3 * figures[f'{name} {of}']:.0f}", f"{figures[f'{name} {of} ratio']:.2f}"]
                for of in ("wall", "cpu")
            )
            rows.append([str(threads), name, *wall, *cpu])
    head = ["threads", "", "wall ms a tile", "of the usual", "processor ms a tile", "of the usual"]
    print(f"\n{TILE} x {TILE} pixels, fp32, medians of {arguments.rounds}\n")
    print(table(head, rows))


if __name__ == "__main__":
    main()
