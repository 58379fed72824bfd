"""Small regions and holes: strip by strip as the naive twin has it over the whole array."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from geothresh import Centerlines, Foreground, Polygons, VectorWriting, vectorize
from geothresh.cli import main
from geothresh.raster.regions import sieved
from geothresh.windows import PixelWindow
from tests.support.cli_runner import runner
from tests.support.streets import save

CORNERS = np.ones((3, 3), bool)


def naive(mask: NDArray[np.bool_], regions: int, holes: int, diagonal: bool) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask, CORNERS if diagonal else None)
    mask = mask & (np.bincount(labels.ravel())[labels] >= regions)
    labels, _ = ndimage.label(~mask, None if diagonal else CORNERS)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    small = np.bincount(labels.ravel()) < holes
    small[border] = False
    small[0] = False
    return mask | small[labels]


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1),
    st.integers(0, 12), st.integers(0, 12), st.booleans(), st.integers(1, 13),
)  # fmt: skip
def test_strips_give_what_the_whole_array_gives(
    seed: int, height: int, width: int, share: float, regions: int, holes: int, diagonal: bool,
    rows: int,
) -> None:  # fmt: skip
    mask = np.random.default_rng(seed).random((height, width)) < share

    def strips():
        for row in range(0, height, rows):
            part = mask[row : row + rows]
            yield PixelWindow(row=row, col=0, height=len(part), width=width), part

    found = sieved(strips, regions=regions, holes=holes, diagonal=diagonal)
    expected = naive(mask, regions, holes, diagonal)
    for _ in range(2):  # it may be gone through again
        result = np.concatenate([part for _, part in found()])
        np.testing.assert_array_equal(result, expected)


def test_the_command_sieves_before_it_draws(tmp_path: Path) -> None:
    mask = np.zeros((80, 120), np.uint8)
    mask[20:30, 10:110] = 1
    mask[24:26, 40:43] = 0  # a hole of 6 pixels, 1.5 m2
    mask[22:28, 70:76] = 0  # one of 36, 9 m2
    mask[60:62, 20:22] = 1  # a speck of 4
    mask[50:60, 60:70] = 1
    path = save(tmp_path / "mask.tif", mask)
    before = path.read_bytes()

    def drawn(*options: str) -> geopandas.GeoDataFrame:
        command = ["vectorize", str(path), "--overwrite", *options]
        result = runner().invoke(main, command)
        assert result.exit_code == 0, result.stderr
        return geopandas.read_file(tmp_path / "mask.gpkg")

    def holes(frame: geopandas.GeoDataFrame) -> int:
        return sum(len(polygon.interiors) for polygon in frame.geometry)

    plain = drawn()
    assert (len(plain), holes(plain)) == (3, 2)
    clean = drawn("--sieve", "10")
    assert (len(clean), holes(clean)) == (2, 1)
    assert clean.area.sum() == pytest.approx((1000 - 36 + 100) / 4)
    full = drawn("--fill-holes", "9.25")
    assert (len(full), holes(full)) == (3, 0)
    assert holes(drawn("--fill-holes", "9")) == 1  # smaller than, not as large as
    # A hole parts a road in two lines; filled, it is one.
    lines = [len(drawn("--kind", "centerlines", *o)) for o in ([], ["--fill-holes", "10"])]
    assert lines[0] > lines[1]
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.gpkg", "mask.tif"]


@pytest.mark.parametrize("tenths", [1, 3, 6, 7, 11])
def test_what_is_as_large_as_a_limit_is_not_smaller_by_rounding(
    tmp_path: Path, tenths: int
) -> None:
    mask = np.zeros((24, 40), np.uint8)
    mask[2:17, 2:17] = 1
    mask[4:14, 4:14] = 0
    mask[4:14, 24:34] = 1
    side = tenths / 10
    path = save(tmp_path / "mask.tif", mask, transform=Affine(side, 0, 5e5, 0, -side, 6e6))
    exactly = float(tenths * tenths)  # 100 pixels
    for limit, holes, polygons in ((exactly, 1, 2), (exactly * 1.001, 0, 1)):
        made = vectorize(
            path, draw=Polygons(min_area=limit), foreground=Foreground(fill_holes=limit),
            writing=VectorWriting(overwrite=True),
        )  # fmt: skip
        frame = geopandas.read_file(made.output)
        assert len(frame) == polygons
        assert sum(len(polygon.interiors) for polygon in frame.geometry) == holes


@pytest.mark.parametrize("tenths", [3, 6, 7, 11])
def test_a_line_as_long_as_the_limit_stays(tmp_path: Path, tenths: int) -> None:
    mask = np.zeros((12, 60), np.uint8)
    mask[6, 5:55] = 1
    side = tenths / 10
    path = save(tmp_path / "mask.tif", mask, transform=Affine(side, 0, 5e5, 0, -side, 6e6))
    whole = vectorize(path, draw=Centerlines())
    assert whole.length is not None
    counts = [
        vectorize(
            path, draw=Centerlines(min_length=round(whole.length, 6) * more),
            writing=VectorWriting(overwrite=True),
        ).features
        for more in (1, 1.001)
    ]  # fmt: skip
    assert counts == [1, 0]


def test_a_corner_holds_a_hole_for_lines_and_not_for_polygons(tmp_path: Path) -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    mask[3:6, 3:6] = 0
    mask[2, 2] = 0  # the ring is closed by a corner alone
    path = save(tmp_path / "ring.tif", mask)
    foreground = Foreground(fill_holes=100.0)
    polygons = vectorize(path, foreground=foreground)
    assert polygons.foreground_pixels == mask.sum()
    lines = vectorize(
        path, draw=Centerlines(), foreground=foreground, writing=VectorWriting(overwrite=True)
    )
    assert lines.foreground_pixels == mask.sum() + 9
