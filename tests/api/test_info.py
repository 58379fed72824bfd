"""What is told of a scene, from Python as from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import geothresh
from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import coordinate_array, write_raster


def test_info_returns_what_the_command_prints(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", coordinate_array(30, 40), nodata=float("nan"))
    facts = geothresh.info(path)
    assert isinstance(facts, geothresh.SceneInfo)
    assert (facts.height, facts.width, facts.dtype) == (30, 40, "float32")
    assert facts.pixel_size == pytest.approx((2, 2), rel=1e-3)
    printed = runner().invoke(main, ["info", str(path), "--json"])
    assert json.loads(printed.stdout) == json.loads(json.dumps(facts.as_dict()))
    read_otherwise = geothresh.info(path, reading=geothresh.Reading(scale="logit"))
    assert read_otherwise.scaling == "logistic function of the value"
