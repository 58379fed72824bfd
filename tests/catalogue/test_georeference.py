"""67-78: whatever ties the pixels to the ground is copied exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine

from tests.catalogue.bench import Bench
from tests.support.rasters import NORTH_UP, write_raster

VALUES = np.linspace(0, 1, 1500, dtype=np.float32).reshape(30, 50)
MARS = "IAU_2015:49900"
GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=9.5 +sweep=y +ellps=WGS84 +units=m"
LOCAL = 'LOCAL_CS["mine grid",UNIT["metre",1]]'


@pytest.mark.catalogue(67)
def test_no_crs(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES, crs=None)
    bench.refined("x.tif", expected=VALUES, warned=["no coordinate reference system"])


@pytest.mark.catalogue(68)
def test_no_georeference_at_all(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES, crs=None, transform=None)
    bench.refined("x.tif", expected=VALUES, warned=["no georeference"])
    bench.refused(3, "--allow-pixel-coords", "vectorize", "out_m.tif")
    result = bench.run("vectorize", "out_m.tif", "--allow-pixel-coords", "-o", "v.gpkg")
    assert result.exit_code == 0, result.output
    left, top, right, bottom = geopandas.read_file("v.gpkg").total_bounds
    assert (left, right) == (0, 50) and abs(top - bottom) == 15


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param(
            "EPSG:4326", Affine(1e-5, 0, 7.5, 0, -1e-5, 51.25), marks=pytest.mark.catalogue(69)
        ),
        pytest.param(
            "EPSG:32632",
            Affine.translation(4e5, 5e6) @ Affine.rotation(33) @ Affine.scale(2, -3),
            marks=pytest.mark.catalogue(70),
        ),
        pytest.param(
            "EPSG:32632", Affine(2, 0.7, 4e5, 0.3, -3, 5e6), marks=pytest.mark.catalogue(70)
        ),
        pytest.param(
            "EPSG:32632", Affine(2, 0, 4e5, 0, 2, 5e6), marks=pytest.mark.catalogue(71)
        ),
        pytest.param(
            "EPSG:32632", Affine(2, 0, -4e5, 0, -2, -5e6), marks=pytest.mark.catalogue(71)
        ),
        pytest.param(
            "EPSG:32632", Affine(-2, 0, 4e5, 0, -2, 5e6), marks=pytest.mark.catalogue(71)
        ),
        pytest.param(
            "EPSG:32632", Affine(2, 0, 4e5, 0, -7.3, 5e6), marks=pytest.mark.catalogue(72)
        ),
        pytest.param(
            "EPSG:4326", Affine(1e-9, 0, 7.5, 0, -1e-9, 51.25), marks=pytest.mark.catalogue(72)
        ),
        pytest.param(
            MARS, Affine(1e-4, 0, 137.4, 0, -1e-4, -4.6), marks=pytest.mark.catalogue(74)
        ),
        pytest.param(
            "ESRI:54030", Affine(30, 0, 1e6, 0, -30, 5e6), marks=pytest.mark.catalogue(74)
        ),
        pytest.param(
            "EPSG:4326", Affine(1e-2, 0, 179.75, 0, -1e-2, -16), marks=pytest.mark.catalogue(75)
        ),
    ],
)  # fmt: skip
def test_the_grid_is_copied(bench: Bench, crs: Any, transform: Affine) -> None:
    write_raster(Path("x.tif"), VALUES, crs=crs, transform=transform)
    bench.refined("x.tif", expected=VALUES)


@pytest.mark.catalogue(74)
@pytest.mark.parametrize("crs", [LOCAL, GEOSTATIONARY])
def test_a_crs_that_a_geotiff_barely_holds(bench: Bench, crs: str) -> None:
    write_raster(Path("x.tif"), VALUES, crs=CRS.from_user_input(crs))
    with rasterio.open("x.tif") as dataset:
        assert dataset.crs
    bench.refined("x.tif", expected=VALUES)


@pytest.mark.catalogue(69, 75)
def test_areas_in_degrees_are_those_on_the_ground(bench: Bench) -> None:
    """A hundredth of a degree across the antimeridian, at the equator."""
    transform = Affine(1e-3, 0, 179.995, 0, -1e-3, 0.005)
    write_raster(Path("m.tif"), np.ones((10, 10), np.uint8), crs="EPSG:4326", transform=transform)
    result = bench.run("vectorize", "m.tif", "-o", "v.gpkg", "--min-area", 1e6)
    assert result.exit_code == 0, result.output
    (area,) = geopandas.read_file("v.gpkg").area_m2
    assert area == pytest.approx(1113.2 * 1105.7, rel=1e-3)
    result = bench.run("vectorize", "m.tif", "-o", "w.gpkg", "--min-area", 1.3e6)
    assert result.exit_code == 0 and len(geopandas.read_file("w.gpkg")) == 0


@pytest.mark.catalogue(73)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_control_points_alone(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES, crs=None, transform=None)
    points = [
        GroundControlPoint(row, col, 7 + col / 1e3, 51 - row / 1e3, 5)
        for row, col in ((0, 0), (0, 50), (30, 0), (30, 50))
    ]
    with rasterio.open("x.tif", "r+") as dataset:
        dataset.gcps = (points, CRS.from_epsg(4326))
    bench.refined("x.tif", expected=VALUES, warned=["control points or RPCs only"])


@pytest.mark.catalogue(73)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rpcs_alone(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES, crs=None, transform=None)
    numbers = [1.0] + [0.0] * 19
    with rasterio.open("x.tif", "r+") as dataset:
        dataset.rpcs = RPC(
            height_off=1, height_scale=2, lat_off=3, lat_scale=4, line_off=5, line_scale=6,
            long_off=7, long_scale=8, samp_off=9, samp_scale=10, err_bias=1, err_rand=2,
            line_den_coeff=numbers, line_num_coeff=numbers,
            samp_den_coeff=numbers, samp_num_coeff=numbers,
        )  # fmt: skip
    bench.refined("x.tif", expected=VALUES, warned=["control points or RPCs only"])


@pytest.mark.catalogue(76)
@pytest.mark.parametrize("meaning", ["Area", "Point"])
def test_the_point_of_a_pixel_moves_nothing(bench: Bench, meaning: str) -> None:
    write_raster(Path("x.tif"), VALUES, tags={"AREA_OR_POINT": meaning})
    with rasterio.open("x.tif") as dataset:
        assert dataset.transform == NORTH_UP
    bench.refined("x.tif", expected=VALUES)


@pytest.mark.catalogue(77)
@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (Affine(2, 0, 4e5, 0, 0, 5e6), "to a line or point"),
        (Affine(1, 2, 4e5, 2, 4, 5e6), "to a line or point"),
        (Affine(float("nan"), 0, 4e5, 0, -2, 5e6), "not finite"),
        (Affine(2, 0, float("inf"), 0, -2, 5e6), "not finite"),
    ],
)
def test_a_transform_that_maps_to_nothing(bench: Bench, transform: Affine, text: str) -> None:
    write_raster(Path("x.tif"), VALUES, transform=transform)
    line = bench.refine_refused(3, text, "x.tif")
    assert "gdal_edit.py -a_ullr" in line


@pytest.mark.catalogue(78)
def test_a_crs_that_cannot_be_parsed(bench: Bench) -> None:
    write_raster(Path("x.tif"), VALUES, crs=None)
    Path("x.tif.aux.xml").write_text("<PAMDataset><SRS>PROJCS[broken</SRS></PAMDataset>")
    line = bench.refine_refused(3, "the metadata cannot be understood", "x.tif")
    assert "missing , or ]" in line and "remove or mend x.tif.aux.xml" in line
    write_raster(Path("m.tif"), (VALUES > 0.5).astype(np.uint8), crs=None)
    Path("x.tif.aux.xml").rename("m.tif.aux.xml")
    bench.refused(3, "remove or mend m.tif.aux.xml", "vectorize", "m.tif")
