"""``geothresh refine A B --output-dir OUT`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
from click.testing import Result

from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import NORTH_UP, write_raster

TILES = ["--tile-size", "64", "--overlap", "16"]


def run(*arguments: Any) -> Result:
    return runner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    values = np.linspace(0, 1, 70 * 80, dtype=np.float32).reshape(70, 80)
    return [
        write_raster(
            tmp_path / f"{name}.tif", values[:, start : start + 40],
            transform=NORTH_UP @ NORTH_UP.translation(start, 0),
        )
        for name, start in (("a", 0), ("b", 40))
    ]  # fmt: skip


def test_each_file_gets_its_mask(scenes: list[Path], tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("refine", *scenes, "--output-dir", out, "-m", tiny_model, *TILES, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [part["name"] for part in told["parts"]] == ["a", "b"]
    for part in told["parts"]:
        assert Path(part["outputs"]["mask"]) == out / f"{part['name']}_mask.tif"
        assert (out / f"{part['name']}_mask.tif").exists()


def test_a_bad_file_ends_it_at_once_or_with_skip_bad_is_left_out(
    scenes: list[Path], tiny_model: Path, tmp_path: Path
) -> None:
    bad, out = tmp_path / "bad.tif", tmp_path / "out"
    bad.write_bytes(b"no raster")
    command = ["refine", *scenes, bad, "--output-dir", out, "-m", tiny_model, *TILES]
    refused = run(*command)
    assert refused.exit_code == 3 and "bad.tif" in refused.stderr
    assert not list(out.glob("*.tif"))
    skipped = run(*command, "--skip-bad")
    assert skipped.exit_code == 3 and "bad.tif" in skipped.stderr
    assert sorted(path.name for path in out.glob("*.tif")) == ["a_mask.tif", "b_mask.tif"]


def test_polygons_of_all_are_one_file(scenes: list[Path], tiny_model: Path, tmp_path: Path) -> None:
    command = ["refine", *scenes, "--output-dir", tmp_path / "out", "-m", tiny_model, *TILES]
    result = run(*command, "--vector-out", tmp_path / "v.gpkg")
    assert result.exit_code == 0, result.output
    assert f": {tmp_path / 'v.gpkg'}" in result.stderr and "polygon" in result.stderr
    drawn = run("vectorize", tmp_path / "out/mask.gti.gpkg", "-o", tmp_path / "w.gpkg")
    assert drawn.exit_code == 0, drawn.output
    one, other = (pyogrio.read_info(tmp_path / name) for name in ("v.gpkg", "w.gpkg"))
    assert one["features"] == other["features"]
    refused = run(*command, "--report", tmp_path / "page.html")
    assert refused.exit_code == 2 and "--report names one file" in refused.stderr
