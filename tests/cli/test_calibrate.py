"""``geothresh calibrate`` and ``refine --calibration``: table, files, refusals, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from geothresh.cli import main
from geothresh.raster.pictures import write_png
from tests.support.networks import write_model
from tests.support.rasters import write_raster


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main.main([str(one) for one in arguments], prog_name="geothresh")
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten maps whose foreground is above 0.3."""
    folder = tmp_path / "data"
    for name in ("mask", "confidence"):
        (folder / name).mkdir(parents=True)
    for k in range(10):
        signal = ndimage.gaussian_filter(np.random.default_rng(k).normal(0, 9, (48, 48)), 3)
        levels = np.rint(255 / (1 + np.exp(-2 * signal))).astype(np.uint8)
        write_png(folder / "confidence" / f"{k}.png", levels)
        write_png(folder / "mask" / f"{k}.png", (levels >= 77).astype(np.uint8))
    return folder


def test_advice_is_printed_kept_and_followed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, scene = tmp_path / "calibration.json", tmp_path / "scene.tif"
    code, table, said = run(capsys, "calibrate", data, "-m", "none", "-o", output)
    assert code == 0, said
    assert table.splitlines()[0] == "10 tiles of 10 places, 5 folds"
    assert "Take best threshold (cut at 0.3)" in table.replace("\n", " ")
    assert f"calibration: {output}; reliability diagram: {tmp_path / 'calibration.png'}" in said
    levels = np.arange(4096, dtype=np.uint32).reshape(64, 64) % 256
    write_raster(scene, levels.astype(np.uint8))
    code, _, said = run(capsys, "refine", scene, "--calibration", output, "--json")
    assert code == 0, said
    result = json.loads(_)
    assert result["calibration"] == "best threshold: cut at 0.300000012"
    assert result["foreground_after"] == int((levels >= 77).sum())
    code, _, said = run(capsys, "refine", scene, "--calibration", output, "--overwrite")
    assert "calibrated, best threshold: cut at 0.3" in said
    # The same again is refused, and the file is as it was.
    kept = output.read_bytes()
    code, _, said = run(capsys, "calibrate", data, "-m", "none", "-o", output)
    assert code == 4 and "exists" in said and output.read_bytes() == kept


def test_json_has_all_figures(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, said = run(capsys, "calibrate", data, "-m", "none", "--json", "--folds", 2)
    assert code == 0, said
    found = json.loads(told)
    assert found["advised"] == "threshold" and found["folds"] == 2 and found["output"] is None
    assert found["candidates"]["threshold"]["iou"] == 1.0
    assert found["candidates"]["nothing"]["mean"] == 0.0 and found["expectation"] is None


def test_refusals_are_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, other = tmp_path / "scene.tif", write_model(tmp_path / "other.safetensors")
    write_raster(scene, np.zeros((64, 64), np.uint8))
    output = tmp_path / "calibration.json"
    assert run(capsys, "calibrate", data, "-m", "none", "-o", output)[0] == 0
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps({**json.loads(output.read_text()), "version": 9}))
    broken = tmp_path / "broken.json"
    broken.write_text(output.read_text()[:100])
    refine = ("refine", scene, "-o", tmp_path / "mask.tif", "--calibration")
    for arguments, expected, text in (
        ((*refine, newer), 3, "version 9, and this geothresh reads up to 1"),
        ((*refine, broken), 3, "no calibration, or a damaged one"),
        ((*refine, tmp_path / "gone.json"), 3, "gone.json"),
        ((*refine, output, "-m", other), 2, "needs no model (best threshold); leave out --model"),
        ((*refine, output, "-m", "roads"), 2, "needs no model"),
        ((*refine, output, "--threshold", 0.4), 2, "--calibration decides on --threshold"),
        (("calibrate", data, "-m", "none", "-m", "roads"), 2, "--model none is no model"),
        (("calibrate", data, "--buffer", 3), 2, "--buffer is for a scene, with --labels"),
        (("calibrate", scene), 2, "is a file; name its labels with --labels"),
        (("calibrate", tmp_path / "nowhere"), 3, "nowhere"),
    ):
        code, _, said = run(capsys, *arguments)
        assert (code, len(said.splitlines())) == (expected, 1), said
        assert text in said
    assert not (tmp_path / "mask.tif").exists()
