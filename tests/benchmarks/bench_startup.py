"""Wall and processor time of whole commands on a small scene, from start to exit.

    python tests/benchmarks/bench_startup.py
    python tests/benchmarks/bench_startup.py --before ../geothresh-of-yesterday

The commands are run in turn, and that so many times; medians are printed. With ``--before``, a
checkout to compare with, each command is run with that one and with this one right after it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import rasterio
from measuring import Seconds, in_turn, machine, ratio, script_parser, table
from rasterio.windows import Window
from scenes import SCENE, TILE

HERE = Path(__file__).parents[2]
# What else takes time before a command's own code runs.
FLOOR = "python -c 'import click, numpy, rasterio'"


def small_scene(target: Path) -> Path:
    """A tile of the demo scene, with its place and its blocks."""
    window = Window(TILE, TILE, TILE, TILE)
    with rasterio.open(SCENE) as demo:
        values = demo.read(1, window=window)
        profile = demo.profile | {
            "width": TILE, "height": TILE, "transform": demo.window_transform(window)
        }  # fmt: skip
    with rasterio.open(target, "w", **profile) as dataset:
        dataset.write(values, 1)
    return target


def copied(checkout: Path, target: Path) -> Path:
    """The package of a checkout in a place where its bytecode may be written beside it."""
    shutil.copytree(
        checkout / "geothresh", target / "geothresh", ignore=shutil.ignore_patterns("__pycache__")
    )
    return target


def commands() -> dict[str, list[str]]:
    """What is measured, by name."""
    geothresh = ["-m", "geothresh"]
    found = {
        FLOOR: ["-c", "import click, numpy, rasterio"],
        "geothresh --help": [*geothresh, "--help"],
        "geothresh info": [*geothresh, "info", "scene.tif"],
        "geothresh refine": [*geothresh, "refine", "scene.tif", "--overwrite"],
    }
    for backend in ("openvino", "onnxruntime"):
        if find_spec(backend) is not None:
            name = f"geothresh refine --backend {backend}"
            found[name] = [*found["geothresh refine"], "--backend", backend]
    return found


def run(arguments: list[str], source: Path, folder: Path) -> Seconds:
    """One process, from its start to its end; its processor time is that of all its threads."""
    # Bytecode is kept, as that of an installed package is.
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": ""}
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr}")
    spent = after.children_user + after.children_system
    return Seconds(wall, spent - before.children_user - before.children_system)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--repeat", type=int, default=10, help="rounds")
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_scene(folder / "scene.tif")
        sources = {"": copied(HERE, folder / "now")}
        if arguments.before is not None:
            sources = {" (before)": copied(arguments.before, folder / "before"), **sources}
        cases: dict[str, Callable[[], Seconds]] = {
            f"{title}{which}": partial(run, line, source, folder)
            for title, line in commands().items()
            for which, source in sources.items()
            if not (title == FLOOR and which)
        }
        for command in cases.values():
            command()  # the first one compiles
        print(machine("torch", "numpy", "rasterio", "dask"), flush=True)
        runs = in_turn(cases, arguments.repeat)
        print(
            f"\n{TILE} x {TILE} pixels, medians of {arguments.repeat}; load {os.getloadavg()[0]}\n"
        )
    rows = []
    for case, found in runs.items():
        figures = [statistics.median(one.wall for one in found), min(one.wall for one in found)]
        figures.append(statistics.median(one.cpu for one in found))
        before = runs.get(f"{case} (before)")
        rows.append(
            [
                f"`{case}`" if not case.endswith(")") else case,
                *(f"{figure:.2f}" for figure in figures),
                "" if before is None else f"{ratio(found, before, of='cpu'):.2f}",
            ]
        )
    head = ["", "wall s", "at best", "processor s", "of the processor time before"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
