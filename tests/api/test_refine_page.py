"""The page of a refinement: counts against naive ones, an output like all others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import geothresh
from geothresh.errors import OutputError, UsageError
from geothresh.mosaic import ArrayReader
from geothresh.options import Outputs, Tiling, Writing
from geothresh.run.survey import BINS, SQUARE, block_sums, scene_statistics
from geothresh.windows import PixelWindow
from tests.support.blobs import scene
from tests.support.fakes import UnevenRefiner
from tests.support.html import require_sound
from tests.support.rasters import write_raster


def made(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, a mask that differs in places, and where there is data."""
    levels, _ = scene(seed, height, width)
    confidence = levels.astype(np.float32) / np.float32(255)
    mask = np.roll(confidence, 3, axis=1) >= 0.55
    valid = np.ones((height, width), bool)
    valid[height // 2 :, : width // 3] = False
    return confidence, mask & valid, valid


@settings(max_examples=10)
@given(st.integers(1, 900), st.integers(1, 2500), st.integers(0, 9))
def test_a_survey_counts_every_pixel_once(height: int, width: int, seed: int) -> None:
    confidence, mask, valid = made(height, width, seed)
    seen = scene_statistics(
        ArrayReader(confidence), lambda w: (mask[w.slices()], valid[w.slices()]), threshold=0.5
    )
    assert max(seen.valid.shape) <= 1600
    before = (confidence >= 0.5) & valid
    pixels = block_sums(valid, seen.factor)
    for share, values in (
        (seen.before, before), (seen.after, mask), (seen.added, mask & ~before),
        (seen.removed, before & ~mask),
    ):  # fmt: skip
        np.testing.assert_allclose(share * pixels, block_sums(values, seen.factor), atol=1e-3)
    bins = np.minimum((confidence[valid] * np.float32(BINS)).astype(int), BINS - 1)
    np.testing.assert_array_equal(seen.confidences, np.bincount(bins, minlength=BINS))
    changed = block_sums(mask ^ before, SQUARE)
    assert len(seen.squares) == min(12, np.count_nonzero(changed))
    if seen.squares:
        row, col = np.unravel_index(changed.argmax(), changed.shape)
        first = seen.squares[0]
        cell = PixelWindow(
            row=int(row) * SQUARE, col=int(col) * SQUARE, height=min(SQUARE, height - row * SQUARE),
            width=min(SQUARE, width - col * SQUARE),
        )  # fmt: skip
        assert first.intersection(cell) == cell
    for place in seen.squares:
        assert (place.height, place.width) == (min(SQUARE, height), min(SQUARE, width))
        assert place.row_stop <= height and place.col_stop <= width
    assert np.isnan(seen.thresholds).sum() <= np.count_nonzero(pixels == 0)


def test_block_sums_against_a_loop() -> None:
    values = np.arange(35).reshape(5, 7)
    sums = [[values[r : r + 3, c : c + 3].sum() for c in (0, 3, 6)] for r in (0, 3)]
    np.testing.assert_array_equal(block_sums(values, 3), sums)
    np.testing.assert_array_equal(block_sums(values, 1), values)


def test_a_page_is_an_output_like_all_others(tmp_path: Path) -> None:
    confidence, _, valid = made(150, 200)
    path = write_raster(tmp_path / "a <b> & c.tif", np.where(valid, confidence, np.float32(np.nan)))
    report = tmp_path / "report.html"
    outputs = Outputs(report=report, confidence=tmp_path / "confidence.tif")
    result = geothresh.refine(
        path, model=UnevenRefiner(), outputs=outputs, tiling=Tiling(tile_size=64)
    )
    assert result.report == report
    text = report.read_text("utf-8")
    page = require_sound(text)
    assert "a <b> & c.tif: refined" in page.text
    with rasterio.open(result.mask) as mask:
        after = mask.read(1)
    before = (confidence >= 0.5) & valid
    added = int(np.count_nonzero((after == 1) & ~before))
    assert f"{added:,} became foreground" in page.text
    assert f"{np.count_nonzero(after == 1):,} foreground after" in re.sub(r"\s+", " ", page.text)
    assert len(page.all("input")) == 2, "the scene and its one place"
    assert "latitude" in page.text and "x 500" in page.text
    assert "uneven" in page.text
    assert "report.html" in (tmp_path / "a <b> & c_mask.manifest.json").read_text()
    with pytest.raises(OutputError, match="report.html.*exists"):
        geothresh.refine(
            path, tmp_path / "m.tif", model=UnevenRefiner(), outputs=Outputs(report=report)
        )
    again = geothresh.refine(
        path, model=UnevenRefiner(), outputs=outputs, tiling=Tiling(tile_size=64),
        writing=Writing(overwrite=True),
    )  # fmt: skip
    assert again.report is not None and again.report.read_text("utf-8") == text


def test_without_change_or_data_or_georeference(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "flat.tif", np.full((70, 90), np.nan, np.float32), crs=None, transform=None
    )
    report = tmp_path / "report.html"
    with pytest.warns(geothresh.GeothreshWarning, match="no data"):
        geothresh.refine(path, model=UnevenRefiner(), outputs=Outputs(report=report))
    assert "Nothing changed." in require_sound(report.read_text("utf-8")).text
    with pytest.raises(UsageError, match=r"report.pdf: a page is HTML; name it report.html"):
        geothresh.refine(path, outputs=Outputs(report=tmp_path / "report.pdf"))
