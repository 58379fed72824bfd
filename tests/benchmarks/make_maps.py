"""Confidence maps to train and to judge ThreshNet on, made again by one command.

    python tests/benchmarks/make_maps.py --data DATA --weights WEIGHTS -o MAPS

WEIGHTS holds ImageNet's for encoders of segmentation-models-pytorch, ``ENCODER.safetensors`` for
tu-tf_efficientnet_lite0 and tu-tf_efficientnet_lite1. DATA holds folders of labelled images
(``roads-cil/<id>_sat.jpg``, ``<id>_mask.png``, and so on).
Two kinds of maps are made of each theme, by networks that start from the encoder's weights:

- out of fold: ``MAPS/THEME/<set>/<network>/<id>.png``, by `geothresh base crossfit`;
- across places: ``MAPS/THEME/<set>/NETWORK-elsewhere/<id>.png``, by a network that was trained on
  other sets alone, which is how most maps of strangers come about, and the most biased.

What is there is not made again, so that a run that was stopped goes on by the same command;
``--only`` picks jobs by name, and two runs with different jobs may go on side by side. A manifest
says what was made with which command. With two cores all of it takes some hours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from measuring import script_parser

LITE0, LITE1 = "tu-tf_efficientnet_lite0", "tu-tf_efficientnet_lite1"
ROADS = ("cil", "handannotated", "massachusetts", "newyork", "penang")
LANDSLIDES = ("bijie", "hrgldd", "mars", "sichuan", "uav")
#: The sets that a network is trained on, and those that it then predicts.
ELSEWHERE = {
    "roads": (
        (("cil", "handannotated", "massachusetts"), ("newyork", "penang")),
        (("newyork", "penang"), ("cil", "handannotated", "massachusetts")),
    ),
    "landslides": (
        (("hrgldd", "sichuan"), ("bijie", "uav", "mars")),
        (("bijie", "mars", "uav"), ("hrgldd", "sichuan")),
    ),
}
#: One scene of a drone is one place; tiles of Mars are neighbours within ten columns; ten frames
#: of an endoscopy are not cut apart.
PLACES = {
    "landslides": r"^(?:train_col)?(r(?=\d+_c)|\d{4}(?=\d_row))",
    "polyps": None,
    "roads": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network trained on one theme."""

    theme: str
    network: str
    steps: int
    crop: int = 256
    elsewhere: bool = False
    encoder: str = LITE0
    snapshots: int = 0
    """Earlier steps, evenly spread, whose networks make maps too: weaker ones."""

    @property
    def maker(self) -> str:
        """The network, with its encoder where that is not the usual one."""
        return self.network if self.encoder == LITE0 else f"{self.network}-lite1"

    @property
    def name(self) -> str:
        kind = "elsewhere" if self.elsewhere else "crossfit"
        return f"{self.theme}-{self.maker}-{kind}"


#: In the order of their worth. LinkNet and D-LinkNet learn slowly: after 120 steps not one of
#: their confidences reaches 0.5.
JOBS = (
    Job(theme="roads", network="pspnet", steps=110),
    Job(theme="roads", network="pspnet", steps=90, elsewhere=True),
    Job(theme="roads", network="fcn8s", steps=120),
    Job(theme="landslides", network="pspnet", steps=90, crop=128),
    Job(theme="polyps", network="pspnet", steps=80),
    Job(theme="landslides", network="fcn8s", steps=90, crop=128),
    Job(theme="polyps", network="fcn8s", steps=80),
    Job(theme="polyps", network="unet", steps=120),
    Job(theme="landslides", network="unet", steps=400, crop=128),
    Job(theme="roads", network="fcn8s", steps=90, elsewhere=True),
    Job(theme="roads", network="unet", steps=100),
    Job(theme="roads", network="deeplabv3plus", steps=100),
    Job(theme="landslides", network="pspnet", steps=90, crop=128, elsewhere=True),
    Job(theme="roads", network="unet", steps=90, elsewhere=True),
    Job(theme="roads", network="linknet", steps=900),
    Job(theme="roads", network="dlinknet", steps=900),
    Job(theme="roads", network="pspnet", encoder=LITE1, steps=390, snapshots=2),
    Job(theme="roads", network="pspnet", encoder=LITE1, steps=90, elsewhere=True),
)


def sets_of(theme: str) -> tuple[str, ...]:
    """Names of the folders of a theme."""
    parts = {"roads": ROADS, "landslides": LANDSLIDES, "polyps": ("clinicdb",)}[theme]
    return tuple(f"{theme}-{part}" for part in parts)


class Maker:
    """Runs the commands of jobs, and writes down which."""

    def __init__(self, data: Path, weights: Path, output: Path) -> None:
        self.data = data
        self.weights = weights
        self.output = output

    def make(self, job: Job) -> None:
        """Make the maps of a job that are not there yet."""
        commands = self._elsewhere(job) if job.elsewhere else self._crossfit(job)
        done = []
        for command in commands:
            print(" ".join(command), flush=True)
            subprocess.run([sys.executable, "-m", "geothresh", *command], check=True)
            done.append(" ".join(command))
        manifest = self.output / f"{job.name}.json"
        manifest.write_text(json.dumps({"job": job.name, "commands": done}, indent=1) + "\n")

    def _training(self, job: Job) -> list[str]:
        pattern = PLACES[job.theme]
        return [
            "--network", job.network, "--encoder", job.encoder,
            "--encoder-weights", str(self.weights / f"{job.encoder}.safetensors"),
            *(("--snapshots", str(job.snapshots)) if job.snapshots else ()),
            "--steps", str(job.steps), "--crop-size", str(job.crop), "--learning-rate", "1e-3",
            *(() if pattern is None else ("--place-pattern", pattern)),
            "--device", "cpu", "-q",
        ]  # fmt: skip

    def _crossfit(self, job: Job) -> Iterator[list[str]]:
        folders = [str(self.data / name) for name in sets_of(job.theme)]
        output = self.output / job.theme
        if len(folders) == 1:  # of one set, crossfit leaves its name out
            output /= sets_of(job.theme)[0]
        yield [
            "base",
            "crossfit",
            *folders,
            "-o",
            str(output),
            "--folds",
            "2",
            *self._training(job),
        ]

    def _elsewhere(self, job: Job) -> Iterator[list[str]]:
        for side, (seen, strange) in enumerate(ELSEWHERE[job.theme]):
            folders = [str(self.data / f"{job.theme}-{name}") for name in seen]
            model = self.output / f"{job.name}-{side + 1}.safetensors"
            if not model.exists():
                yield ["base", "train", *folders, "-o", str(model), *self._training(job)]
            for name in strange:
                images = self.data / f"{job.theme}-{name}"
                target = self.output / job.theme / images.name / f"{job.maker}-elsewhere"
                if target.exists():
                    continue
                half = target.with_name(f".{target.name}.{os.getpid()}")
                shutil.rmtree(half, ignore_errors=True)
                yield ["base", "predict", str(images), "-o", str(half), "-m", str(model),
                       "--device", "cpu", "-q"]  # fmt: skip
                half.rename(target)


def main() -> None:
    """Make the maps of all jobs, or of those that are named."""
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--weights", type=Path, required=True, help="folder of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--only", action="append", help="pattern of names of jobs")
    arguments = parser.parse_args()
    chosen = [j for j in JOBS if any(fnmatchcase(j.name, p) for p in arguments.only or ["*"])]
    arguments.output.mkdir(parents=True, exist_ok=True)
    maker = Maker(arguments.data, arguments.weights, arguments.output)
    for job in chosen:
        maker.make(job)


if __name__ == "__main__":
    main()
