"""Other formats than GeoPackage: files that others read, complete or not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from pyogrio import raw, read_info
from rasterio import warp

import geothresh
from geothresh import GeothreshWarning, VectorWriting, files
from geothresh.api import vectorize as vectorizing
from geothresh.cli import main
from geothresh.errors import InputError, OutputError, UsageError
from geothresh.vector import exchange, formats
from geothresh.vector.layers import Mismatch
from geothresh.vector.reprojection import crs_of, to_crs
from tests.support.cli_runner import runner
from tests.support.flat import grouped_vectors
from tests.support.streets import save, town

ENDINGS = (".fgb", ".geojson", ".parquet", ".shp")


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return save(tmp_path / "in" / "town.tif", town())


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["polygons", "centerlines"])
def test_the_same_features_as_in_a_geopackage(
    mask: Path, tmp_path: Path, ending: str, kind: str
) -> None:
    confidence = save(tmp_path / "in" / "c.tif", np.where(town() == 1, 0.75, 0.1).astype("f4"))
    options = grouped_vectors(kind=kind, confidence=confidence)
    geothresh.vectorize(mask, tmp_path / "in" / "own.gpkg", **options)
    own = geopandas.read_file(tmp_path / "in" / "own.gpkg")
    output = tmp_path / f"roads{ending}"
    command = ["vectorize", str(mask), "-o", str(output), "--kind", kind]
    result = runner().invoke(main, [*command, "--confidence", str(confidence)])
    assert result.exit_code == 0, result.stderr
    frame = read(output)
    assert len(frame) == len(own) and frame.is_valid.all()
    expected = {".geojson": 4326}.get(ending, 32633)
    assert frame.crs.to_epsg() == expected
    ours = frame.to_crs(32633).geometry.normalize()
    apart = shapely.hausdorff_distance(ours.to_numpy()[:, None], own.geometry.to_numpy()[None])
    order = apart.argmin(axis=1)
    assert sorted(order.tolist()) == list(range(len(own)))
    assert apart.min(axis=1).max() < (0.02 if ending == ".geojson" else 1e-9)
    names = [name for name in frame.columns if name not in ("geometry", "bbox")]
    if ending == ".shp":
        assert all(len(name) <= 10 for name in names) and len(set(names)) == len(own.columns) - 1
        mean = frame["conf_mean"]
    else:
        assert names == list(own.columns[:-1])
        mean = frame["confidence_mean"]
    np.testing.assert_allclose(mean, 0.75, rtol=1e-6)
    sides = {f"roads{s}" for s in (".shx", ".dbf", ".prj", ".cpg")} if ending == ".shp" else set()
    assert {p.name for p in tmp_path.iterdir()} == {"in", "roads.qml", f"roads{ending}", *sides}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_features(tmp_path: Path, ending: str) -> None:
    empty = save(tmp_path / "empty.tif", np.zeros((20, 30), np.uint8), nodata=None)
    output = tmp_path / f"none{ending}"
    assert geothresh.vectorize(empty, output).features == 0
    assert len(read(output)) == 0


@pytest.mark.parametrize("kind", ["polygons", "centerlines"])
def test_a_layer_without_features_has_the_same_attributes(tmp_path: Path, kind: str) -> None:
    values = np.zeros((60, 60), np.uint8)
    found = []
    for name in ("none", "some"):
        values[20:24, 5:50] = name == "some"
        mask = save(tmp_path / f"{name}.tif", values, nodata=None)
        confidence = save(tmp_path / f"{name}_c.tif", values.astype("f4"))
        options = grouped_vectors(kind=kind, confidence=confidence)
        found.append(geothresh.vectorize(mask, **options))
    assert [one.features > 0 for one in found] == [False, True]
    assert found[0].fields == found[1].fields and "confidence_mean" in found[0].fields


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_old_file_stays_until_it_may_go(
    mask: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / f"roads{ending}"
    lines = grouped_vectors(kind="centerlines", overwrite=True)
    geothresh.vectorize(mask, output)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with pytest.raises(OutputError, match="exists already"):
        geothresh.vectorize(mask, output)

    def forget(found: Any, geometry: Any, **options: Any) -> None:
        real(found[1:], geometry, **options)

    real = exchange._compare
    with monkeypatch.context() as patch:
        patch.setattr(exchange, "_compare", forget)
        with pytest.raises(OutputError, match="features.*nothing was left behind"):
            geothresh.vectorize(mask, output, **lines)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert after == before
    result = geothresh.vectorize(mask, output, **lines)
    assert len(read(output)) == result.features


def test_what_is_read_back_is_compared() -> None:
    square = np.array([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])
    exchange._compare(square[::-1], square, tolerance=0, sort=True)
    exchange._compare(shapely.reverse(square), square, tolerance=0, sort=False)
    many = np.array([shapely.multipolygons([one]) for one in square])
    exchange._compare(square, many, tolerance=0, sort=False)
    moved = shapely.transform(square, lambda xy: xy + 1e-8)
    exchange._compare(moved, square, tolerance=1e-7, sort=False)
    for found, options in (
        (square[:1], {"tolerance": 0, "sort": False}),
        (moved, {"tolerance": 0, "sort": False}),
        (square[::-1], {"tolerance": 0, "sort": False}),
        (shapely.transform(square, lambda xy: xy + 1e-3), {"tolerance": 1e-7, "sort": False}),
    ):
        with pytest.raises(Mismatch):
            exchange._compare(found, square, **options)
    for lacking in (None, shapely.Polygon()):
        found = np.array([lacking, square[1]], object)
        with pytest.raises(Mismatch, match="1 of 2 features"):
            exchange._compare(found, square, tolerance=1e-7, sort=False)


def test_what_a_format_cannot_hold_is_refused(mask: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"output": tmp_path / "a.kml"}, "tells no format"),
        ({"output": tmp_path / "a.gpkg", "format": "geojson"}, "ends in .geojson"),
        ({"output": tmp_path / "a.fgb", "format": "dxf"}, "`format` 'dxf': give gpkg or"),
        ({"output": tmp_path / "a.fgb", "kind": "centerlines", "nodes": True}, "holds one layer"),
        ({"output": tmp_path / "a.shp", "append": True}, "not to a shapefile"),
    ):
        with pytest.raises(UsageError, match=words):
            geothresh.vectorize(mask, **grouped_vectors(**options))
    result = geothresh.vectorize(mask, writing=VectorWriting(format="flatgeobuf"))
    assert result.output == mask.with_suffix(".fgb")
    assert read_info(result.output)["driver"] == "FlatGeobuf"
    # A part of a shapefile alone is somebody's too.
    (tmp_path / "b.dbf").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"b\.dbf: exists already"):
        geothresh.vectorize(mask, tmp_path / "b.shp")


def test_geoparquet_says_what_it_needs(
    mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"geothresh\[parquet\]"):
        geothresh.vectorize(mask, tmp_path / "a.parquet")


def test_geojson_is_in_degrees_as_its_standard_says(mask: Path, tmp_path: Path) -> None:
    geothresh.vectorize(mask, tmp_path / "roads.geojson")
    text = (tmp_path / "roads.geojson").read_text()
    assert '"crs"' not in text
    left, bottom, right, top = read_info(tmp_path / "roads.geojson")["total_bounds"]
    assert 14.9 < left < right < 15.1 and 54 < bottom < top < 54.2
    assert raw.read(tmp_path / "roads.geojson")[2].size


@pytest.mark.parametrize("ending", [".geojson", ".gpkg"])
@pytest.mark.parametrize("kind", ["polygons", "centerlines"])
def test_what_crosses_the_180th_meridian_is_cut_there(
    tmp_path: Path, ending: str, kind: str
) -> None:
    (x,), (y,) = warp.transform("EPSG:4326", "EPSG:32760", [180.0], [-17.0])
    place = {"crs": "EPSG:32760", "transform": Affine(10, 0, x - 1500, 0, -10, y + 1100)}
    mask = save(tmp_path / "town.tif", town(), **place)
    output = tmp_path / f"roads{ending}"
    degrees = {} if ending == ".geojson" else {"dst_crs": "EPSG:4326"}
    geothresh.vectorize(mask, tmp_path / "own.fgb", **grouped_vectors(kind=kind))
    geothresh.vectorize(mask, output, **grouped_vectors(kind=kind, **degrees))
    own, cut = geopandas.read_file(tmp_path / "own.fgb"), geopandas.read_file(output, layer=0)
    assert len(cut) == len(own) and cut.is_valid.all()
    parts = cut.explode().bounds
    assert (parts.maxx - parts.minx).max() < 0.05
    assert parts.maxx.max() == 180 and parts.minx.min() == -180
    back = cut.to_crs(32760)
    measure = "area" if kind == "polygons" else "length"
    assert getattr(back, measure).sum() == pytest.approx(getattr(own, measure).sum(), rel=1e-4)


@pytest.mark.parametrize(("west", "least"), [(179.99, -180.0), (350.0, -10.0), (-185.0, 175.0)])
def test_longitudes_beyond_180_degrees_are_brought_back(
    tmp_path: Path, west: float, least: float
) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, west, 0, -1e-4, 10)}
    mask = save(tmp_path / "town.tif", town(), **place)
    made = geothresh.vectorize(mask, tmp_path / "roads.geojson")
    frame = geopandas.read_file(made.output)
    assert made.crs == "EPSG:4326" and frame.is_valid.all()
    bounds = frame.explode().bounds
    assert bounds.minx.min() == pytest.approx(least, abs=0.03) and bounds.maxx.max() <= 180
    assert (bounds.maxx - bounds.minx).max() < 0.05
    assert frame.area.sum() == pytest.approx((town() == 1).sum() * 1e-8, rel=1e-4)


@pytest.mark.parametrize(
    ("crs", "output", "options"),
    [
        ("EPSG:4326", "world.geojson", {}),
        ("EPSG:4326", "world.gpkg", {"dst_crs": "EPSG:4326"}),
        ("EPSG:4258", "world.geojson", {}),
        ("EPSG:4267", "world.gpkg", {"dst_crs": "EPSG:4326"}),
        ("EPSG:4807", "world.gpkg", {"dst_crs": "EPSG:4326"}),
    ],
)
@pytest.mark.parametrize("kind", ["polygons", "centerlines"])
def test_a_feature_wider_than_half_the_globe_is_no_other(
    tmp_path: Path, crs: str, output: str, options: dict[str, Any], kind: str
) -> None:
    turn = 400 if crs == "EPSG:4807" else 360
    values = np.zeros((180, 360), np.uint8)
    values[80:100, 10:350] = 1
    place = Affine.scale(turn / 360) @ Affine(1, 0, -180, 0, -1, 90)
    mask = save(tmp_path / "world.tif", values, nodata=None, crs=crs, transform=place)
    geothresh.vectorize(mask, tmp_path / output, **grouped_vectors(kind=kind, **options))
    frame = read(tmp_path / output)
    # In EPSG:4807, longitudes begin at Paris.
    east = 2.34 if crs == "EPSG:4807" else 0.0
    west, south, right, north = frame.total_bounds
    if kind == "polygons":
        assert (west, right) == pytest.approx((-170 + east, 170 + east), abs=0.01)
        assert frame.area.sum() == pytest.approx(340 * 20, rel=1e-3)
    else:
        assert -170 + east < west < -150 and 150 < right < 170 + east
    assert frame.geom_type.isin(["Polygon", "LineString"]).all()


@pytest.mark.parametrize("west", [179.99, -180.01])
def test_a_change_of_datum_tears_no_feature(tmp_path: Path, west: float) -> None:
    place = {"crs": "EPSG:4267", "transform": Affine(1e-4, 0, west, 0, -1e-4, 52)}
    mask = save(tmp_path / "town.tif", town(), **place)
    output = tmp_path / "roads.geojson"
    made = geothresh.vectorize(mask, output)
    frame = read(output)
    bounds = frame.explode().bounds
    assert len(frame) == made.features and frame.is_valid.all()
    assert (bounds.maxx - bounds.minx).max() < 0.05
    assert frame.area.sum() == pytest.approx((town() == 1).sum() * 1e-8, rel=1e-3)


def test_a_projection_that_tears_features_apart_is_refused(tmp_path: Path) -> None:
    place = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 179.99, 0, -1e-4, 10)}
    mask = save(tmp_path / "town.tif", town(), **place)
    with pytest.raises(InputError, match="features lie where EPSG:3857 is cut"):
        geothresh.vectorize(
            mask, tmp_path / "roads.gpkg", writing=VectorWriting(dst_crs="EPSG:3857")
        )
    assert not (tmp_path / "roads.gpkg").exists()
    geothresh.vectorize(mask, tmp_path / "roads.gpkg", writing=VectorWriting(dst_crs="EPSG:32660"))


def test_lines_without_length_stay_lines_and_polygons_do_not_vanish() -> None:
    here, there = crs_of("EPSG:32633"), crs_of("EPSG:4326")
    point = np.array([shapely.LineString([(5e5, 5e6), (5e5, 5e6)])], object)
    (line,) = to_crs(point, here, there)[:]
    assert line.geom_type == "LineString" and not line.is_empty
    # Coordinates from 1e15 m on have steps of 12 cm.
    far = crs_of("+proj=tmerc +lon_0=15 +x_0=1e15 +y_0=1e15")
    speck = np.array([shapely.box(5e5, 5e6, 5e5 + 0.01, 5e6 + 0.01)], object)
    with pytest.raises(InputError, match="1 of 1 features shrink to nothing in unknown"):
        to_crs(speck, here, far)


@pytest.mark.parametrize(
    ("kind", "side", "shown"),
    [
        ("polygons", 0.02, True),
        ("polygons", 0.005, False),
        ("polygons", 0.001, False),
        ("centerlines", 0.02, True),
        ("centerlines", 0.001, False),
    ],
)
def test_features_that_the_decimals_of_geojson_cannot_show_are_refused(
    tmp_path: Path, kind: str, side: float, shown: bool
) -> None:
    (tmp_path / "in").mkdir()
    values = np.zeros((64, 64), np.uint8)
    values[10, 10] = values[20:60, 20:24] = 1
    if kind == "centerlines":
        values[10, 10:13] = 1
    place = Affine(side, 0, 5e5, 0, -side, 6e6)
    mask = save(tmp_path / "in" / "mask.tif", values, transform=place)
    output = tmp_path / "v.geojson"
    output.write_text("somebody's")
    options = grouped_vectors(kind=kind, overwrite=True)
    if shown:
        made = geothresh.vectorize(mask, output, **options)
        assert set(read(output).geom_type) == {made.geometry_type}
        return
    with pytest.raises(OutputError, match=r"1 of 2 features collapse in GeoJSON.*write \.gpkg"):
        geothresh.vectorize(mask, output, **options)
    assert output.read_text() == "somebody's"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "v.geojson"}
    geothresh.vectorize(mask, tmp_path / "v.gpkg", **options)


def test_a_feature_in_several_dimensions_is_no_polygon() -> None:
    square = np.array([shapely.box(0, 0, 1, 1)])
    tail = shapely.LineString([(1, 1), (1 + 1e-8, 1)])
    mixed = np.array([shapely.GeometryCollection([square[0], tail])])
    with pytest.raises(exchange._Degenerate, match="1 of 1 features collapse"):
        exchange._compare(mixed, square, tolerance=1e-7, sort=False)


def test_geojson_has_one_crs_and_it_is_said(mask: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in EPSG:4326 by its standard"):
        geothresh.vectorize(
            mask, tmp_path / "roads.geojson", writing=VectorWriting(dst_crs="EPSG:3857")
        )
    assert geothresh.vectorize(mask, tmp_path / "roads.geojson").crs == "EPSG:4326"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_geojson_holds_no_coordinates_of_an_unknown_crs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = save(tmp_path / "bare.tif", town(), crs=None)
    output = tmp_path / "roads.geojson"
    output.write_text("somebody's")
    replace = VectorWriting(overwrite=True, allow_pixel_coords=True)
    with monkeypatch.context() as patch:
        # It is refused before anything is drawn.
        patch.setattr(vectorizing, "draw_layers", None)
        with pytest.raises(InputError, match=r"no CRS, and a GeoJSON is in EPSG:4326.*\.gpkg"):
            geothresh.vectorize(bare, output, writing=replace)
    assert output.read_text() == "somebody's"
    assert {path.name for path in tmp_path.iterdir()} == {"bare.tif", "roads.geojson"}
    # Columns and rows are written on request.
    picture = save(tmp_path / "picture.tif", town(), crs=None, transform=None)
    with pytest.warns(GeothreshWarning, match="which GDAL and QGIS take for longitudes"):
        made = geothresh.vectorize(picture, output, writing=replace)
    assert made.crs is None and read(output).total_bounds[2] == 280


def test_nothing_of_an_old_shapefile_stays_that_the_new_one_has_not(
    mask: Path, tmp_path: Path
) -> None:
    output = tmp_path / "roads.shp"
    geothresh.vectorize(mask, output)
    for ending in (".qix", ".sbn", ".sbx"):
        output.with_suffix(ending).write_bytes(b"an index of the old one")
    bare = save(tmp_path / "in" / "bare.tif", town(), crs=None)
    geothresh.vectorize(bare, output, writing=VectorWriting(overwrite=True))
    assert geopandas.read_file(output).crs is None
    assert {p.suffix for p in tmp_path.glob("roads.*")} == {".shp", ".shx", ".dbf", ".cpg", ".qml"}


def test_a_shapefile_of_two_runs_is_never_left(
    mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "roads.shp"
    geothresh.vectorize(mask, output)
    real = files.publish
    for files_published in range(5):
        left = iter(range(files_published))

        def killed(temporary: Path, target: Path, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(temporary, target)

        monkeypatch.setattr(exchange, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            geothresh.vectorize(mask, output, writing=VectorWriting(overwrite=True))
        assert not output.exists()
    monkeypatch.setattr(exchange, "publish", real)
    assert geothresh.vectorize(mask, output, writing=VectorWriting(overwrite=True)).features
    assert len(geopandas.read_file(output)) > 0
