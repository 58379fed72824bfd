"""Vectors of many masks are those of the whole: nothing is cut where files meet."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import geothresh
from geothresh import Centerlines, Foreground, Polygons, Reading, vectorize
from geothresh.errors import InputError, UsageError
from geothresh.geobox import GeoBox
from geothresh.vector.tile_index import IndexedRaster, write_tile_index
from geothresh.windows import PixelWindow
from tests.support.rasters import NORTH_UP, write_raster

DEMO = Path(geothresh.__file__).parent / "data/demo_scene.tif"
#: Rows and columns of files.
DOWN, ACROSS = 2, 3


def frame(path: Path) -> geopandas.GeoDataFrame:
    return pyogrio.read_dataframe(path)


def require_equal(one: Path, other: Path) -> None:
    """The same features, in the same order, with the same attributes."""
    mine, theirs = frame(one), frame(other)
    assert len(mine) == len(theirs) > 0
    assert mine.geometry.to_wkb().tolist() == theirs.geometry.to_wkb().tolist()
    left, right = (one.drop(columns="geometry") for one in (mine, theirs))
    assert left.equals(right)
    assert mine.crs == theirs.crs


def cut(source: Path, folder: Path, name: str = "p") -> list[Path]:
    """A raster as 2 x 3 files of uneven sizes, each where it lies."""
    folder.mkdir(exist_ok=True)
    files = []
    with rasterio.open(source) as dataset:
        rows = np.linspace(0, dataset.height, DOWN + 1).astype(int) + [0, 7, 0]
        cols = np.linspace(0, dataset.width, ACROSS + 1).astype(int) + [0, 5, -3, 0]
        for row in range(DOWN):
            for col in range(ACROSS):
                window = PixelWindow.between(*rows[row : row + 2], *cols[col : col + 2])
                files.append(folder / f"{name}{row}{col}.tif")
                moved = dataset.transform @ dataset.transform.translation(window.col, window.row)
                write_raster(
                    files[-1], dataset.read(1, window=window.ranges), transform=moved,
                    crs=dataset.crs, nodata=dataset.nodata,
                )  # fmt: skip
    return files


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo scene's mask, whole and in files, and its confidence likewise."""
    folder = tmp_path_factory.mktemp("demo")
    with rasterio.open(DEMO) as dataset:
        values = dataset.read(1)
        mask = (values >= 128).astype(np.uint8)
        mask[:40, :60] = 255
        place = {"transform": dataset.transform, "crs": dataset.crs}
        write_raster(folder / "mask.tif", mask, nodata=255, **place)
        write_raster(folder / "confidence.tif", values, nodata=dataset.nodata, **place)
    cut(folder / "mask.tif", folder / "masks")
    cut(folder / "confidence.tif", folder / "confidences")
    return folder


