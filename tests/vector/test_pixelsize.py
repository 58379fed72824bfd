"""Ground sample distance of rasters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from rasterio.transform import Affine

from geothresh.geobox import IDENTITY, GeoBox
from geothresh.vector import pixelsize
from geothresh.windows import RasterSize


def wkt(code: str | int) -> str:
    return str(CRS.from_user_input(code).to_wkt())


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
