"""One run of a study: train on some maps, score on the held-out ids of all, keep the result.

Training and scoring are `geothresh.api.train.train` and `geothresh.api.evaluate.evaluate`, which
are what the command line calls.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from geothresh.api.evaluate import evaluate
from geothresh.api.train import TrainCallbacks, train
from geothresh.errors import InputError, UsageError
from geothresh.evaluation import options
from geothresh.files import write_text
from geothresh.nn.config import PRESETS
from geothresh.options import Compute, Refining
from geothresh.training import Recipe
from geothresh.training.options import FolderData, NetworkChoice, Splitting

#: Networks that are no presets of the command line: `small` with twice the channels, which are four
#: times the operations.
TRIED = {"wide": replace(PRESETS["small"], widths=(64, 128, 192, 256))}
SNAPSHOT = re.compile(r"-step\d+$")
#: Steps between two validations, about, which take as long as a few hundred steps; a run that is
#: stopped goes on from the last of them.
STEPS_PER_EPOCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """The maps of one base network over one data set."""

    data: Path
    """Folder with the masks."""
    folder: Path
    """Folder with the maps."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.data.name

    @property
    def network(self) -> str:
        """Name of the base network."""
        return self.folder.name

    @property
    def family(self) -> str:
        """The network, of which a snapshot (``-step00500``) is no other."""
        return SNAPSHOT.sub("", self.network)

    @property
    def is_snapshot(self) -> bool:
        """Whether the network was still in training: good to learn from, no row of a table."""
        return self.family != self.network

    @property
    def name(self) -> str:
        """Both."""
        return f"{self.dataset}/{self.network}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is trained."""

    name: str
    maps: tuple[Maps, ...]
    """To train on."""
    recipe: Recipe
    patch: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all runs of a study have in common."""

    maps: tuple[Maps, ...]
    """To score on."""
    split: Path
    preset: str
    device: str
    output: Path
    """Folder with a folder for each run."""
    sizes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and greatest pixel of each data set on the ground, in metres."""
    resolution: float | None = None
    """Of the network, to which all data is brought; None = the data as it is."""

    def pixels(self, data: Sequence[Path]) -> list[tuple[float, float]]:
        """Of these data sets, where they are to be brought to one resolution.

        Raises:
            UsageError: one is not known.
        """
        if self.resolution is None:
            return []
        lacking = [folder.name for folder in data if folder.name not in self.sizes]
        if lacking:
            raise UsageError(f"--resolution needs the pixels of {lacking[0]}: add --gsd SET=M")
        return [self.sizes[folder.name] for folder in data]


def find_maps(data: Path, further: Sequence[Path] = ()) -> tuple[Maps, ...]:
    """All maps over the masks in ``<data>/<set>``.

    They are in ``<data>/confidence/<set>/<network>``, and in ``<set>/<network>`` of further
    folders.

    Raises:
        InputError: there are none, or two folders have one name.
    """
    found: dict[str, Maps] = {}
    for root in (data / "confidence", *further):
        for folder in sorted(p for p in root.glob("*/*") if p.is_dir()):
            maps = Maps(data=data / folder.parent.name, folder=folder)
            if not maps.data.is_dir():
                raise InputError(f"{folder}: there are no masks for it in {maps.data}")
            if maps.name in found:
                raise InputError(
                    f"{folder}: {found[maps.name].folder} has the same name; rename one"
                )
            found[maps.name] = maps
    if not found:
        raise InputError(
            f"{data}: no folder confidence/SET/NETWORK in it; name another with --data"
        )
    return tuple(found[name] for name in sorted(found))


def stepped(recipe: Recipe, steps: int) -> Recipe:
    """The recipe, over this many steps."""
    epochs = max(1, round(steps / STEPS_PER_EPOCH))
    return replace(recipe, epochs=epochs, chips_per_epoch=-(-steps * recipe.batch_size // epochs))


def perform(run: Run, setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Train and score, unless the result is there already.

    Raises:
        UsageError: there is a result of a run with other options.
    """
    folder = setting.output / run.name
    file = folder / "result.json"
    described = json.loads(json.dumps(_describe(run, setting)))
    if file.exists():
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if result["run"] != described:
            raise UsageError(f"{file}: is of a run with other options; choose another --output")
        say(f"{run.name}: done before")
        return result
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.safetensors"
    going_on = (folder / "model.state.safetensors").exists()
    data = sorted({maps.data for maps in run.maps})
    with _as_preset(setting.preset) as preset:
        trained = train(
            FolderData(
                folders=data,
                confidence=[maps.folder for maps in run.maps],
                skip_unpaired=True,
                ground_sample_distance=setting.pixels(data),
            ),
            model,
            network=NetworkChoice(preset=preset, patch=run.patch, resolution=setting.resolution),
            recipe=run.recipe,
            splitting=Splitting(split=setting.split),
            resume=going_on,
            overwrite=not going_on,
            device=setting.device,
            callbacks=TrainCallbacks(
                on_epoch=lambda row: say(
                    f"{run.name}: epoch {row['epoch']} of {run.recipe.epochs}, "
                    f"miou {100 * row['miou']:.2f}, Boundary IoU {100 * row['boundary_iou']:.2f}"
                )
            ),
        )
    started = time.perf_counter()
    scores = {}
    for maps in (m for m in setting.maps if not m.is_snapshot):
        # The last epoch: none is chosen by what is reported.
        report = evaluate(
            maps.data,
            model=trained.last,
            maps=options.Maps(
                confidence=[maps.folder],
                ids=setting.split,
                skip_unpaired=True,
                ground_sample_distance=[math.sqrt(a * b) for a, b in setting.pixels([maps.data])],
            ),
            refining=Refining(resolution=setting.resolution or "native"),
            compute=Compute(device=setting.device),
        )
        (source,) = report.sources
        figures = source.as_dict()
        scores[maps.name] = {key: figures[key] for key in ("n", "rows", "changes")}
    result = {
        "run": described,
        "machine": machine(),
        "train_seconds": round(trained.seconds, 1),
        "score_seconds": round(time.perf_counter() - started, 1),
        "steps": trained.steps,
        "scores": scores,
    }
    write_text(file, json.dumps(result, indent=1) + "\n")
    return result


@contextmanager
def _as_preset(name: str) -> Iterator[str]:
    """The preset to ask for; one that is only tried stands in for `small` meanwhile."""
    if name not in TRIED:
        yield name
        return
    with mock.patch.dict(PRESETS, small=TRIED[name]):
        yield "small"


def _describe(run: Run, setting: Setting) -> dict[str, Any]:
    return {
        "name": run.name,
        "trained_on": [maps.name for maps in run.maps],
        "scored_on": [maps.name for maps in setting.maps if not maps.is_snapshot],
        "resolution": setting.resolution,
        "pixels": dict(setting.sizes),
        "split": setting.split.name,
        "preset": setting.preset,
        "patch": run.patch,
        "recipe": run.recipe.as_dict(),
    }


def machine() -> str:
    """What a run ran on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores{gpu}; "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("geothresh", "torch", "numpy"))
    )
