"""A part of a scene is refined as if the whole were, and the rest is nodata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import geometry_mask
from rasterio.transform import Affine

import geothresh
from geothresh import Many, Outputs, Refining, Writing
from geothresh.errors import GeothreshWarning, InputError, UsageError
from tests.support.fakes import FakeSource, Recognisable, UnevenRefiner
from tests.support.flat import grouped
from tests.support.rasters import NORTH_UP, write_raster

TILES: dict[str, Any] = {"tile_size": 64, "overlap": 16}
TRANSFORMS = {
    "north-up": NORTH_UP,
    "south-up": Affine(2.0, 0.0, 500_000.0, 0.0, 2.0, 5_000_000.0),
    "rotated": Affine.translation(5e5, 5e6) @ Affine.rotation(33) @ Affine.scale(2, -3),
}
HEIGHT, WIDTH = 210, 330


def values() -> np.ndarray:
    row, col = np.mgrid[:HEIGHT, :WIDTH]
    found = (0.5 + 0.45 * np.sin(row / 13.3) * np.cos(col / 9.1)).astype(np.float32)
    found[20:60, 30:90] = np.nan
    return found


def read(path: Path | None) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def in_map(transform: Affine, corners: list[tuple[float, float]]) -> shapely.Polygon:
    return shapely.Polygon([transform @ corner for corner in corners])


def write_area(path: Path, *shapes: shapely.Polygon, crs: str = "EPSG:32632") -> Path:
    geopandas.GeoDataFrame(geometry=list(shapes), crs=crs).to_file(path)
    return path


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(TRANSFORMS)),
    corners=st.lists(
        st.tuples(st.floats(-40, WIDTH + 40), st.floats(-40, HEIGHT + 40)), min_size=3, max_size=6
    ),
)
def test_inside_an_area_all_is_as_in_the_whole_scene(
    tmp_path_factory: pytest.TempPathFactory, name: str, corners: list[tuple[float, float]]
) -> None:
    shape = in_map(TRANSFORMS[name], corners).convex_hull
    folder = tmp_path_factory.mktemp("area")
    scene = write_raster(folder / "scene.tif", values(), transform=TRANSFORMS[name])
    outputs = {"confidence": folder / "c.tif", "changes": folder / "d.tif"}
    geothresh.refine(scene, folder / "m.tif", model=UnevenRefiner(), **grouped(**outputs, **TILES))
    expected = [read(folder / f"{name}.tif") for name in "mcd"]
    if shape.area == 0 or not shape.intersects(in_map(TRANSFORMS[name], [
        (0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)
    ])):  # fmt: skip
        return
    area = write_area(folder / "area.gpkg", shape)
    refiner = UnevenRefiner()
    done = geothresh.refine(
        scene,
        folder / "m.tif",
        model=refiner,
        **grouped(aoi=area, overwrite=True, **outputs, **TILES),
    )
    inside = geometry_mask(
        [shape], out_shape=(HEIGHT, WIDTH), transform=TRANSFORMS[name], invert=True
    )
    for whole, name in zip(expected, "mcd", strict=True):
        np.testing.assert_array_equal(
            read(folder / f"{name}.tif"), np.where(inside, whole, 255), err_msg=name
        )
    assert done.valid_pixels == np.count_nonzero(inside & np.isfinite(values()))
    assert done.tiles_refined == refiner.tiles
    assert done.tiles_refined + done.tiles_skipped == done.tiles


def test_bounds_are_a_rectangle_of_the_map(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values())
    left, bottom, right, top = 500_100.0, 4_999_700.0, 500_400.0, 4_999_900.0
    refiner = UnevenRefiner()
    done = geothresh.refine(
        scene, model=refiner, **grouped(bounds=(left, bottom, right, top), **TILES)
    )
    mask = read(done.mask)
    inside = np.zeros(mask.shape, bool)
    inside[50:150, 50:200] = True
    whole = read(
        geothresh.refine(scene, tmp_path / "w.tif", model=UnevenRefiner(), **grouped(**TILES)).mask
    )
    np.testing.assert_array_equal(mask, np.where(inside, whole, 255))
    assert refiner.tiles == done.tiles_refined < done.tiles
    with rasterio.open(done.mask) as dataset:
        assert dataset.tags()["GEOTHRESH_AREA"].startswith("500100,4999700,500400,4999900 ")


@pytest.mark.slow
def test_workers_refine_the_same_part(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values())
    options: dict[str, Any] = {
        "model": FakeSource(kind="uneven"), "bounds": (500_050, 4_999_650, 500_500, 4_999_950),
        **TILES,
    }  # fmt: skip
    geothresh.refine(scene, tmp_path / "threads.tif", **grouped(**options))
    geothresh.refine(scene, tmp_path / "workers.tif", **grouped(workers=1, **options))
    assert (tmp_path / "threads.tif").read_bytes() == (tmp_path / "workers.tif").read_bytes()


def test_an_area_in_another_crs_is_reprojected_and_it_is_said(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values())
    shape = in_map(NORTH_UP, [(50.2, 40.2), (200.2, 60.2), (120.2, 170.2)])
    here = write_area(tmp_path / "here.gpkg", shape)
    (moved,) = geopandas.GeoSeries([shape], crs="EPSG:32632").to_crs("EPSG:4326")
    there = write_area(tmp_path / "there.geojson", moved, crs="EPSG:4326")
    one = geothresh.refine(
        scene, tmp_path / "a.tif", model=UnevenRefiner(), **grouped(aoi=here, **TILES)
    )
    with pytest.warns(GeothreshWarning, match="reprojected"):
        two = geothresh.refine(
            scene, tmp_path / "b.tif", model=UnevenRefiner(), **grouped(aoi=there, **TILES)
        )
    assert np.count_nonzero(read(one.mask) != read(two.mask)) < 20


def test_a_run_of_another_area_is_not_gone_on_with(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", np.tile(values(), (12, 1)))
    area: dict[str, Any] = {"bounds": (500_050, 4_990_000, 500_500, 5_000_000)}
    with pytest.raises(KeyboardInterrupt):
        geothresh.refine(
            scene, tmp_path / "m.tif", model=Recognisable(stop_at=40), **grouped(**area, **TILES)
        )
    assert (tmp_path / ".m.tif.geothresh").exists()
    with pytest.raises(UsageError, match="area"):
        geothresh.refine(scene, tmp_path / "m.tif", model=Recognisable(), **grouped(**TILES))
    done = geothresh.refine(
        scene, tmp_path / "m.tif", model=Recognisable(), **grouped(**area, **TILES)
    )
    whole = geothresh.refine(
        scene, tmp_path / "w.tif", model=Recognisable(), **grouped(**area, **TILES)
    )
    assert read(done.mask).tobytes() == read(whole.mask).tobytes()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"bounds": (5, 2, 1, 4)}, UsageError, "each smaller than its opposite"),
        ({"bounds": (0, 0, float("nan"), 4)}, UsageError, "each smaller than its opposite"),
        ({"bounds": (1, 2, 3, 4)}, InputError, "outside of the scene, which has 500000,"),
        ({"bounds": (5e5 - 9, 5e6 - 9, 5e5, 5e6)}, InputError, "outside of the scene"),
        ({"bounds": (5e5, 4e6, 6e5, 6e6), "aoi": "x"}, UsageError, "give one of them"),
        ({"aoi": "elsewhere.gpkg"}, InputError, "none of its 1 features"),
        ({"aoi": "none.gpkg"}, InputError, "none.gpkg"),
    ],
)
def test_areas_that_are_none_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    scene = write_raster(tmp_path / "scene.tif", values())
    write_area(tmp_path / "elsewhere.gpkg", shapely.box(0, 0, 9, 9))
    if "aoi" in options:
        options = {**options, "aoi": tmp_path / options["aoi"]}
    refiner = UnevenRefiner()
    with pytest.raises(error, match=said):
        geothresh.refine(scene, tmp_path / "m.tif", model=refiner, **grouped(**options, **TILES))
    assert not refiner.tiles and not (tmp_path / "m.tif").exists()


def test_an_area_without_data_is_told(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values())
    with pytest.warns(GeothreshWarning, match="no data in the area 500080,"):
        done = geothresh.refine(
            scene,
            model=UnevenRefiner(),
            **grouped(bounds=(500_080, 4_999_900, 500_100, 4_999_940), **TILES),
        )
    assert (read(done.mask) == 255).all() and done.tiles_refined == 0


def test_a_scene_without_georeference_has_no_areas(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values(), crs=None, transform=None)
    with pytest.raises(InputError, match="has no georeference, so that no area"):
        geothresh.refine(scene, model=UnevenRefiner(), **grouped(bounds=(0, 0, 9, 9), **TILES))


@pytest.mark.parametrize("named", ["area.gpkg", "./area.gpkg", "link.gpkg"])
def test_no_output_replaces_the_area_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = write_raster(Path("scene.tif"), values())
    area = write_area(Path("area.gpkg"), in_map(NORTH_UP, [(0, 0), (50, 0), (50, 50)]))
    Path("link.gpkg").symlink_to(area)
    before = area.read_bytes()
    options = grouped(**TILES, aoi=area, overwrite=True, model=UnevenRefiner())
    with pytest.raises(UsageError, match="the output is the input"):
        geothresh.refine(scene, "m.tif", **options, outputs=Outputs(vector=named))
    with pytest.raises(UsageError, match="the output is the input"):
        geothresh.refine_many([scene], "out", **options, many=Many(vector=named))
    assert area.read_bytes() == before and not Path("m.tif").exists()


def test_no_output_replaces_the_calibration_or_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = write_raster(Path("scene.tif"), values())
    calibration, index = Path("c.html"), Path("list.gpkg")
    calibration.write_text("{}")
    index.write_text("scene.tif\n")
    writing = Writing(overwrite=True)
    with pytest.raises(UsageError, match="the output is the input"):
        geothresh.refine(
            scene, "m.tif", outputs=Outputs(report=calibration), writing=writing,
            refining=Refining(calibration=calibration),
        )  # fmt: skip
    with pytest.raises(UsageError, match="the output is the input"):
        geothresh.refine_many(
            ["@list.gpkg"], "out", writing=writing, many=Many(vector=index), model=UnevenRefiner()
        )
    assert calibration.read_text() == "{}" and index.read_text() == "scene.tif\n"
