"""The calibration file: what is written is read, and what is wrong with one is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geothresh.calibration.file import VERSION, Calibration, CalibrationFile
from geothresh.errors import InputError, UsageError
from geothresh.nn.transformation import Transformation

CURVE = ((0.0, 0.0), (0.25, 0.1), (1.0, 0.9))


def some_calibration(**changes: Any) -> Calibration:
    values: dict[str, Any] = {
        "candidate": "roads, strength 0.5",
        "advice": "Take it.",
        "model": "roads",
        "model_sha256": "ab" * 32,
        "tta": "d4",
        "resolution": 0.5,
        "transformation": Transformation(
            strength=0.5, slope=1 / 3, bias=-0.1, threshold=127.5 / 255, keep=0.2
        ),
        "figures": {"tiles": 12},
    }
    return Calibration(**{**values, **changes})


@pytest.mark.parametrize(
    "calibration",
    [
        some_calibration(),
        some_calibration(model_file="my.safetensors", resolution="auto"),
        some_calibration(
            model=None, model_sha256="", tta="none", resolution="auto",
            transformation=Transformation(strength=0, curve=CURVE),
        ),
    ],
)  # fmt: skip
def test_what_is_written_is_read(tmp_path: Path, calibration: Calibration) -> None:
    path = tmp_path / "calibration.json"
    calibration.save(path)
    found = CalibrationFile.load(path)
    assert found.calibration == calibration and len(found.sha256) == 64


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("model"), "'model' is missing"),
        (lambda v: v.update(format="split"), "its format is not 'geothresh calibration'"),
        (lambda v: v.update(version="1"), "its version is '1'"),
        (lambda v: v["transformation"].update(strength=2), "strength 2"),
        (lambda v: v["transformation"].update(slope=-1), "slope -1"),
        (lambda v: v["transformation"].update(bias="0"), "'0' stands where a number should"),
        (lambda v: v["transformation"].update(threshold=float("nan")), "nan stands where"),
        (lambda v: v["transformation"].update(curve=[[0, 1], [1, 0]]), "does not rise"),
        (lambda v: v["transformation"].update(bias=10**400), "too large"),
        (lambda v: v["model"].update(resolution=0), "its resolution is 0 m"),
        (lambda v: v["model"].update(tta="d5"), "its tta is 'd5'"),
        (lambda v: v["model"].update(file="../other.safetensors"), "is no name of a file"),
        (lambda v: v["model"].update(sha256=7), "7 stands where a text should"),
        (lambda v: v.update(model=None), "mixes with a model and names none"),
    ],
)
def test_a_damaged_one_is_refused_in_one_line(tmp_path: Path, change: Change, said: str) -> None:
    path = tmp_path / "calibration.json"
    values = some_calibration().as_dict()
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as error:
        CalibrationFile.load(path)
    text = str(error.value)
    assert said in text and "make it again" in text and "\n" not in text


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"train": [], "validation": []}'])
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(InputError, match="no calibration, or a damaged one"):
        CalibrationFile.load(path)


def test_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**some_calibration().as_dict(), "version": VERSION + 1}))
    with pytest.raises(InputError, match="version 2, and this geothresh reads up to 1"):
        CalibrationFile.load(path)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json"):
        CalibrationFile.load(tmp_path / "nowhere.json")


def test_a_transformation_that_does_nothing_changes_no_bit() -> None:
    values = np.random.default_rng(0).random((4, 5), np.float32)
    refined = np.random.default_rng(1).random((4, 5), np.float32)
    assert Transformation()(values, refined) is refined
    assert Transformation(strength=0)(values, refined) is values


def test_a_transformation_is_one_thing_or_the_other() -> None:
    with pytest.raises(UsageError, match="a curve, or a slope and a bias"):
        Transformation(curve=CURVE, bias=1.0)


def test_a_mix_lies_between_and_rises() -> None:
    values = np.linspace(0, 1, 11, dtype=np.float32)
    mixed = Transformation(strength=0.5)(values, values[::-1])
    assert mixed == pytest.approx(np.full(11, 0.5), abs=1e-5)
    curve = Transformation(strength=0, curve=CURVE)
    assert curve(values, values)[[0, 10]] == pytest.approx([0.0, 0.9])
    assert curve.text() == "an isotonic curve of 3 points, cut at 0.5"
    assert some_calibration().transformation.text() == (
        "strength 0.5, logit x 0.333333333 -0.1, cut at 0.5, foreground of the input kept down to "
        "0.2"
    )
