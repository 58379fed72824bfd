"""Ground sample distance of rasters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from pyproj.enums import TransformDirection
from rasterio.transform import Affine

from geothresh.geobox import IDENTITY, GeoBox
from geothresh.raster import pixelsize
from geothresh.raster.pixelsize import longitude_latitude
from geothresh.windows import RasterSize


def wkt(code: str | int) -> str:
    return str(CRS.from_user_input(code).to_wkt())


PLACES = [
    # Metres, feet of two kinds, degrees, grads, a height beside, another datum's shift, a sphere.
    (32632, 9.0, 52.0),
    (2249, -71.0, 42.0),
    (2222, -111.9, 33.4),
    (4326, -60.0, -85.0),
    (4807, 5.0, 45.0),
    (4979, 179.99, 10.0),
    ("EPSG:25832+7837", 9.0, 52.0),
    ("+proj=tmerc +lon_0=9 +ellps=bessel +towgs84=598,73,418,0,0,0,6 +type=crs", 9.0, 50.0),
    ("+proj=laea +R=6371229 +type=crs", 20.0, 40.0),
    # Of the pole every longitude is one.
    (3031, 0.0, -90.0),
    (3413, 0.0, 90.0),
]


def at(x: float, y: float, dx: float, dy: float, turn: float = 0.0) -> tuple[float, ...]:
    transform = Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(dx, -dy)
    return tuple(transform)[:6]


def pixel_size(
    crs: str, transform: tuple[float, ...], *, height: int, width: int
) -> tuple[float, float] | None:
    size = RasterSize(height=height, width=width)
    found = pixelsize.pixel_size(GeoBox(size=size, transform=transform, crs=crs))
    return None if found is None else (found.x, found.y)


@pytest.mark.parametrize("turn", [0.0, 33.0, 90.0, 180.0])
def test_a_projected_raster_in_metres(turn: float) -> None:
    found = pixel_size(wkt(32632), at(431_234.5, 5_812_345, 0.5, 0.7, turn), height=90, width=70)
    assert found == pytest.approx((0.5, 0.7), rel=1e-3)  # UTM's own scale is 0.9996 at the middle


def test_feet_are_converted() -> None:
    # Massachusetts Mainland in US survey feet, and the same place in metres.
    feet = pixel_size(wkt(2249), at(775_000, 2_956_000, 2, 2), height=100, width=100)
    assert feet == pytest.approx((0.6096, 0.6096), rel=1e-3)


@pytest.mark.parametrize("latitude", [0.0, 45.0, -60.0])
def test_degrees_at_the_centre(latitude: float) -> None:
    step, n = 1e-5, 1000
    transform = at(8.0, latitude + step * n / 2, step, step)
    x, y = pixel_size(wkt(4326), transform, height=n, width=n) or (0, 0)
    # A sphere of the same size is right to half a percent.
    metres = math.radians(step) * 6_371_000
    assert x == pytest.approx(metres * math.cos(math.radians(latitude)), rel=6e-3)
    assert y == pytest.approx(metres, rel=6e-3)


def test_the_centre_counts_not_the_corner() -> None:
    n, step = 10_000, 1e-3  # ten degrees from 50 to 60 degrees north
    found = pixel_size(wkt(4326), at(8.0, 60.0, step, step), height=n, width=10)
    middle = pixel_size(wkt(4326), at(8.0, 55.0, step, step), height=2, width=10)
    assert found == pytest.approx(middle, rel=1e-4)


@given(latitude=st.floats(-70, 70), size=st.floats(0.05, 30))
def test_mercator_comes_out_as_on_the_ground(latitude: float, size: float) -> None:
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(8.0, latitude)
    found = pixel_size(wkt(3857), at(x, y, size, size), height=2, width=2)
    assert found == pytest.approx((size * math.cos(math.radians(latitude)),) * 2, rel=8e-3)


def geodetic_way(code: str | int) -> tuple[CRS, Transformer, float]:
    """A CRS, the way to it from longitude and latitude of its datum, and degrees of their unit."""
    crs = CRS.from_user_input(code).to_2d()
    geodetic = crs.geodetic_crs
    assert geodetic is not None
    unit = math.degrees(geodetic.axis_info[0].unit_conversion_factor)
    return crs, Transformer.from_crs(geodetic, crs, always_xy=True), unit


@pytest.mark.parametrize(("code", "longitude", "latitude"), PLACES)
@given(metres=st.floats(0.1, 1000), turn=st.floats(0, 360))
def test_it_is_that_along_geodesics(
    code: str | int, longitude: float, latitude: float, metres: float, turn: float
) -> None:
    crs, forth, unit = geodetic_way(code)
    x, y = forth.transform(longitude / unit, latitude / unit)
    side = metres / 111_000 if crs.is_geographic else metres
    a, b, c, d, e, f = at(x, y, side, side, turn)

    found = pixel_size(wkt(code), (a, b, c - a - b, d, e, f - d - e), height=2, width=2)

    degrees = forth.transform(
        [x, x + a, x + b], [y, y + d, y + e], direction=TransformDirection.INVERSE
    )
    longitudes, latitudes = (np.asarray(one) * unit for one in degrees)
    geod = crs.get_geod()
    assert geod is not None
    expected = [
        geod.inv(longitudes[0], latitudes[0], longitudes[k], latitudes[k])[2] for k in (1, 2)
    ]
    # Coordinates of a place are known to a few nanometres.
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(("code", "longitude", "latitude"), PLACES)
def test_places_have_the_degrees_of_their_datum(
    code: str | int, longitude: float, latitude: float
) -> None:
    crs, forth, unit = geodetic_way(code)
    place = np.array([forth.transform(longitude / unit, latitude / unit)])
    box = GeoBox(size=RasterSize(height=2, width=2), crs=wkt(code))
    found = longitude_latitude(box, place)
    assert found is not None
    assert found[0, 1] == pytest.approx(latitude, abs=1e-8)
    if abs(latitude) < 90:
        assert found[0, 0] == pytest.approx(longitude, abs=1e-8)


@pytest.mark.parametrize("crs", [None, "no WKT", wkt(4978), 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_what_is_no_map_has_no_degrees(crs: str | None) -> None:
    box = GeoBox(size=RasterSize(height=2, width=2), crs=crs)
    assert longitude_latitude(box, np.zeros((1, 2))) is None


def test_places_off_the_map_have_no_degrees() -> None:
    box = GeoBox(size=RasterSize(height=2, width=2), crs=wkt(32632))
    assert longitude_latitude(box, np.full((1, 2), 1e30)) is None


def test_a_compound_crs_is_measured_by_its_plane() -> None:
    found = pixel_size(wkt("EPSG:25832+7837"), at(431_234, 5_812_345, 2, 2), height=9, width=9)
    assert found == pytest.approx((2, 2), rel=1e-3)


def test_a_local_plane_is_measured_in_its_unit() -> None:
    local = (
        'ENGCRS["site",EDATUM["here"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["foot",0.3048]]'
    )
    assert pixel_size(local, at(0, 0, 10, 10), height=5, width=5) == pytest.approx((3.048, 3.048))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("no WKT", at(0, 0, 1, 1)),
        (wkt(32632), IDENTITY),  # control points, or nothing at all
        (wkt(4978), at(0, 0, 1, 1)),  # geocentric
        (wkt(32632), at(1e30, 1e30, 1, 1)),  # nowhere on the map
    ],
)
def test_what_cannot_be_measured_is_not_known(crs: str, transform: tuple[float, ...]) -> None:
    assert pixel_size(crs, transform, height=3, width=3) is None
