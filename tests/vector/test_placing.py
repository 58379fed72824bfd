"""Vectors laid onto pixels, against a naive twin: every pixel's centre asked for itself."""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine

from geothresh.errors import GeothreshWarning, InputError, UsageError
from geothresh.geobox import GeoBox
from geothresh.raster.features import burn
from geothresh.vector.frames import measuring
from geothresh.vector.placing import PlacedShapes, Width, place
from geothresh.vector.reading import find_layer
from geothresh.windows import PixelWindow, RasterSize

UTM = Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 5_000_000.0)


def raster(
    transform: Affine = UTM, crs: str | None = "EPSG:32632", height: int = 60, width: int = 80
) -> GeoBox:
    return GeoBox(
        name="scene.tif",
        crs=None if crs is None else CRS.from_string(crs).to_wkt(),
        transform=tuple(transform)[:6],
        size=RasterSize(height=height, width=width),
    )


def centres(where: GeoBox) -> np.ndarray:
    """(H * W, 2) map coordinates of the pixels' centres."""
    rows, cols = np.mgrid[: where.size.height, : where.size.width] + 0.5
    return where.to_map(np.stack([cols.ravel(), rows.ravel()], axis=1))


def write_layer(path: Path, shapes: list, crs: str | None = "EPSG:32632", **columns) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
        layer = {"layer": path.stem} if path.suffix == ".gpkg" else {}
        frame.to_file(path, **layer)
    return path


def burnt(shapes: PlacedShapes, where: GeoBox) -> np.ndarray:
    window = where.size.window()
    return burn(shapes.touching(window), window)


def lines_over(where: GeoBox, seed: int, n: int = 5) -> list:
    """Lines in the map, some of which leave the raster."""
    rng = np.random.default_rng(seed)
    size = np.array([where.size.width, where.size.height])
    return [
        shapely.LineString(where.to_map(rng.uniform(-0.2, 1.2, (3, 2)) * size)) for _ in range(n)
    ]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    angle=st.sampled_from([0, 33, 90]),
    flip=st.sampled_from([-1, 1]),
    buffer=st.floats(0.3, 12),
)
def test_lines_cover_the_pixels_whose_centres_lie_within_the_buffer(
    tmp_path_factory, seed: int, angle: int, flip: int, buffer: float
) -> None:
    transform = UTM @ Affine.rotation(angle) @ Affine.scale(1, flip)
    where = raster(transform)
    lines = lines_over(where, seed)
    path = write_layer(tmp_path_factory.mktemp("lines") / "roads.gpkg", lines)
    try:
        shapes = place(find_layer(path), where, width=Width(buffer=buffer), what="labels")
        found = burnt(shapes, where)
    except InputError:
        found = np.zeros((60, 80), bool)
    points = shapely.points(centres(where))
    distance = np.min([shapely.distance(points, line) for line in lines], axis=0)
    # Round ends are made of chords, which come short of the circle by half a percent.
    sure = np.abs(distance - buffer) > 0.01 * buffer + 1e-6
    np.testing.assert_array_equal(found.ravel()[sure], (distance < buffer)[sure])


def test_polygons_are_taken_as_they_are_and_pieces_change_nothing(tmp_path: Path) -> None:
    where = raster(height=90, width=120)
    rng = np.random.default_rng(3)
    angles = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    radius = rng.uniform(30, 80, angles.size)
    star = shapely.Polygon(
        np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1) + (500_120, 4_999_910),
        holes=[np.array([(-9, -9.3), (9, -9.3), (0, 9)]) + (500_120, 4_999_910)],
    )
    shapes = place(
        find_layer(write_layer(tmp_path / "areas.gpkg", [star])), where, width=None, what="labels"
    )
    assert len(shapes.pieces) > 5 and shapes.n_features == 1
    assert shapely.get_num_coordinates(shapes.pieces).max() <= 512
    expected = shapely.contains_xy(star, centres(where)).reshape(90, 120)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(burnt(shapes, where), expected)


