"""Gaps are closed where the confidence leads over, and only there."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.transform import Affine

import geothresh
from geothresh import Centerlines
from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.skeleton.bridging import bridged
from geothresh.skeleton.graph import Network, centerline_network
from geothresh.windows import RasterSize
from tests.support.cli_runner import runner
from tests.support.streets import OBLONG, lines, save, slanting

SIZE = RasterSize(height=90, width=200)


def road(gap: slice = slice(90, 110), low: float = 0.3) -> NDArray[np.float32]:
    """A road with a gap in which the confidence is low, but not lowest."""
    values = np.full((90, 200), 0.02, np.float32)
    values[42:49, 10:190] = 0.9
    values[42:49, gap] = low
    return values


def network_of(values: NDArray[np.float32], *, reach: float = 30, floor: float = 0.1) -> Network:
    mask = values >= 0.5
    size = RasterSize(height=values.shape[0], width=values.shape[1])

    def confidence(window):
        return values[window.slices()]

    found = centerline_network(lambda w: mask[w.slices()], size, confidence=confidence)
    return bridged(found.pruned(), confidence, size, reach=reach, floor=floor)


def test_a_gap_is_closed_along_the_confidence() -> None:
    values = road()
    values[42:49, 90:110] = 0.02
    way = np.zeros_like(values)
    way[55, 95:106] = 0.4  # it makes a bend
    for k in range(9):
        way[46 + k, 86 + k] = way[46 + k, 114 - k] = 0.4
    values = np.maximum(values, way)
    network = network_of(values)
    assert network.bridges.tolist() == [False, False, True]
    bridge = network.lines[2]
    rows, cols = np.divmod(bridge.pixels, 200)
    assert rows.max() == 55
    assert np.isnan(bridge.samples[:, 0]).all()  # no width where there is no mask
    np.testing.assert_array_equal(bridge.samples[:, 1], values[rows, cols])
    assert sorted(network.degrees[network.degrees > 0]) == [1, 1, 2, 2]
    # It leads from the end of one line to the end of the other, to the pixel.
    ends = {network.lines[k].pixels[side] for k in (0, 1) for side in (0, -1)}
    assert {bridge.pixels[0], bridge.pixels[-1]} <= ends


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (road(low=0.05), {}),  # below the floor
        (road(low=0.3), {"floor": 0.35}),
        (road(), {"reach": 15}),  # too far
        (np.where(np.arange(200) == 100, np.float32(0.02), road()), {}),  # low in one column
        (np.where(np.arange(200) == 100, np.float32(np.nan), road()), {}),  # no data in it
    ],
)
def test_other_gaps_stay(values: NDArray[np.float32], options: dict[str, float]) -> None:
    assert not network_of(values, **options).bridges.any()


def test_ends_that_do_not_look_at_each_other_stay() -> None:
    values = np.full((90, 200), 0.3, np.float32)
    values[30:37, 10:100] = 0.9
    values[48:55, 90:190] = 0.9  # beside, and each ends away from the other
    assert not network_of(values).bridges.any()


def test_an_end_is_joined_once_and_the_better_way_is_taken() -> None:
    values = np.full((90, 200), 0.02, np.float32)
    values[42:49, 10:90] = 0.9
    values[30:37, 112:190] = 0.9
    values[54:61, 112:190] = 0.9
    values[30:60, 88:114] = 0.2
    values[42:62, 88:114] = 0.4  # the way to the lower one is the better
    network = network_of(values, reach=40)
    assert network.bridges.sum() == 1
    lowest = max(int(line.pixels.max()) // 200 for line in network.lines[-1:])
    assert lowest >= 55


def test_a_ring_with_a_gap_is_closed_and_a_hook_is_not() -> None:
    row, col = np.indices((90, 90))
    radius, angle = np.hypot(row - 45, col - 45), np.arctan2(row - 45, col - 45)
    values = np.where((radius > 27) & (radius < 33), 0.9, 0.02).astype(np.float32)
    values[(values > 0.5) & (abs(angle) < 0.25)] = 0.3
    assert network_of(values, reach=25).bridges.sum() == 1
    values[(values > 0.5) & (angle < 1.0)] = 0.3  # less than half is left of it
    assert not network_of(values, reach=80).bridges.any()


def apart(frame: geopandas.GeoDataFrame) -> float:
    """Metres between the nearest ends of the two longest lines."""
    one, other = frame.geometry[frame.length_m.nlargest(2).index]
    geod = Geod(ellps="WGS84") if frame.crs.is_geographic else None
    return min(
        geod.inv(*a, *b)[2] if geod else float(np.hypot(*np.subtract(a, b)))
        for a in (one.coords[0], one.coords[-1])
        for b in (other.coords[0], other.coords[-1])
    )


def gap_of(path: Path, values: NDArray[np.float32], grid: str) -> tuple[Path, float]:
    crs, transform, _ = OBLONG[grid]
    confidence = save(path, values, crs=crs, transform=transform)
    return confidence, apart(lines(confidence, threshold=0.5, sieve=30))


def bridges(path: Path, reach: float) -> int:
    found = lines(path, threshold=0.5, sieve=30, bridge_gaps=reach)
    return int(found.bridged.sum())


@pytest.mark.parametrize("grid", OBLONG)
def test_gaps_are_as_long_as_on_the_ground(tmp_path: Path, grid: str) -> None:
    values = road()
    for name, side in (("column", OBLONG[grid][2][0]), ("row", OBLONG[grid][2][1])):
        path, gap = gap_of(tmp_path / f"{name}.tif", values, grid)
        assert 20 * side < gap < 30 * side
        assert [bridges(path, gap * by) for by in (0.998, 1.002)] == [0, 1]
        values = np.ascontiguousarray(values.T)


@pytest.mark.parametrize(
    ("grid", "angle"), [("60 N", 20), ("60 N", 45), ("tall", 70), ("turned", 15), ("turned", 165)]
)
def test_ends_look_at_each_other_on_the_ground(tmp_path: Path, grid: str, angle: int) -> None:
    drawn = slanting(angle, OBLONG[grid][2], 8)
    values = np.choose(drawn, [0.02, 0.9, 0.3]).astype(np.float32)
    path, gap = gap_of(tmp_path / "road.tif", values, grid)
    assert [bridges(path, gap * by) for by in (0.998, 1.002)] == [0, 1]


def test_gaps_go_with_the_latitude(tmp_path: Path) -> None:
    values = np.full((2000, 200), 0.02, np.float32)
    starts = (100, 1000, 1800)
    for row in starts:
        values[row : row + 80] = road()[5:85]
    there = {"crs": "EPSG:4326", "transform": Affine(5e-3, 0.0, 10.0, 0.0, -5e-3, 70.0)}
    path = save(tmp_path / "tall.tif", values, **there)
    frame = lines(path, threshold=0.5)
    middles = frame.geometry.map(lambda g: g.bounds[1]).round(1)
    gaps = sorted(apart(frame[middles == at]) for at in set(middles))
    assert gaps[2] > 1.3 * gaps[0]
    for k, gap in enumerate(gaps):
        assert [bridges(path, gap * by) for by in (0.998, 1.002)] == [k, k + 1]


def test_degrees_without_an_end_have_no_gap(tmp_path: Path) -> None:
    row, col = np.indices((90, 90))
    radius = np.hypot(row - 45, col - 45)
    ring = np.where((radius > 27) & (radius < 33), 0.9, 0.02).astype(np.float32)
    crs, transform, _ = OBLONG["60 N"]
    for name, values, n in (("ring", ring, 1), ("none", np.full_like(ring, 0.02), 0)):
        path = save(tmp_path / f"{name}.tif", values, crs=crs, transform=transform)
        assert len(lines(path, threshold=0.5, bridge_gaps=20)) == n


def test_the_command_marks_bridges(tmp_path: Path) -> None:
    confidence = save(tmp_path / "road.tif", road())
    command = ["vectorize", str(confidence), "--threshold", "0.5", "--kind", "centerlines"]
    result = runner().invoke(main, [*command, "--bridge-gaps", "15"])  # metres: 30 pixels
    assert result.exit_code == 0, result.stderr
    assert "3 lines, " in result.stderr and "1 gap bridged" in result.stderr
    frame = geopandas.read_file(tmp_path / "road.gpkg")
    assert frame.bridged.tolist() == [False, False, True]
    gap = frame[frame.bridged].iloc[0]
    assert np.isnan(gap.width_m) and gap.confidence_min == pytest.approx(0.3)
    assert frame.union_all().geom_type == "MultiLineString" and frame.is_valid.all()
    narrow = runner().invoke(main, [*command, "--bridge-gaps", "8", "--overwrite"])
    assert "2 lines, " in narrow.stderr
    strict = [*command, "--bridge-gaps", "15", "--bridge-confidence", "0.4", "--overwrite"]
    assert "2 lines, " in runner().invoke(main, strict).stderr


def test_bridges_need_a_confidence(tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.tif", (road() >= 0.5).astype(np.uint8))
    with pytest.raises(UsageError, match="add `confidence"):
        geothresh.vectorize(mask, draw=Centerlines(bridge_gaps=20))
    confidence = save(tmp_path / "confidence.tif", road())
    with pytest.raises(UsageError, match="501 pixels are too long"):
        geothresh.vectorize(mask, confidence=confidence, draw=Centerlines(bridge_gaps=250.5))
