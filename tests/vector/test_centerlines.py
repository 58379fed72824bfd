"""From a mask on the disk to centrelines in a GeoPackage."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Geod
from rasterio.features import rasterize

import geothresh
from geothresh import Centerlines, VectorWriting
from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.geobox import GeoBox
from geothresh.skeleton.graph import centerline_network
from geothresh.vector.centerlines import make_centerlines, pixel_side
from geothresh.vector.units import MapUnits, Measure
from geothresh.windows import RasterSize
from tests.support.cli_runner import runner
from tests.support.streets import OBLONG, UTM, lines, save, slanting, town


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return save(tmp_path / "town.tif", town())


def test_the_command_writes_lines_and_nodes(mask: Path, tmp_path: Path) -> None:
    values = np.where(town() == 1, 0.8, 0.1).astype(np.float32)
    values[:, 200:] = np.nan
    values[100, 20] = 0.3
    confidence = save(tmp_path / "confidence.tif", values)
    command = ["vectorize", str(mask), "--kind", "centerlines", "--nodes"]
    result = runner().invoke(main, [*command, "--confidence", str(confidence)])
    assert result.exit_code == 0, result.stderr
    output = tmp_path / "town.gpkg"
    assert result.stdout == f"{output}\n"
    assert "5 lines, " in result.stderr and "layers town and town_nodes" in result.stderr
    frame = geopandas.read_file(output, layer="town")
    assert list(frame.columns) == [
        "length_m", "width_m", "width_min_m", "confidence_mean", "confidence_min",
        "confidence_p10", "geometry",
    ]  # fmt: skip
    assert frame.crs.to_epsg() == 32633
    assert set(frame.geom_type) == {"LineString"} and frame.is_valid.all()
    np.testing.assert_allclose(frame.length_m, frame.length, atol=0.0051)
    nodes = geopandas.read_file(output, layer="town_nodes")
    assert sorted(nodes.degree) == [1, 1, 1, 1, 4]
    # The ends of four lines are the nodes, to the last bit; the fifth is a ring.
    ends = frame.geometry[~frame.is_ring].map(lambda g: [g.coords[0], g.coords[-1]]).sum()
    assert {(p.x, p.y) for p in nodes.geometry} == set(ends)
    (ring,) = frame.geometry[frame.is_ring]
    assert ring.length == pytest.approx(2 * np.pi * 17 * 0.5, rel=0.05)
    west = frame.loc[frame.geometry.map(lambda g: g.bounds[0]).idxmin()]
    assert west.width_m == pytest.approx(9 * 0.5, abs=0.3)
    assert west.confidence_min == pytest.approx(0.3, abs=1e-6)
    assert west.confidence_mean == pytest.approx(0.8, abs=0.02)
    assert west.confidence_p10 == pytest.approx(0.8, abs=1e-6)
    assert np.isnan(frame.loc[frame.is_ring, "confidence_mean"]).all()
    south = frame.loc[frame.geometry.map(lambda g: g.bounds[1]).idxmin()]
    assert min(frame.width_m[~frame.is_ring]) == pytest.approx(5 * 0.5, abs=0.4)
    assert south.geometry.bounds[1] == pytest.approx(6e6 - 0.5 * 198, abs=1.5)


def test_lines_lie_in_the_middle_of_their_roads(mask: Path) -> None:
    frame = lines(mask)
    drawn = rasterize(
        [(g, 1) for g in frame.geometry], (220, 300), transform=UTM["transform"], all_touched=True
    )
    assert (town()[drawn == 1] == 1).all()
    horizontal = frame.loc[frame.geometry.map(lambda g: g.bounds[0]).idxmin()].geometry
    rows = (6e6 - shapely.get_coordinates(horizontal)[:, 1]) / 0.5
    np.testing.assert_allclose(rows[1:-1], 100.5, atol=1.0)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0.0, 5e5, 0.0, 0.5, 6e6),
        Affine(0.42, 0.38, 5e5, 0.27, -0.59, 6e6),
        Affine(1.0, 0.0, 5e5, 0.0, -2.0, 6e6),
    ],
    ids=["south-up", "sheared", "oblong"],
)
def test_lines_follow_the_transform(tmp_path: Path, transform: Affine) -> None:
    plain = lines(save(tmp_path / "plain.tif", town()))
    turned = lines(save(tmp_path / "turned.tif", town(), transform=transform))
    for one, other in zip(plain.geometry, turned.geometry, strict=True):
        pixels = [~UTM["transform"] @ (x, y, 1) for x, y in one.coords]
        moved = [(transform @ pixel)[:2] for pixel in pixels]
        np.testing.assert_allclose(np.array(other.coords), np.array(moved), atol=1e-6)


def test_degrees_are_measured_on_the_ellipsoid(tmp_path: Path) -> None:
    there = {"crs": "EPSG:4326", "transform": Affine(1e-5, 0.0, 10.0, 0.0, -1e-5, 60.0)}
    frame = lines(save(tmp_path / "degrees.tif", town(), **there))
    geod = Geod(ellps="WGS84")
    expected = [geod.geometry_length(g) for g in frame.geometry]
    np.testing.assert_allclose(frame.length_m, expected, atol=0.0051)
    # A pixel is 0.558 m x 1.114 m.
    west = frame.loc[frame.geometry.map(lambda g: g.bounds[0]).idxmin()]
    assert west.width_m == pytest.approx(9 * 1.114, abs=0.6)
    south = frame.loc[frame.geometry.map(lambda g: g.bounds[1]).idxmin()]
    assert south.width_m == pytest.approx(5 * 0.558, abs=0.4)


@pytest.mark.parametrize("across", [9, 10])
@pytest.mark.parametrize("grid", OBLONG)
def test_widths_are_those_on_the_ground(tmp_path: Path, grid: str, across: int) -> None:
    crs, transform, sides = OBLONG[grid]
    values = np.zeros((120, 200), np.uint8)
    values[50 : 50 + across, 10:190] = 1
    for name, side in (("south", sides[1]), ("east", sides[0])):
        mask = save(tmp_path / f"{name}.tif", values, crs=crs, transform=transform)
        (road,) = lines(mask).itertuples()
        assert road.width_m == pytest.approx(across * side, abs=0.51 * side)
        assert road.width_min_m == pytest.approx(across * side, abs=0.51 * side)
        values = np.ascontiguousarray(values.T)


@pytest.mark.parametrize("angle", [20, 45, 70, 110, 135, 160])
@pytest.mark.parametrize("grid", ["60 N", "tall", "wide"])
def test_widths_of_slanting_roads(tmp_path: Path, grid: str, angle: int) -> None:
    crs, transform, sides = OBLONG[grid]
    values = slanting(angle, sides, 12) > 0
    mask = save(tmp_path / "road.tif", values.astype(np.uint8), crs=crs, transform=transform)
    frame = lines(mask)
    road = frame.loc[frame.length_m.idxmax()]
    assert road.width_m == pytest.approx(12, abs=max(sides))


def test_widths_go_with_the_latitude_of_each_line(tmp_path: Path) -> None:
    values = np.zeros((4000, 40), np.uint8)
    starts = (20, 1900, 3800)
    for row in starts:
        values[row : row + 180, 15:25] = 1
    there = {"crs": "EPSG:4326", "transform": Affine(5e-3, 0.0, 10.0, 0.0, -5e-3, 70.0)}
    frame = lines(save(tmp_path / "tall.tif", values, **there))
    found = frame.assign(north=frame.geometry.map(lambda g: g.bounds[3]))
    geod = Geod(ellps="WGS84")
    for road, row in zip(found.sort_values("north")[::-1].itertuples(), starts, strict=True):
        latitude = 70 - 5e-3 * (row + 90)
        column = geod.inv(10, latitude, 10.005, latitude)[2]
        # 10 are told as 9.5.
        assert road.width_m == pytest.approx(9.5 * column, rel=2e-3)


@pytest.mark.parametrize("turned", [0, 30])
def test_widths_of_square_pixels_are_those_in_pixels(turned: float) -> None:
    """To the last bit, whatever the unit is and wherever north is."""
    mask = town() == 1
    size = RasterSize(height=mask.shape[0], width=mask.shape[1])
    network = centerline_network(lambda w: mask[w.slices()], size).pruned()
    grid = Affine.translation(5e5, 6e6) @ Affine.rotation(turned) @ Affine.scale(0.3, -0.3)
    box = GeoBox(size=size, transform=tuple(grid)[:6])
    units = MapUnits(measure=Measure.PLANE)
    found = make_centerlines(network, box=box, units=units)
    side = pixel_side(box, units)
    assert side == pytest.approx(0.3)
    for width, least, line in zip(found.width, found.width_min, network.lines, strict=True):
        assert width == line.samples[:, 0].mean(dtype=np.float64) * side
        assert least == float(line.samples[:, 0].min()) * side


def test_short_lines_that_connect_nothing_are_left_out(tmp_path: Path) -> None:
    values = town()
    values[5:8, 5:25] = 1  # 10 m long, alone
    mask = save(tmp_path / "specks.tif", values)
    assert len(lines(mask)) == 6
    draw = Centerlines(min_length=20, nodes=True)
    result = geothresh.vectorize(mask, tmp_path / "less.gpkg", draw=draw)
    assert (result.features, result.left_out, result.nodes) == (5, 1, 5)
    assert result.length == pytest.approx(lines(mask, min_length=20).length_m.sum(), rel=1e-3)
    # 400 m: all that ends is shorter, the ring too, and what is left is nothing.
    assert len(lines(mask, min_length=400)) == 0


def test_simplify_leaves_fewer_points_within_its_length(mask: Path) -> None:
    every, few = lines(mask), lines(mask, simplify=2.0)
    assert shapely.get_num_coordinates(few.geometry).sum() < (
        shapely.get_num_coordinates(every.geometry).sum()
    )
    for one, other in zip(every.geometry, few.geometry, strict=True):
        assert one.hausdorff_distance(other) <= 2.0 + 1e-9


@pytest.mark.parametrize("value", [0, 1])
def test_nothing_and_everything(tmp_path: Path, value: int) -> None:
    mask = save(tmp_path / "flat.tif", np.full((70, 90), value, np.uint8))
    frame = lines(mask, nodes=True)
    assert len(frame) == value
    assert list(frame.columns) == ["length_m", "width_m", "width_min_m", "geometry"]
    assert list(geopandas.read_file(tmp_path / "flat.gpkg", layer="flat_nodes").columns) == [
        "degree", "geometry"
    ]  # fmt: skip


def test_single_pixels_are_no_lines(tmp_path: Path) -> None:
    values = np.zeros((70, 90), np.uint8)
    values[::7, ::7] = 1
    values[3:6, 3:6] = 1
    assert len(lines(save(tmp_path / "dots.tif", values))) == 0


def test_pixel_coordinates_where_there_are_no_others(tmp_path: Path) -> None:
    mask = save(tmp_path / "plain.tif", town(), crs=None, transform=Affine.identity())
    frame = lines(mask, allow_pixel_coords=True)
    assert list(frame.columns) == ["length_px", "width_px", "width_min_px", "geometry"]
    assert frame.length_px.sum() == pytest.approx(frame.length.sum(), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--kind centerlines --min-area 5", "--min-area is not for centerlines; leave it out, or "
         "choose --kind polygons"),
        ("--min-length 5", "--min-length is not for polygons"),
        ("--nodes", "--nodes is not for polygons"),
        ("--spur 0", "--spur is not for polygons; leave it out, or choose --kind centerlines"),
    ],
)  # fmt: skip
def test_options_of_the_other_kind_are_refused(mask: Path, options: str, said: str) -> None:
    result = runner().invoke(main, ["vectorize", str(mask), *options.split()])
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not mask.with_suffix(".gpkg").exists()


def test_the_layer_of_nodes_has_a_name_of_its_own(mask: Path) -> None:
    with pytest.raises(UsageError, match="_nodes.*63 letters"):
        geothresh.vectorize(
            mask, draw=Centerlines(nodes=True), writing=VectorWriting(layer="x" * 60)
        )
