"""`--compile yes` beside `no` on the CPU of this machine: compiling, a tile, and the masks.

    python tests/benchmarks/bench_compile.py
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python tests/benchmarks/bench_compile.py    # all anew

Seconds are the processor's, of tiles in turn. Compiling takes its full time where torch's cache has
nothing of it yet: run it twice, or as in the second line. For a GPU: `bench_gpu.py compile`.
"""

from __future__ import annotations

import os
import statistics
import time
from functools import partial

import numpy as np
from measuring import in_turn, least, machine, ratio, script_parser, table, timed
from scenes import scene_tiles

from geothresh.api.models import load_model


def main() -> None:
    """Print a table."""
    parser = script_parser(__doc__)
    parser.add_argument("--model", default="roads", help="name or file")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--repeat", type=int, default=10, help="rounds")
    given = parser.parse_args()
    print(machine("torch", "numpy"))
    tiles = np.stack(scene_tiles()[::12])
    load = partial(load_model, given.model, device="cpu", precision=given.precision)
    plain, compiled = load(), load(compiled=True)
    wall, before = time.perf_counter(), os.times()
    compiled(tiles[:1])
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])  # of this process and of the compiler's
    print(f"compiling: {time.perf_counter() - wall:.1f} s, of the processor {spent:.1f} s")
    expected, found = plain(tiles), compiled(tiles)
    runs = in_turn(
        {name: partial(timed, partial(one, tiles[:1])) for name, one in
         (("no", plain), ("yes", compiled))},
        given.repeat,
    )  # fmt: skip
    rows = [
        [name, f"{1e3 * least(of).cpu:.1f}", f"{1e3 * statistics.median(r.cpu for r in of):.1f}"]
        for name, of in runs.items()
    ]
    print(f"\n{given.model}, {compiled.precision}, one tile of 512 x 512\n")
    print(table(["--compile", "least, ms of the processor", "median"], rows))
    other = ((found >= 0.5) != (expected >= 0.5)).mean()
    print(
        f"\nyes over no, median of pairs: {ratio(runs['yes'], runs['no'], of='cpu'):.2f}; over "
        f"{len(tiles)} tiles of the demo scene the mask differs in {100 * other:.4f} %, the "
        f"confidence by {np.abs(found - expected).max():.1e} at most"
    )


if __name__ == "__main__":
    main()