DRAWN = {
    "polygons": Polygons(),
    "smooth": Polygons(smooth=True, simplify=1.0, min_area=20),
    "lines": Centerlines(),
    "bridges": Centerlines(bridge_gaps=30, min_length=5),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_vectors_of_the_demo_scene_in_files_are_those_of_the_whole(
    demo: Path, tmp_path: Path, draw: Polygons | Centerlines
) -> None:
    whole = vectorize(
        demo / "mask.tif", tmp_path / "whole.gpkg", confidence=demo / "confidence.tif", draw=draw
    )
    many = vectorize(
        demo / "masks", tmp_path / "many.gpkg", confidence=demo / "confidences", draw=draw
    )
    assert many.features == whole.features and many.bridges == whole.bridges
    assert many.foreground_pixels == whole.foreground_pixels
    if draw is DRAWN["bridges"]:
        assert whole.bridges
    require_equal(many.output, whole.output)


def test_what_is_sieved_is_sieved_across_files(demo: Path, tmp_path: Path) -> None:
    sieve = Foreground(sieve=30, fill_holes=40)
    whole = vectorize(demo / "mask.tif", tmp_path / "whole.gpkg", foreground=sieve)
    many = vectorize(demo / "masks", tmp_path / "many.gpkg", foreground=sieve)
    require_equal(many.output, whole.output)


def test_confidences_in_files_are_cut_as_the_whole(demo: Path, tmp_path: Path) -> None:
    at = Foreground(threshold=0.6)
    whole = vectorize(demo / "confidence.tif", tmp_path / "whole.gpkg", foreground=at)
    many = vectorize(demo / "confidences", tmp_path / "many.gpkg", foreground=at)
    require_equal(many.output, whole.output)


@pytest.mark.parametrize("how", ["files", "list", "index"])
def test_masks_are_named_one_by_one_in_a_list_or_in_an_index(
    demo: Path, tmp_path: Path, how: str
) -> None:
    files = sorted((demo / "masks").glob("*.tif"))
    named: list[Path] | str | Path = files
    if how == "list":
        (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
        named = f"@{tmp_path / 'list.txt'}"
    elif how == "index":
        with rasterio.open(demo / "mask.tif") as dataset:
            size = PixelWindow.between(0, dataset.height, 0, dataset.width).size
            box = GeoBox(size=size, transform=dataset.transform[:6], crs=dataset.crs.to_wkt())
        named = tmp_path / "mask.gti.gpkg"
        rasters = [IndexedRaster(location=str(file), box=box) for file in files]
        write_tile_index(named, rasters, whole=box, dtype="uint8", nodata=255)
    whole = vectorize(demo / "mask.tif", tmp_path / "whole.gpkg")
    require_equal(vectorize(named, tmp_path / "many.gpkg").output, whole.output)


@settings(max_examples=8)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_two_cuts_give_the_polygons_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    values = (np.random.default_rng(seed).random((41, 41)) < 0.5).astype(np.uint8)
    values[0, 0] = 1
    whole = write_raster(folder / "whole.tif", values, nodata=255)
    parts = [
        write_raster(
            folder / f"{top}_{left}.tif", values[top:bottom, left:right], nodata=255,
            transform=NORTH_UP @ NORTH_UP.translation(left, top),
        )
        for top, bottom in ((0, row), (row, 41))
        for left, right in ((0, col), (col, 41))
    ]  # fmt: skip
    one = vectorize(whole, folder / "whole.gpkg").output
    require_equal(vectorize(parts, folder / "many.gpkg").output, one)


def test_what_is_foreground_is_decided_once_for_all(tmp_path: Path) -> None:
    """255 beside 1 is nodata, also where the 1 is in another file."""
    values = np.zeros((20, 40), np.uint8)
    values[5:9, 2:9], values[3:8, 25:35] = 1, 255
    parts = [
        write_raster(
            tmp_path / f"{left}.tif", values[:, left : left + 20],
            transform=NORTH_UP @ NORTH_UP.translation(left, 0),
        )
        for left in (0, 20)
    ]  # fmt: skip
    with pytest.warns(geothresh.errors.GeothreshWarning, match="255 occurs beside 1"):
        assert vectorize(parts, tmp_path / "v.gpkg").features == 1
    with pytest.warns(geothresh.errors.GeothreshWarning, match="255 is taken as foreground"):
        assert vectorize(parts[1:] * 1, tmp_path / "w.gpkg").features == 1


def test_of_many_the_output_is_named_and_the_grid_is_one(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="masks: is many masks; say with `output` where to write"):
        vectorize(demo / "masks")
    files = cut(demo / "mask.tif", tmp_path / "masks")
    off = NORTH_UP @ NORTH_UP.translation(0.5, 0)
    other = write_raster(tmp_path / "off.tif", np.ones((9, 9), np.uint8), transform=off)
    with pytest.raises(InputError, match=r"off.tif: is not on the pixel grid of .*p00.tif"):
        vectorize([*files, other], tmp_path / "v.gpkg")
    bare = write_raster(tmp_path / "bare.tif", np.ones((9, 9), np.uint8), transform=None, crs=None)
    with pytest.raises(InputError, match="bare.tif: has no georeference, so that it has no place"):
        vectorize([*files, bare], tmp_path / "v.gpkg")
    with pytest.raises(InputError, match=r"p00.tif: .*pixels, and"):
        vectorize(files, tmp_path / "v.gpkg", confidence=files[:1], reading=Reading())
    assert not list(tmp_path.glob("*.gpkg"))
