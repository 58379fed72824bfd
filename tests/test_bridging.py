"""Gaps are closed where the confidence leads over, and only there."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
from cli_runner import runner
from numpy.typing import NDArray
from test_centerlines import save

import geothresh
from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.skeleton.blocks import centerline_network
from geothresh.skeleton.bridging import bridged
from geothresh.skeleton.network import Network
from geothresh.windows import RasterSize

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
    way = network.lines[2]
    rows, cols = np.divmod(way.pixels, 200)
    assert rows.max() == 55
    assert np.isnan(way.samples[:, 0]).all()  # no width where there is no mask
    np.testing.assert_array_equal(way.samples[:, 1], values[rows, cols])
    assert sorted(network.degrees[network.degrees > 0]) == [1, 1, 2, 2]
    # It leads from the end of one line to the end of the other, to the pixel.
    ends = {network.lines[k].pixels[side] for k in (0, 1) for side in (0, -1)}
    assert {way.pixels[0], way.pixels[-1]} <= ends


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


def test_the_command_marks_bridges(tmp_path: Path) -> None:
    confidence = save(tmp_path / "road.tif", road())
    command = ["vectorize", str(confidence), "--threshold", "0.5", "--kind", "centerlines"]
    result = runner().invoke(main, [*command, "--bridge-gaps", "15"])  # metres: 30 pixels
    assert result.exit_code == 0, result.stderr
    assert "3 lines, " in result.stderr and "1 gaps bridged" in result.stderr
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
    with pytest.raises(UsageError, match="add --confidence"):
        geothresh.vectorize(mask, kind="centerlines", bridge_gaps=20)
    with pytest.raises(UsageError, match="--bridge-gaps is not for polygons"):
        geothresh.vectorize(mask, bridge_gaps=20)
    confidence = save(tmp_path / "confidence.tif", road())
    with pytest.raises(UsageError, match="501 pixels are too long"):
        geothresh.vectorize(
            mask, kind="centerlines", confidence=confidence, bridge_gaps=250.5, overwrite=True
        )
    with pytest.raises(UsageError, match="least confidence 2"):
        geothresh.vectorize(mask, kind="centerlines", bridge_gaps=2, bridge_confidence=2)