@settings(max_examples=25)
@given(data=st.data())
def test_a_window_is_cut_out_of_the_whole(data) -> None:
    where = raster()
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    pieces = shapely.buffer(shapely.linestrings(rng.uniform(-10, 90, (6, 4, 2))), 2.3)
    shapes = PlacedShapes(pieces=pieces, tree=shapely.STRtree(pieces), n_features=6)
    row, col = data.draw(st.integers(0, 59)), data.draw(st.integers(0, 79))
    height, width = data.draw(st.integers(1, 60 - row)), data.draw(st.integers(1, 80 - col))
    window = PixelWindow(row=row, col=col, height=height, width=width)
    part = burn(shapes.touching(window), window)
    np.testing.assert_array_equal(part, burnt(shapes, where)[window.slices()])
    again = pickle.loads(pickle.dumps(shapes))
    np.testing.assert_array_equal(burn(again.touching(window), window), part)


DEGREES = Affine(2e-5, 0, 9.0, 0, -1.5e-5, 45.2)
MERCATOR = Affine(3.0, 0, 1_000_000.0, 0, -3.0, 8_400_000.0)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", DEGREES),
        ("EPSG:3857", MERCATOR),
        ("EPSG:2263", Affine(6, 0, 98e4, 0, -6, 2e5)),
    ],
)
def test_a_buffer_is_in_metres_on_the_ground_in_any_crs(tmp_path: Path, crs, transform) -> None:
    """Degrees, Mercator (lengths doubled at 60 degrees north) and feet."""
    where = raster(transform, crs)
    middle = where.to_map(np.array([[40.0, 30.0]]))[0]
    path = write_layer(tmp_path / "points.gpkg", [shapely.Point(middle)], crs=crs)
    shapes = place(find_layer(path), where, width=Width(buffer=20.0), what="labels")
    wgs84 = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = wgs84.transform(*centres(where).T)
    lon0, lat0 = wgs84.transform(*middle)
    geod = shapely_free_distance(lon0, lat0, lon, lat)
    sure = np.abs(geod - 20) > 0.3
    np.testing.assert_array_equal(burnt(shapes, where).ravel()[sure], (geod < 20)[sure])
    assert burnt(shapes, where).sum() > 50


def shapely_free_distance(lon0: float, lat0: float, lon, lat) -> np.ndarray:
    from pyproj import Geod

    n = len(lon)
    _, _, metres = Geod(ellps="WGS84").inv(np.full(n, lon0), np.full(n, lat0), lon, lat)
    return np.asarray(metres)


@pytest.mark.parametrize("code", [4326, 3857, 4807])  # the last one in grads from Paris
def test_what_metres_are_measured_in_is_centred_on_the_place(code: int) -> None:
    crs = pyproj.CRS(code)
    x, y = Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True).transform(0.5, 54.2)
    metric, unit = measuring(crs, (x - 0.1, y - 0.1, x + 0.1, y + 0.1), "a raster")
    assert metric is not None and unit == 1
    centre = Transformer.from_crs(crs, metric, always_xy=True).transform(x, y)
    assert centre == pytest.approx((0, 0), abs=1)


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".shp", ".fgb"])
def test_labels_in_another_crs_land_on_the_same_pixels_and_it_is_said(
    tmp_path: Path, ending: str
) -> None:
    where = raster()
    lines = geopandas.GeoSeries(lines_over(where, 5), crs="EPSG:32632")
    here = write_layer(tmp_path / "here.gpkg", list(lines))
    there = write_layer(
        tmp_path / f"there{ending}", list(lines.to_crs("EPSG:4326")), crs="EPSG:4326"
    )
    width = Width(buffer=5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GeothreshWarning)
        expected = burnt(place(find_layer(here), where, width=width, what="labels"), where)
    with pytest.warns(GeothreshWarning, match=r"in EPSG:4326, .*reprojected to EPSG:32632"):
        found = burnt(place(find_layer(there), where, width=width, what="labels"), where)
    assert expected.sum() > 100
    # Straight in degrees is not straight in metres, by less than this.
    assert (found != expected).sum() <= 4


