"""Two masks compared: against NumPy, and the refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from geothresh import InputError, OutputError, UsageError, compare
from geothresh.cli import main
from geothresh.options import Writing
from tests.support.cli_runner import runner
from tests.support.rasters import NORTH_UP, write_raster


def masks(folder: Path, seed: int, height: int, width: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    found = []
    for name in ("before", "after"):
        values = rng.choice(np.array([0, 1, 255], np.uint8), (height, width), p=[0.6, 0.3, 0.1])
        found += [write_raster(folder / f"{name}.tif", values, nodata=255), values]
    return found


@pytest.mark.filterwarnings("ignore:.*no pixel is foreground")
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), height=st.integers(1, 600), width=st.integers(1, 90))
def test_it_is_what_numpy_says(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int
) -> None:
    folder = tmp_path_factory.mktemp("masks")
    one, before, two, after = masks(folder, seed, height, width)
    told: list[tuple[int, int]] = []
    result = compare(one, two, progress=lambda *at: told.append(at))
    expected = np.select(
        [(before == 255) | (after == 255), before < after, before > after], [255, 1, 2], 0
    )
    assert result.output == folder / "after_changes.tif"
    with rasterio.open(result.output) as changes, rasterio.open(two) as mask:
        np.testing.assert_array_equal(changes.read(1), expected)
        assert (changes.transform, changes.crs, changes.nodata) == (mask.transform, mask.crs, 255)
        assert changes.descriptions == ("changes",)
    valid = expected != 255
    assert result.valid_pixels == valid.sum()
    assert result.foreground_before == ((before == 1) & valid).sum()
    assert result.foreground_after == ((after == 1) & valid).sum()
    assert (result.added, result.removed) == ((expected == 1).sum(), (expected == 2).sum())
    either, both = ((before == 1) | (after == 1)) & valid, (before == 1) & (after == 1)
    assert result.iou == pytest.approx((both & valid).sum() / either.sum() if either.any() else 1)
    assert told[-1][0] == told[-1][1]


def test_the_command(tmp_path: Path) -> None:
    one, before, two, after = masks(tmp_path, 1, 20, 30)
    out = tmp_path / "c.tif"
    result = runner().invoke(main, ["compare", str(one), str(two), "-o", str(out)])
    added = int(((before == 0) & (after == 1)).sum())
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert f"{added} added" in result.stderr and "IoU" in result.stderr
    again = runner().invoke(main, ["compare", str(one), str(two), "-o", str(out)])
    assert again.exit_code == 4 and again.stderr.count("\n") == 1
    result = runner().invoke(
        main, ["compare", str(one), str(two), "-o", str(out), "--overwrite", "--json"]
    )
    assert json.loads(result.stdout)["added"] == added


def test_what_is_refused(tmp_path: Path) -> None:
    one, _, two, _ = masks(tmp_path, 1, 20, 30)
    ones = np.ones((20, 30), np.uint8)
    other = write_raster(tmp_path / "o.tif", ones, transform=NORTH_UP @ Affine.translation(1, 0))
    with pytest.raises(InputError, match="lies 1 pixels off"):
        compare(one, other)
    confidence = write_raster(tmp_path / "f.tif", np.ones((20, 30), np.float32) / 2)
    with pytest.raises(InputError, match="cut them at a threshold first"):
        compare(one, confidence)
    with pytest.raises(UsageError, match="output is the input"):
        compare(one, two, two)
    with pytest.raises(UsageError, match=r"in a class: writing=Writing\(overwrite=\.\.\.\)"):
        compare(one, two, overwrite=True)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="`restart` is for"):
        compare(one, two, writing=Writing(restart=True))
    with pytest.raises(OutputError, match="does not exist"):
        compare(one, two, tmp_path / "nowhere" / "c.tif")
    assert not (tmp_path / "after_changes.tif").exists()
