"""Options as values: defaults, what is accepted, and what a field knows of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geothresh
from geothresh.base.config import BasePlan, BaseRecipe, Holdout, ImageData
from geothresh.errors import UsageError
from geothresh.fields import Options, decisive, given, known, require_only
from geothresh.many.options import Many
from geothresh.nn.config import LossWeights
from geothresh.options import BaseTiling, Compute, Outputs, Reading, Refining, Tiling, Writing
from geothresh.training.options import FolderData, NetworkChoice, SceneData, Splitting
from geothresh.training.recipe import Recipe
from geothresh.vector.options import Centerlines, Foreground, Polygons, VectorWriting

CLASSES: list[type[Options]] = [
    BasePlan,
    BaseRecipe,
    BaseTiling,
    Centerlines,
    Compute,
    Foreground,
    Holdout,
    LossWeights,
    Many,
    NetworkChoice,
    Outputs,
    Polygons,
    Reading,
    Recipe,
    Refining,
    Splitting,
    Tiling,
    VectorWriting,
    Writing,
]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_is_frozen_and_says_something_of_each_field(kind: Any) -> None:
    made = kind()
    assert given(made) == []
    for name, option in known(made).items():
        assert option.help
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Reading, {"bidx": 0}, "`bidx` 0: give a whole number of at least 1"),
        (Reading, {"scale": 0}, "`scale` 0: give auto or logit or a number above 0"),
        (Reading, {"scale": "percent"}, "`scale` 'percent': give auto or logit or"),
        (Reading, {"bounds": (0, 0, 0, 1)}, "`bounds` 0,0,0,1: give left, bottom, right and top"),
        (Reading, {"bounds": (0, 0, np.nan, 1)}, "`bounds` 0,0,nan,1: give left"),
        (Reading, {"aoi": "a.gpkg", "bounds": (0, 0, 1, 1)}, "`aoi` and `bounds`: give one"),
        (Refining, {"threshold": np.nan}, "`threshold` nan: give a number from 0 to 1"),
        (Refining, {"threshold": 1.1}, "`threshold` 1.1: give a number from 0 to 1"),
        (Refining, {"tta": "d8"}, "`tta` 'd8': give none or d4"),
        (Tiling, {"tile_size": True}, "`tile_size` True: give a whole number of at least 1"),
        (Tiling, {"overlap": -1}, "`overlap` -1: give a whole number of at least 0"),
        (BaseTiling, {"overlap": None}, "`overlap` None: give a whole number"),
        (Tiling, {"blend": "mean"}, "`blend` 'mean': give hann or gaussian or linear or crop"),
        (Compute, {"batch_size": 1.5}, "`batch_size` 1.5: give auto or a whole number"),
        (Compute, {"device": None}, "`device` None: give a text"),
        (Compute, {"workers": 2, "scheduler": "tcp://a:1"}, "2 workers and the scheduler tcp"),
        (Writing, {"overwrite": "no"}, "`overwrite` 'no': give True or False"),
        (Writing, {"creation_options": "ZSTD"}, "`creation_options` 'ZSTD': give a mapping"),
        (Outputs, {"vector": 3}, "`vector` 3: give a path"),
        (Refining, {"threshold": "0.5"}, "`threshold` '0.5': give a number from 0 to 1"),
        (Compute, {"workers": "2"}, "`workers` '2': give a whole number of at least 0"),
        (Reading, {"bounds": ("0", "0", "1", "1")}, "`bounds` '0','0','1','1': give left"),
        (Reading, {"bounds": (0, 0, 10**400, 1)}, "`bounds` 0,0,1"),
        (Reading, {"nodata": 10**400}, "`nodata` 1"),
        (Reading, {"nodata": np.zeros(3)}, "`nodata` of type ndarray: give a number"),
        (Centerlines, {"spur": -1}, "`spur` -1: give a number of at least 0"),
        (Centerlines, {"bridge_confidence": 2}, "`bridge_confidence` 2: give a number from 0 to 1"),
        (VectorWriting, {"append": True, "overwrite": True}, "`overwrite` replaces the whole file"),
        (FolderData, {"folders": ["a"], "confidence": "b"}, "`confidence` 'b': give a list"),
        (SceneData, {"scenes": ["a"], "labels": ["b"], "buffer": 0}, "`buffer` 0: give a number a"),
        (ImageData, {"folders": ["a"], "skip_unpaired": 1}, "`skip_unpaired` 1: give True or Fal"),
        (Splitting, {"block_size": 63}, "`block_size` 63: give a whole number of at least 64"),
        (Splitting, {"validation_fraction": 1}, "`validation_fraction` 1: give a number of at lea"),
        (Splitting, {"split": "a", "hold_out": ["b"]}, "`split` says what to validate on, and so"),
        (NetworkChoice, {"patch": 65}, "`patch` 65: give 16 or 32 or 64 or 128 or 256"),
        (NetworkChoice, {"init": 3}, "`init` 3: give a name or a path"),
        (Recipe, {"learning_rate": np.inf}, "`learning_rate` inf: give a number above 0"),
        (BaseRecipe, {"crop_size": 40}, "`crop_size` 40: give a multiple of 32"),
    ],
)
def test_what_is_not_accepted_is_said_with_the_name(
    kind: Any, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert str(caught.value).startswith(said)


def test_numbers_of_numpy_and_paths_are_accepted() -> None:
    assert Tiling(tile_size=np.int64(256)).tile_size == 256
    assert Refining(threshold=np.float32(0.5)).threshold == 0.5
    assert type(Tiling(tile_size=np.int64(256)).tile_size) is int  # which JSON can hold
    assert type(Refining(threshold=np.float32(0.5)).threshold) is float
    assert np.isnan(Reading(nodata=np.nan).nodata or 0)
    assert given(Outputs(confidence=Path("a.tif"))) == ["confidence"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: geothresh.refine("s.tif", progress=True), "`progress` True: give a function"),
        (
            lambda: geothresh.refine("s.tif", compute="cuda"),
            "`compute` 'cuda': give Compute(...)",
        ),
        (
            lambda: geothresh.refine("s.tif", threshold=0.4),  # type: ignore[call-arg]
            "`threshold` is given in a class: refining=Refining(threshold=...)",
        ),
        (
            lambda: geothresh.vectorize("m.tif", draw="centerlines"),
            "`draw` 'centerlines': give Polygons(...) or Centerlines(...)",
        ),
        (
            lambda: geothresh.train("d", "m.safetensors", loader_workers="2"),
            "`loader_workers` '2': give a whole number",
        ),
        (
            lambda: geothresh.train_base("d", "m.safetensors", {}),
            "`plan` of type dict: give BasePlan(...)",
        ),
        (
            lambda: geothresh.refine_array(np.zeros((9, 9)), ground_sample_distance="1"),
            "`ground_sample_distance` '1': give a number above 0",
        ),
        (
            lambda: geothresh.load_model(3),
            "`model` 3: give a name or a path",
        ),
        (
            lambda: geothresh.load_model(device=None),
            "`device` None: give a text",
        ),
        (
            lambda: geothresh.load_model(batch_size=True),
            "`batch_size` True: give auto or a whole number of at least 1",
        ),
        (
            lambda: geothresh.load_model(batch_size="a"),
            "`batch_size` 'a': give auto or a whole number of at least 1",
        ),
        (
            lambda: geothresh.load_model(compiled="no"),
            "`compiled` 'no': give True or False",
        ),
        (
            lambda: geothresh.TrainCallbacks(on_step=3),
            "`on_step` 3: give a function",
        ),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_at_once(call: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value) == said


@pytest.mark.parametrize("single", ["place", Path("place")])
def test_a_single_path_is_a_sequence_of_one(single: Any) -> None:
    assert list(geothresh.FolderData(folders=single).folders) == [single]
    assert list(geothresh.SceneData(scenes=single, labels=["l.gpkg"]).scenes) == [single]


def test_idle_options_are_refused() -> None:
    reading = Reading(bidx=2, allow_vrt=True)
    require_only(reading, "bidx", "allow_vrt", why="is idle")
    with pytest.raises(UsageError, match="^`bidx` is for a raster; leave it out$"):
        require_only(reading, "allow_vrt", why="is for a raster")


def test_decisive_options_are_those_that_pixels_depend_on() -> None:
    every = decisive(Tiling(tile_size=256), Refining(), Writing(), Outputs())
    assert every == {
        "tile_size": 256, "overlap": None, "blend": "hann", "tta": "none", "threshold": 0.5
    }  # fmt: skip


def test_base_networks_read_larger_tiles() -> None:
    assert (BaseTiling().tile_size, BaseTiling(blend="crop").overlap) == (1024, 128)