def test_widths_from_an_attribute_are_full_widths(tmp_path: Path) -> None:
    where = raster()
    rows = [where.to_map(np.array([(0.0, y), (80.0, y)])) for y in (10.25, 30.25, 50.25)]
    lines = [shapely.LineString(points) for points in rows]
    path = write_layer(
        tmp_path / "roads.gpkg", lines, width=[8.0, 12.0, None], lanes=["2", "x", ""]
    )
    layer = find_layer(path)
    with pytest.raises(UsageError, match=r"1 of 3 lines .*'width'; add `buffer"):
        place(layer, where, width=Width(field="width"), what="labels")
    shapes = place(layer, where, width=Width(field="width", buffer=2.0), what="labels")
    # Pixels are 2 m: widths of 8, 12 and 2 x 2 m are 4, 6 and 2 rows.
    column = burnt(shapes, where)[:, 40]
    assert [int(column[a:b].sum()) for a, b in ((0, 20), (20, 40), (40, 60))] == [4, 6, 2]
    with pytest.raises(UsageError, match="no attribute 'breadth'; there are lanes, width"):
        place(layer, where, width=Width(field="breadth"), what="labels")
    with pytest.raises(UsageError, match="'lanes' does not hold numbers"):
        place(layer, where, width=Width(field="lanes"), what="labels")


def test_lines_far_off_reach_into_the_raster_by_their_width(tmp_path: Path) -> None:
    where = raster()
    beside = shapely.LineString(where.to_map(np.array([(-4.0, -5.0), (-4.0, 70.0)])))
    path = write_layer(tmp_path / "wide.gpkg", [beside], width=[20.0])
    shapes = place(find_layer(path), where, width=Width(field="width"), what="labels")
    assert burnt(shapes, where)[30].nonzero()[0].tolist() == [0]


def test_an_empty_and_a_broken_polygon_among_others(tmp_path: Path) -> None:
    where = raster()
    bow = shapely.Polygon(where.to_map(np.array([(10.0, 10), (30, 30), (30, 10), (10, 30)])))
    path = write_layer(tmp_path / "bow.gpkg", [shapely.Polygon(), None, bow])
    found = burnt(place(find_layer(path), where, width=None, what="labels"), where)
    assert found[20, 12] and found[20, 28] and not found[12, 20] and not found[28, 20]


def test_what_cannot_be_placed_is_said_in_one_line(tmp_path: Path) -> None:
    where = raster()
    square = shapely.box(500_010, 4_999_900, 500_050, 4_999_990)
    far = write_layer(tmp_path / "far.gpkg", [shapely.box(0, 0, 9, 9)])
    bare = write_layer(tmp_path / "bare.gpkg", [square], crs=None)
    good = write_layer(tmp_path / "good.gpkg", [square])
    line = write_layer(tmp_path / "line.gpkg", [shapely.LineString(square.exterior)])
    none = write_layer(tmp_path / "none.gpkg", [None, None, shapely.Polygon()])
    some = write_layer(tmp_path / "some.gpkg", [None, shapely.box(0, 0, 9, 9)])
    cases = [
        (none, where, Width(), InputError, "none of its 3 features has a geometry; give the labe"),
        (some, where, Width(), InputError, "none of its 2 features touches scene.tif"),
        (far, where, Width(), InputError, "none of its 1 features touches scene.tif"),
        (bare, where, Width(), InputError, "bare.gpkg: has no CRS"),
        (good, raster(crs=None), Width(), InputError, "scene.tif: has no CRS"),
        (line, where, Width(), UsageError, "1 line or point, which have no width; give `buffer"),
        (line, where, None, UsageError, "must be polygons"),
    ]
    for path, target, width, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            place(find_layer(path), target, width=width, what="labels")
        assert "\n" not in str(caught.value)
    endless = write_layer(tmp_path / "endless.gpkg", [square], wide=[math.inf])
    with pytest.raises(UsageError, match="'wide' does not hold numbers only .one is infinite"):
        place(find_layer(endless), where, width=Width(field="wide"), what="labels")
    centre = write_layer(tmp_path / "centre.gpkg", [square], crs="EPSG:4978")
    with pytest.raises(InputError, match="has its origin in the centre of the Earth"):
        find_layer(centre)
    with pytest.warns(GeothreshWarning, match="neither .* has a CRS"):
        place(find_layer(bare), raster(crs=None), width=Width(), what="labels")
    with pytest.warns(GeothreshWarning, match="without the buffer"):
        place(find_layer(good), where, width=Width(buffer=3), what="labels")
    for buffer in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="above 0"):
            Width(buffer=buffer)


