"""Trainings with all options side by side, as a table of cases has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from geothresh.api.train import TrainCallbacks, TrainResult, train
from geothresh.base.config import BasePlan, ImageData
from geothresh.options import Reading
from geothresh.training.options import FolderData, NetworkChoice, SceneData, Splitting


def train_flat(data: str | Path | Sequence[Path], output: Path, **options: Any) -> TrainResult:
    """Train with options by the names of the command line."""
    paths = [data] if isinstance(data, str | Path) else list(data)
    labels = options.pop("labels", ())
    splitting = {f.name: options.pop(f.name) for f in fields(Splitting) if f.name in options}
    network = {f.name: options.pop(f.name) for f in fields(NetworkChoice) if f.name in options}
    calls = {f.name: options.pop(f.name) for f in fields(TrainCallbacks) if f.name in options}
    kind = SceneData if labels or any(path.is_file() for path in map(Path, paths)) else FolderData
    own = {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
    if kind is SceneData:
        labels = [labels] if isinstance(labels, str | Path) else labels
        reading = Reading(
            **{n: options.pop(n) for n in ("bidx", "scale", "nodata") if n in options}
        )
        given: FolderData | SceneData = SceneData(
            scenes=paths, labels=labels, reading=reading, **own
        )
    else:
        given = FolderData(folders=paths, **own)
    return train(
        given,
        output,
        network=NetworkChoice(**network),
        splitting=Splitting(**splitting),
        callbacks=TrainCallbacks(**calls),
        **options,
    )


def images_and_plan(
    data: Path | Sequence[Path], options: dict[str, Any]
) -> tuple[ImageData, BasePlan]:
    """Of base networks: data and plan, whose options are taken out."""
    images, plan = (
        {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
        for kind in (ImageData, BasePlan)
    )
    return replace(ImageData.of(data), **images), BasePlan(**plan)


class Killed(BaseException):
    """What a kill is to the run: nothing handles it."""


def killed_at_a_rename(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that sets after how many renames of files from now on the run is killed."""
    rename, left = os.replace, 0

    def counted(*names: Any) -> None:
        nonlocal left
        rename(*names)
        left -= 1
        if left == 0:
            raise Killed

    def after(renames: int) -> None:
        nonlocal left
        left = renames

    monkeypatch.setattr(os, "replace", counted)
    return after
