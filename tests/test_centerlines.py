"""From a mask on the disk to centrelines in a GeoPackage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from cli_runner import runner
from pyproj import Geod
from rasterio.features import rasterize

import geothresh
from geothresh.cli import main
from geothresh.errors import UsageError

UTM = {"crs": "EPSG:32633", "transform": Affine(0.5, 0.0, 5e5, 0.0, -0.5, 6e6)}


def save(path: Path, values: Any, **options: Any) -> Path:
    given = {"nodata": 255 if values.dtype == np.uint8 else None, **UTM, **options}
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=values.dtype,
        tiled=True, blockxsize=64, blockysize=64, **given,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return path


def town() -> np.ndarray:
    """Two roads 9 and 5 pixels wide that cross, and a roundabout apart."""
    mask = np.zeros((220, 300), np.uint8)
    mask[96:105, 10:280] = 1
    mask[20:200, 148:153] = 1
    row, col = np.indices(mask.shape)
    radius = np.hypot(row - 170, col - 240)
    mask[(radius > 14) & (radius < 20)] = 1
    mask[30:50, 30:90] = 255
    return mask


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return save(tmp_path / "town.tif", town())


def lines(path: Path, **options: Any) -> Any:
    output = path.with_suffix(".gpkg")
    geothresh.vectorize(path, output, kind="centerlines", overwrite=True, **options)
    return geopandas.read_file(output, layer=path.stem)


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
    np.testing.assert_allclose(frame.length_m, frame.length)
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
    ],
    ids=["south-up", "sheared"],
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
    np.testing.assert_allclose(frame.length_m, expected)
    # A pixel is 0.558 m x 1.114 m: the width is told for a square of its area.
    west = frame.loc[frame.geometry.map(lambda g: g.bounds[0]).idxmin()]
    assert west.width_m == pytest.approx(9 * np.sqrt(0.558 * 1.114), rel=0.1)


def test_short_lines_that_connect_nothing_are_left_out(tmp_path: Path) -> None:
    values = town()
    values[5:8, 5:25] = 1  # 10 m long, alone
    mask = save(tmp_path / "specks.tif", values)
    assert len(lines(mask)) == 6
    result = geothresh.vectorize(
        mask, tmp_path / "less.gpkg", kind="centerlines", min_length=20, nodes=True
    )
    assert (result.features, result.left_out, result.nodes) == (5, 1, 5)
    assert result.length == pytest.approx(lines(mask, min_length=20).length_m.sum())
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
    assert frame.length_px.sum() == pytest.approx(frame.length.sum())


def test_options_of_the_other_kind_are_refused(mask: Path) -> None:
    for options, words in (
        ({"kind": "centerlines", "min_area": 5}, "--min-area is not for centerlines"),
        ({"min_length": 5}, "--min-length is not for polygons"),
        ({"nodes": True}, "--nodes is not for polygons"),
        ({"spur": 0.0}, "--spur is not for polygons"),
        ({"kind": "centerlines", "spur": -1.0}, "length of spurs -1"),
        ({"kind": "lines"}, "use polygons or centerlines"),
    ):
        with pytest.raises(UsageError, match=words):
            geothresh.vectorize(mask, **options)
    with pytest.raises(UsageError, match="_nodes.*63 letters"):
        geothresh.vectorize(mask, kind="centerlines", nodes=True, layer="x" * 60)
