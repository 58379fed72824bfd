"""What is done to polygons besides drawing them: simplified, smoothed, measured."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from rasterio.transform import Affine
from scipy import ndimage
from shapely import affinity

from geothresh import vectorize
from geothresh.vector import spill as module
from geothresh.vector.polygons import rectangles, simplified
from geothresh.vector.spill import StoredGeometries, spilling, wkb_of
from geothresh.vector.units import MapUnits
from tests.support.polygons import SHEARED, TRANSFORMS, polygons_of, random_mask, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.mark.parametrize("epsg", [32633, 2263, 4326])
def test_simplified_outlines_stay_valid_and_change_little(tmp_path: Path, epsg: int) -> None:
    mask = np.asarray(ndimage.gaussian_filter(random_mask(8, 90, 90, 0.5) * 1.0, 2) > 0.5, np.uint8)
    transform = Affine(1e-4, 0, 11, 0, -1e-4, 60) if epsg == 4326 else TRANSFORMS["north-up"]
    path = write(tmp_path / "mask.tif", mask, crs=f"EPSG:{epsg}", transform=transform)
    tolerance = 8.0  # metres
    full, _ = polygons_of(path)
    coarse, _ = polygons_of(path, simplify=tolerance)
    assert len(coarse.geometry) == len(full.geometry)
    assert shapely.is_valid(coarse.geometry).all()
    assert not shapely.is_empty(coarse.geometry).any()
    corners = shapely.get_num_coordinates
    assert corners(coarse.geometry).sum() < 0.7 * corners(full.geometry).sum()
    units = MapUnits.of(CRS.from_epsg(epsg).to_wkt())
    # What a corner takes or gives is less than a square of the tolerance.
    dropped = corners(full.geometry) - corners(coarse.geometry)
    changed = units.areas(shapely.symmetric_difference(full.geometry, coarse.geometry))
    assert (changed <= dropped * tolerance**2 * 1.01 + 1e-6).all()
    np.testing.assert_allclose(coarse.area, units.areas(coarse.geometry))


def pairs(geometry: Any, predicate: str) -> set[tuple[int, int]]:
    one, other = shapely.STRtree(geometry).query(geometry, predicate=predicate)
    return {(a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True) if a < b}


@given(seed=st.integers(0, 2**20), density=st.floats(0.3, 0.95), tolerance=st.floats(0.1, 500))
def test_simplifying_pinched_polygons_keeps_them_valid(
    folder: Path, seed: int, density: float, tolerance: float
) -> None:
    path = write(folder / "pinched.tif", random_mask(seed, 25, 25, density), transform=SHEARED)
    full, _ = polygons_of(path)
    coarse, _ = polygons_of(path, simplify=tolerance)
    assert len(coarse.geometry) == len(full.geometry)
    assert shapely.is_valid(coarse.geometry).all()
    assert (coarse.area > 0).all()
    # None overlaps another, and those that touched still do: in a corner, as 4-connected ones do.
    assert pairs(coarse.geometry, "intersects") == pairs(full.geometry, "intersects")
    for one, other in pairs(coarse.geometry, "intersects"):
        common = shapely.intersection(coarse.geometry[one], coarse.geometry[other])
        assert shapely.area(common) < 1e-6


def test_what_simplifying_would_lose_stays_as_it_was() -> None:
    thin = np.array([shapely.box(0, 0, 100, 1)], dtype=object)
    units = MapUnits.of(CRS.from_epsg(32633).to_wkt())
    assert not shapely.is_empty(simplified(thin, 1000.0, units)).any()


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 135.0, 179.0])
def test_the_rotated_rectangle_of_a_rectangle_is_itself(degrees: float) -> None:
    """A landslide 200 m long and 40 m wide, that leads from south to north before it is turned."""
    upright = shapely.box(500_000, 6_000_000, 500_040, 6_000_200)
    # shapely turns against the clock, a bearing with it.
    turned = np.array([affinity.rotate(upright, -degrees)])
    length, width, orientation = rectangles(turned, MapUnits.of(CRS.from_epsg(32633).to_wkt()))
    assert (length[0], width[0]) == pytest.approx((200, 40))
    assert orientation[0] == pytest.approx(degrees, abs=1e-6)


def test_directions_next_to_the_axis_are_told_apart() -> None:
    long = shapely.box(-1, -1000, 1, 1000)
    turned = np.array([shapely.affinity.rotate(long, angle) for angle in (0.001, 0.0, -0.001)])
    _, _, orientation = rectangles(turned, MapUnits.of(CRS.from_epsg(32633).to_wkt()))
    assert orientation == pytest.approx([179.999, 0, 0.001], abs=1e-6)


def test_rectangles_are_in_metres_whatever_the_coordinates() -> None:
    geographic = MapUnits.of(CRS.from_epsg(4326).to_wkt())
    # At 60 degrees north a degree of longitude is half as long as one of latitude.
    east = shapely.box(10.0, 60.0, 10.004, 60.0005)
    length, width, orientation = rectangles(np.array([east]), geographic)
    assert length[0] == pytest.approx(0.004 * 55_800, rel=0.01)
    assert width[0] == pytest.approx(0.0005 * 111_412, rel=0.01)
    assert orientation[0] == pytest.approx(90)
    none = rectangles(np.array([], dtype=object), geographic)
    assert [len(part) for part in none] == [0, 0, 0]


def test_compactness_is_that_of_the_polygon(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = 1  # a square
    mask[20, 2:58] = 1  # a thread
    batch, _ = polygons_of(write(tmp_path / "shapes.tif", mask))
    assert batch.compactness[0] == pytest.approx(np.pi / 4)
    assert batch.compactness[1] == pytest.approx(4 * np.pi * 56 / 114**2)


@given(
    seed=st.integers(0, 2**20),
    density=st.floats(0.2, 0.95),
    blur=st.sampled_from([0, 0, 1.0, 2.0]),
)
def test_smoothing_moves_little_and_keeps_what_touches(
    folder: Path, seed: int, density: float, blur: float
) -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random((25, 25)), blur)
    mask = (field <= np.quantile(field, density)).astype(np.uint8)
    path = write(folder / "smooth.tif", mask, transform=Affine(10, 0, 5e5, 0, -10, 6e6))
    full, _ = polygons_of(path)
    smooth, _ = polygons_of(path, smooth=True)
    assert len(smooth.geometry) == len(full.geometry)
    assert shapely.is_valid(smooth.geometry).all() and not shapely.is_empty(smooth.geometry).any()
    np.testing.assert_array_equal(smooth.first_pixel, full.first_pixel)
    apart = shapely.hausdorff_distance(
        shapely.boundary(full.geometry), shapely.boundary(smooth.geometry)
    )
    # Half of a pixel of 10 m, and what of an edge lies between two moved points.
    assert apart.max() <= 7.1
    assert pairs(smooth.geometry, "intersects") == pairs(full.geometry, "intersects")
    for one, other in pairs(smooth.geometry, "intersects"):
        assert shapely.area(shapely.intersection(smooth.geometry[one], smooth.geometry[other])) < 1


@given(seed=st.integers(0, 2**20), density=st.floats(0.2, 0.9), least=st.sampled_from([0.0, 250.0]))
def test_smoothed_some_at_a_time_they_are_as_all_at_once(
    folder: Path, seed: int, density: float, least: float
) -> None:
    path = write(folder / "parts.tif", random_mask(seed, 25, 25, density), transform=SHEARED)
    pixels, _ = polygons_of(path, min_area=least)
    whole, _ = polygons_of(path, min_area=least, smooth=True)
    with pytest.MonkeyPatch.context() as patch, spilling(folder / "a.gpkg") as spill:
        patch.setattr(module, "_POINTS", 40)
        parts, _ = polygons_of(path, min_area=least, smooth=True, spill=spill)
        assert isinstance(parts.geometry, StoredGeometries)
        np.testing.assert_array_equal(
            shapely.to_wkb(parts.geometry[:]), wkb_of(whole.geometry, slice(None))
        )
    for name in ("area", "perimeter", "compactness", "length", "width", "orientation"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    # Corners in which polygons that are there meet are those that stay; the naive twin counts them.
    rings = shapely.get_rings(pixels.geometry[:])
    points = np.concatenate([np.empty((0, 2)), *(shapely.get_coordinates(r)[:-1] for r in rings)])
    places, count = np.unique(points, axis=0, return_counts=True)
    stays = {tuple(one) for one in np.round(places[count > 1], 6).tolist()}
    moved = {tuple(one) for one in np.round(shapely.get_coordinates(whole.geometry[:]), 6).tolist()}
    assert stays <= moved


def test_a_smooth_disc_is_rounder_than_its_pixels(tmp_path: Path) -> None:
    row, col = np.indices((80, 80))
    disc = (np.hypot(row - 40, col - 40) < 30).astype(np.uint8)
    path = write(tmp_path / "disc.tif", disc, transform=SHEARED)
    batches = [polygons_of(path, smooth=s)[0] for s in (False, True)]
    pixels, smooth = (batch.geometry[0] for batch in batches)
    assert smooth.area == pytest.approx(pixels.area, rel=0.01)
    plain = write(tmp_path / "plain.tif", disc)
    assert polygons_of(plain, smooth=True)[0].compactness[0] > 0.97
    assert polygons_of(plain)[0].compactness[0] < 0.7


def test_an_interruption_while_shapes_are_drawn_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator of shapes holds a GDAL environment, which has to go before those around it."""
    path = write(tmp_path / "mask.tif", random_mask(1, 60, 60, 0.5))

    def interrupted(outlines: Iterator[Any], **options: Any) -> Any:
        next(iter(outlines))
        raise KeyboardInterrupt

    unheard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)
    monkeypatch.setattr("geothresh.vector.drawing.make_polygons", interrupted)
    with pytest.raises(KeyboardInterrupt), rasterio.Env():
        vectorize(path, tmp_path / "v.gpkg")
    gc.collect()
    assert unheard == []
