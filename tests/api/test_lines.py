"""Lines against true ones: the shares, by hand and by the command."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

import geothresh
from geothresh import Centerlines
from geothresh.api.lines import evaluate_lines
from geothresh.cli import main
from geothresh.errors import GeothreshWarning, InputError, UsageError
from geothresh.vector.comparing import compare_lines
from tests.support.cli_runner import runner
from tests.support.streets import UTM, save, town

NOTHING = np.empty(0, object)


@pytest.mark.parametrize("buffer", [0, -1, float("nan"), float("inf"), "3", True])
def test_a_buffer_that_is_no_distance_is_refused(buffer: object) -> None:
    with pytest.raises(UsageError, match="^`buffer` .*: give a number above 0"):
        evaluate_lines("lines.gpkg", "truth.gpkg", buffer=buffer)


def line(*points: tuple[float, float]) -> shapely.LineString:
    return shapely.LineString(points)


def layer(path: Path, shapes: list, crs: str | None = "EPSG:32633", name: str = "roads") -> Path:
    frame = geopandas.GeoDataFrame(geometry=shapes, crs=crs)
    frame.to_file(path, layer=name, **({} if path.suffix != ".gpkg" else {"driver": "GPKG"}))
    return path


def test_shares_by_hand() -> None:
    truth = np.array([line((0, 0), (100, 0)), line((0, 50), (100, 50))])
    # One of the two, twice as far to the right, and a false one that touches it.
    lines = np.array([line((0, 2), (200, 2)), line((150, 2), (150, 42))])
    scores = compare_lines(lines, truth, buffer=3)
    assert (scores.true_length, scores.length) == (200, 240)
    # The circle around the end of the true line reaches a little further.
    assert scores.found == pytest.approx(100)
    assert scores.right == pytest.approx(100 + np.sqrt(3**2 - 2**2), abs=0.05)
    assert scores.completeness == pytest.approx(0.5)
    assert scores.correctness == pytest.approx(scores.right / 240)
    assert scores.quality == pytest.approx(scores.right / (240 + 100))
    assert (scores.components, scores.largest_share) == (1, 1.0)
    assert compare_lines(lines, truth, buffer=1.9).found == 0


def test_nothing_against_something() -> None:
    some = np.array([line((0, 0), (10, 0)), line((0, 9), (4, 9))])
    scores = compare_lines(NOTHING, some, buffer=1)
    assert (scores.completeness, scores.correctness, scores.quality) == (0, 1, 0)
    assert (scores.components, scores.largest_share) == (0, 0)
    scores = compare_lines(some, NOTHING, buffer=1)
    assert (scores.completeness, scores.correctness, scores.quality) == (1, 0, 0)
    assert (scores.components, scores.largest_share) == (2, pytest.approx(10 / 14))
    scores = compare_lines(NOTHING, NOTHING, buffer=1)
    assert (scores.completeness, scores.correctness, scores.quality) == (1, 1, 1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(0.5, 20))
def test_comparing_is_that_of_all_buffers_at_once(seed: int, n: int, buffer: float) -> None:
    rng = np.random.default_rng(seed)
    lines, truth = (
        np.array([shapely.LineString(rng.uniform(0, 60, (3, 2))) for _ in range(n)]) for _ in "ab"
    )
    scores = compare_lines(lines, truth, buffer=buffer)
    for ours, others, found in ((lines, truth, scores.right), (truth, lines, scores.found)):
        around = shapely.union_all(shapely.buffer(others, buffer, quad_segs=8))
        assert found == pytest.approx(shapely.length(shapely.intersection(ours, around)).sum())
    same = compare_lines(lines, lines, buffer=buffer)
    assert same.quality == pytest.approx(1)
    groups = shapely.get_num_geometries(shapely.union_all(shapely.buffer(lines, 1e-9)))
    assert scores.components == groups


def test_the_command_compares_with_a_mask(tmp_path: Path) -> None:
    mask = save(tmp_path / "town.tif", town())
    geothresh.vectorize(mask, tmp_path / "own.gpkg", draw=Centerlines(nodes=True))
    command = ["evaluate", str(tmp_path / "own.gpkg"), "--layer", "own", "--mask", str(mask)]
    result = runner().invoke(main, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["completeness"] == told["correctness"] == told["quality"] == pytest.approx(1)
    assert told["components"] == 2 and told["largest_share"] == pytest.approx(0.81, abs=0.01)
    # Half of the horizontal road is lost: less is found, and all that is there is right.
    values = town()
    values[:, 160:] = 0
    geothresh.vectorize(save(tmp_path / "half.tif", values), draw=Centerlines())
    text = runner().invoke(main, ["evaluate", str(tmp_path / "half.gpkg"), "--mask", str(mask)])
    assert text.exit_code == 0, text.stderr
    assert "correctness   100.00" in text.stdout and "completeness   " in text.stdout
    assert {p.name for p in tmp_path.iterdir()} == {
        "town.tif", "own.gpkg", "half.tif", "half.gpkg"
    }  # fmt: skip


def test_the_layer_of_nodes_is_passed_over(tmp_path: Path) -> None:
    mask = save(tmp_path / "town.tif", town())
    lines = tmp_path / "lines.gpkg"
    own = geothresh.vectorize(mask, lines, draw=Centerlines(nodes=True)).layer
    told = evaluate_lines(lines, lines)
    assert told == evaluate_lines(lines, lines, layer=own, truth_layer=own)
    # Two layers of lines, and a choice is needed as before.
    geopandas.read_file(lines, layer=own).to_file(lines, layer="again", driver="GPKG")
    with pytest.raises(UsageError, match=r"holds 2 layers \(.*\); choose one with `layer`"):
        evaluate_lines(lines, mask)


def test_lines_are_compared_in_metres_whatever_their_crs(tmp_path: Path) -> None:
    x, y = UTM["transform"].c, UTM["transform"].f
    roads = [line((x, y), (x + 500, y)), line((x + 200, y - 300), (x + 200, y))]
    plain = layer(tmp_path / "plain.gpkg", roads)
    moved = [shapely.transform(road, lambda xy: xy + (0, 2.5)) for road in roads]
    degrees = tmp_path / "degrees.geojson"
    geopandas.GeoDataFrame(geometry=moved, crs="EPSG:32633").to_crs(4326).to_file(degrees)
    for one, other in ((plain, degrees), (degrees, plain)):
        report = evaluate_lines(one, other)
        assert report.scores.length == pytest.approx(800, rel=2e-3)
        assert report.scores.quality > 0.99
        assert evaluate_lines(one, other, buffer=2.4).scores.quality < 0.5
    # A straight edge of 60 km in degrees is a curve in metres, up to 80 m beside its chord.
    ends = [(15.0, 50.0), (15.84, 50.0)]
    places = np.stack([np.linspace(15.0, 15.84, 200), np.full(200, 50.0)], axis=1)
    many = geopandas.GeoDataFrame(geometry=[shapely.LineString(places)], crs=4326)
    many.to_crs(32633).to_file(tmp_path / "many.gpkg", layer="many")
    edge = tmp_path / "edge.geojson"
    geopandas.GeoDataFrame(geometry=[line(*ends)], crs=4326).to_file(edge)
    assert evaluate_lines(tmp_path / "many.gpkg", edge).scores.quality > 0.99
    # Feet: a buffer of 3 m is one of 9.84 feet.
    feet = tmp_path / "feet.gpkg"
    frame = geopandas.GeoDataFrame(geometry=[line((9e5, 9e5), (9e5 + 1000, 9e5))], crs=2263)
    frame.to_file(feet, layer="feet")
    beside = tmp_path / "beside.gpkg"
    frame.translate(0, 9.5).to_file(beside, layer="beside")
    report = evaluate_lines(feet, beside)
    assert report.scores.length == pytest.approx(304.8, rel=1e-3)
    assert report.scores.quality > 0.99


def test_bad_input_is_told(tmp_path: Path) -> None:
    roads = layer(tmp_path / "roads.gpkg", [line((0, 0), (9, 9))])
    bare = layer(tmp_path / "bare.gpkg", [line((0, 0), (9, 9))], crs=None)
    areas = layer(tmp_path / "areas.gpkg", [shapely.box(0, 0, 1, 1)])
    for arguments, options, error, words in (
        ((areas, roads), {}, InputError, "holds a Polygon"),
        ((roads, areas), {}, InputError, "holds a Polygon"),
        ((bare, roads), {}, InputError, "has no CRS"),
        ((roads, roads), {"buffer": 0}, UsageError, "`buffer` 0: give a number above 0"),
        ((roads, roads), {"layer": "x"}, UsageError, "there is no layer 'x'"),
        ((roads, tmp_path / "none.tif"), {}, InputError, "no such file"),
    ):
        with pytest.raises(error, match=words):
            evaluate_lines(*arguments, **options)
    with pytest.warns(GeothreshWarning, match="unit of their coordinates"):
        evaluate_lines(bare, bare)
    mask = save(tmp_path / "town.tif", town())
    with pytest.raises(UsageError, match="leave `truth_layer` out"):
        evaluate_lines(roads, mask, truth_layer="x")


def test_options_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    roads = layer(tmp_path / "roads.gpkg", [line((0, 0), (9, 9))])
    for arguments, words in (
        ([str(roads)], "--mask what the true lines are"),
        ([str(roads), str(roads), "--mask", str(roads)], "one file of lines"),
        ([str(roads), "--mask", str(roads), "--tta", "d4"], "--tta is for rasters"),
        ([str(roads), "--mask", str(roads), "--no-refine"], "--no-refine is for rasters"),
        ([str(roads), "--mask", str(roads), "--match-resolution"], "--match-resolution is for"),
        ([str(tmp_path), "--buffer", "5"], "--buffer is for lines"),
    ):
        result = runner().invoke(main, ["evaluate", *arguments])
        assert result.exit_code == 2 and words in result.stderr, result.stderr