def test_files_that_are_no_layer_are_said_in_one_line(tmp_path: Path) -> None:
    two = tmp_path / "two.gpkg"
    for name in ("one", "other"):
        frame = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632")
        frame.to_file(two, layer=name)
    with pytest.raises(UsageError, match=r"2 layers \(one, other\); choose one with `layer"):
        find_layer(two)
    with pytest.raises(UsageError, match="give a file with one"):
        find_layer(two, option=None)
    with pytest.raises(UsageError, match=r"no layer 'third'; there are one, other"):
        find_layer(two, "third")
    assert find_layer(two, "other").n_features == 1

    texts = {
        "a.vrt": "<OGRVRTDataSource/>",
        "b.csv": "x,y\n1,2\n",
        "c.gpkg": "SQLite format 3\0...",
    }
    texts |= {"d.geojson": '{"type": "Nothing"}', "e.gpkg": ""}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name) as caught:
            find_layer(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        find_layer(tmp_path / "none.gpkg")
    cut = write_layer(tmp_path / "cut.fgb", [shapely.box(0, 0, 1, 1)] * 50)
    cut.write_bytes(cut.read_bytes()[:1500])
    with pytest.raises(InputError, match="cut.fgb"):
        place(find_layer(cut), raster(), width=None, what="labels")


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:32701", "EPSG:4326"])
@pytest.mark.parametrize("buffer", [None, 90.0])
def test_features_on_both_sides_of_the_180th_meridian_are_placed(
    tmp_path: Path, crs: str, buffer: float | None
) -> None:
    """With 120 x 90 pixels of 100 m, or of 0.001 degrees, and the meridian in the middle."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(179.9999999, 0.1)
    side = 1e-3 if crs == "EPSG:4326" else 100.0
    transform = Affine(side, 0.0, x - 60 * side, 0.0, -side, y + 45 * side)
    where = raster(transform, crs=crs, height=90, width=120)
    east, west = shapely.Point(-179.99, 0.1), shapely.Point(179.99, 0.1)
    far = shapely.Point(90.0, 0.1)
    shapes = [east, west, far]
    width = Width(buffer=buffer) if buffer else None
    if buffer is None:
        shapes = [shape.buffer(2e-3, quad_segs=2) for shape in shapes]
    labels = find_layer(write_layer(tmp_path / "labels.gpkg", shapes, crs="EPSG:4326"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeothreshWarning)
        placed = place(labels, where, width=width, what="labels")
    mask = burnt(placed, where)
    halves = mask[:, :60].sum(), mask[:, 60:].sum()
    # Longitudes of a raster in degrees go on beyond 180, those of the labels start anew.
    assert halves[0] > 0 and (halves[1] > 0 or crs == "EPSG:4326")
    assert len(np.unique(np.nonzero(mask)[1])) < 30


@pytest.mark.parametrize("far", [30.0, 170.0, 1e4, 1e300])
def test_outlines_far_around_the_raster_take_no_more_points(tmp_path: Path, far: float) -> None:
    """A point each metre of an outline of the world would fill the memory."""
    where = raster()
    edge = 9.001
    west = shapely.Polygon([(edge, -20), (edge, 70), (9 - far, 70), (9 - far, -20)])
    labels = find_layer(write_layer(tmp_path / "west.gpkg", [west], crs="EPSG:4326"))
    with pytest.warns(GeothreshWarning, match="reprojected"):
        found = burnt(place(labels, where, width=None, what="labels"), where)
    back = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    longitude, _ = back.transform(*centres(where).T)
    assert np.array_equal(found.ravel(), longitude < edge) and 0 < found.mean() < 1
