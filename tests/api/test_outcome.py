"""Warnings of outcomes that are unlike those of training."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from geothresh.api.refine import refine
from geothresh.errors import GeothreshWarning
from geothresh.nn.packaged import packaged_besides, packaged_models
from geothresh.nn.scope import UNKNOWN, ModelScope, Range
from geothresh.options import Refining, Tiling, Writing
from geothresh.run.changes import ChangeCounts
from geothresh.run.outcome import doubts
from tests.support.networks import write_model
from tests.support.rasters import write_raster

ROADS = ModelScope(theme="roads and streets")


def counts(before: int, after: int, changed: int) -> ChangeCounts:
    return ChangeCounts(
        valid=10**6, foreground_before=before, foreground_after=after, changed=changed
    )


@pytest.mark.parametrize(
    ("before", "after", "changed", "said"),
    [
        (90_000, 13_000, 79_000, "removed 87 % of the foreground"),
        (90_000, 70_000, 40_000, None),  # 30,000 removed, 10,000 added
        (90_000, 60_000, 30_000, None),  # just a third
        (90_000, 220_000, 130_000, "changed 13 % of all pixels"),
        (900, 0, 900, None),  # too little to tell
        (0, 0, 0, None),
    ],
)
def test_what_is_unlike_training_is_told(
    before: int, after: int, changed: int, said: str | None
) -> None:
    told = doubts(counts(before, after, changed), model="roads", scope=ROADS)
    if said is None:
        assert told is None
    else:
        assert told is not None
        assert said in told
        assert "model roads is for roads and streets" in told


@pytest.mark.parametrize(
    ("others", "advice"),
    [
        ([], "name another with `model`"),
        (["landslides", "water"], "name another with `model` (there: landslides, water)"),
        (["landslides", "general"], "name another with `model` (general fits any binary map)"),
    ],
)
def test_what_else_there_is_is_advised(others: list[str], advice: str) -> None:
    told = doubts(counts(9000, 0, 9000), model="roads", scope=ROADS, others=others)
    assert told is not None
    assert told.endswith(advice)


def test_no_packaged_model_is_advised_in_place_of_itself() -> None:
    assert "roads" in packaged_models()
    assert sorted(["roads", *packaged_besides("roads")]) == sorted(packaged_models())


@pytest.mark.parametrize(
    ("width", "said"),
    [(1.1, True), (1.3, False), (7.0, False), (35.0, False), (37.0, True), (None, False)],
)
def test_foreground_far_from_the_widths_of_training_is_told(
    width: float | None, said: bool
) -> None:
    scope = ModelScope(theme="roads", widths=Range(least=3.6, greatest=12))
    told = doubts(counts(9000, 9000, 0), width=width, model="m", scope=scope)
    assert (told is not None) == said
    if told is not None:
        assert "pixels wide as the model reads it, far from the 3.6 to 12 of its training" in told


def test_refine_measures_the_width_that_the_model_reads(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m.safetensors", theme="lines", widths=[3, 12], ground_sample_distance=[2, 2]
    )
    values = np.zeros((128, 256), np.uint8)
    values[30:90] = 255
    scene = write_raster(tmp_path / "scene.tif", values)
    with pytest.warns(GeothreshWarning, match=r"scene\.tif: .*foreground is some 60 pixels wide"):
        refine(scene, model=model, tiling=Tiling(tile_size=64))
    # Read at twice its pixels' size, and within range: 30 of at most 36.
    coarse = Refining(resolution=4)
    with warnings.catch_warnings(record=True) as caught:
        refine(
            scene, model=model, tiling=Tiling(tile_size=64), refining=coarse,
            writing=Writing(overwrite=True),
        )  # fmt: skip
    assert not [one for one in caught if "pixels wide" in str(one.message)]


def test_a_model_without_a_theme_is_not_judged() -> None:
    assert not doubts(counts(9000, 0, 9000), model="m", scope=UNKNOWN)


def test_the_model_for_any_theme_advises_no_other() -> None:
    scope = ModelScope(theme="any binary map")
    told = doubts(
        counts(9000, 0, 9000), model="general", scope=scope, others=["landslides", "roads"]
    )
    assert told is not None
    assert "look at the mask" in told and "another" not in told
