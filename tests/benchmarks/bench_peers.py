"""geothresh beside its peers, from file to file, each run a process of its own.

    python tests/benchmarks/bench_peers.py --python peers/bin/python --write docs/performance.md

The scripts of ``tests/benchmarks/peers`` are what a user of each library writes. All run the very
same network, geothresh's `roads` as a module of torch with its norms folded, over the demo scene
again and again; the model file that they and geothresh read asks neither for smoothing nor for
hysteresis, so that all cut the same confidences. Cases are run in turn, and that so many times.

``--python`` is the Python of an environment that has the peers besides geothresh:

    python -m venv peers && peers/bin/python -m pip install -e . monai pytorch-toolbelt skan

A peer that cannot be imported there is told with its error.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import machine, put_between, script_parser, table

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
MARK = "peers"


@dataclass(frozen=True, slots=True)
class Run:
    """What a process took."""

    wall: float
    """Seconds by the clock."""
    cpu: float
    """Seconds of processors, in all threads."""
    peak: float
    """Highest resident size, in megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A way from one file to another."""

    name: str
    script: str | None = None
    """Of ``peers``; None = a command."""
    command: tuple[str, ...] = ()
    needs: str | None = None
    """What is imported to see whether it is there."""

    def line(self, python: str, files: Sequence[str]) -> list[str]:
        """The command line."""
        if self.script is not None:
            return [python, str(PEERS / self.script), *files]
        return [part.format(python=python, files=files) for part in self.command]

    @property
    def lines(self) -> int:
        """Lines of code that a user writes: those of statements, without the docstring."""
        if self.script is None:
            return 1
        source = (PEERS / self.script).read_text()
        first, *_ = ast.parse(source).body
        rest = source.splitlines()[first.end_lineno :]
        return sum(bool(line.strip()) for line in rest)


REFINING = (
    Case(
        name="geothresh refine",
        command=("{python}", "-m", "geothresh", "refine", "{files[0]}", "-m", "{files[1]}",
                 "-o", "{files[2]}", "--overwrite", "--quiet"),
    ),
    Case(name="loop over windows, torch", script="torch_loop.py", needs="torch"),
    Case(name="MONAI SlidingWindowInferer", script="monai_window.py", needs="monai.inferers"),
    Case(name="dask.array.map_overlap", script="dask_overlap.py", needs="dask.array"),
    Case(
        name="pytorch-toolbelt TileMerger", script="toolbelt_merger.py",
        needs="pytorch_toolbelt.inference.tiles",
    ),
)  # fmt: skip
VECTORIZING = ("{python}", "-m", "geothresh", "vectorize", "{files[0]}", "-o", "{files[1]}",
               "--overwrite", "--quiet")  # fmt: skip
POLYGONS = (
    Case(name="geothresh vectorize", command=VECTORIZING),
    Case(name="rasterio.features.shapes", script="rasterio_shapes.py", needs="rasterio.features"),
    Case(
        name="gdal_polygonize",
        command=("gdal_polygonize.py", "-q", "-mask", "{files[0]}", "{files[0]}", "-of",
                 "GPKG", "{files[1]}"),
    ),
)  # fmt: skip
CENTERLINES = (
    Case(
        name="geothresh vectorize --kind centerlines",
        command=(*VECTORIZING, "--kind", "centerlines"),
    ),
    Case(name="skan", script="skan_lines.py", needs="skan"),
)


def prepare(folder: Path, scenes: int) -> None:
    """Write scene and model: in a process of its own, whose size no other one starts from."""
    from scenes import SCENE, repeated

    from geothresh.nn.modelfile import load_weights, read_card, save_model
    from geothresh.nn.packaged import find_model
    from geothresh.raster.scene import open_scene

    with open_scene(SCENE) as demo:
        height, width = demo.size.height, demo.size.width
    repeated(folder / "scene.tif", height=scenes * height, width=width)
    source = find_model("roads")
    card = read_card(source)
    training = {key: card.training[key] for key in card.training if key not in ("smooth", "keep")}
    save_model(
        folder / "plain.safetensors", tensors=load_weights(source, card.config),
        config=card.config, training=training,
    )  # fmt: skip
    print(json.dumps({"height": scenes * height, "width": width}))


def differing(ours: Path, theirs: Path) -> float:
    """Share of the pixels of one mask that differ in another; likewise in a process of its own."""
    code = (
        "import sys, rasterio\n"
        "a, b = (rasterio.open(path).read(1) for path in sys.argv[1:])\n"
        "print((a != b).mean())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ours, theirs], stdout=subprocess.PIPE, check=True, text=True
    )
    return float(done.stdout)


def fault(case: Case, python: str) -> str | None:
    """Why a case cannot be run; None where it can."""
    if case.needs is None:
        program = case.command[0]
        there = program.startswith("{") or shutil.which(program) is not None
        return None if there else f"no {program} on the path"
    done = subprocess.run(
        [python, "-c", f"import {case.needs}"], env=environment(), capture_output=True, text=True
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def environment() -> dict[str, str]:
    """Of the processes: this checkout's geothresh."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def once(line: Sequence[str]) -> Run:
    """Run a command line from its start to its end."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            line, env=environment(), stdout=subprocess.DEVNULL, stderr=errors
        )
        # The one call that tells what a single child took.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(line)} failed: {errors.read()}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compared(
    title: str, cases: Sequence[Case], files: Sequence[Path], python: str, repeat: int,
    *, masks: bool = False,
) -> str:  # fmt: skip
    """Run the cases in turn, the first of which is ours: a table in Markdown."""
    *inputs, output = files
    faults = {case.name: fault(case, python) for case in cases}
    targets = {case.name: output.with_name(f"{k}{output.suffix}") for k, case in enumerate(cases)}
    runs: dict[str, list[Run]] = {case.name: [] for case in cases}
    for _ in range(repeat):
        for case in cases:
            if faults[case.name] is None:
                # Not all of them replace what is there.
                targets[case.name].unlink(missing_ok=True)
                paths = [str(path) for path in (*inputs, targets[case.name])]
                runs[case.name].append(once(case.line(python, paths)))
    head = [title, "wall, s", "over ours", "processor, s", "over ours", "peak, MB", "lines of code"]
    if masks:
        head.append("mask differs")
    rows = []
    for case in cases:
        found, ours = runs[case.name], runs[cases[0].name]
        if not found:
            rows.append([case.name, f"not here: {faults[case.name]}", *[""] * (len(head) - 2)])
            continue
        rows.append([case.name, *figures(found, ours), str(case.lines)])
        if masks:
            share = differing(targets[cases[0].name], targets[case.name])
            rows[-1].append(f"{100 * share:.3f} %")
    return table(head, rows)


def figures(runs: Sequence[Run], ours: Sequence[Run]) -> list[str]:
    """Medians of wall and processor time, each with that over ours of the same round; the peak."""
    pairs = list(zip(runs, ours, strict=True))
    return [
        f"{statistics.median(run.wall for run in runs):.1f}",
        f"{statistics.median(run.wall / own.wall for run, own in pairs):.2f}",
        f"{statistics.median(run.cpu for run in runs):.1f}",
        f"{statistics.median(run.cpu / own.cpu for run, own in pairs):.2f}",
        f"{max(run.peak for run in runs):.0f}",
    ]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--python", default=sys.executable, help="of the peers' environment")
    parser.add_argument("--scenes", type=int, default=8, help="demo scenes below each other")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--write", type=Path, help="a Markdown file with marks for the tables")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        prepare(arguments.prepare, arguments.scenes)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--prepare", name, "--scenes", str(arguments.scenes)]
        done = subprocess.run(
            command, env=environment(), stdout=subprocess.PIPE, check=True, text=True
        )
        size = json.loads(done.stdout)
        scene, model = folder / "scene.tif", folder / "plain.safetensors"
        measured = (arguments.python, arguments.repeat)
        masks = compared(
            "mask", REFINING, [scene, model, folder / "mask.tif"], *measured, masks=True
        )
        mask = folder / "0.tif"
        texts = [
            f"{size['width']:,} x {size['height']:,} pixels, medians of {arguments.repeat}; "
            f"{machine('torch', 'rasterio', 'dask')}",
            masks,
            compared("polygons", POLYGONS, [mask, folder / "p.gpkg"], *measured),
            compared("centrelines", CENTERLINES, [mask, folder / "l.gpkg"], *measured),
        ]
    text = "\n\n".join(texts)
    print(text)
    if arguments.write is not None:
        put_between(arguments.write, text, mark=MARK)


if __name__ == "__main__":
    main()
