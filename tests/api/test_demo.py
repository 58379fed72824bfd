"""The demo: what it writes, what it counts, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import rasterio
from click.testing import Result
from make_pictures import network_picture
from PIL import Image
from shapely import Point

from geothresh.api.demo import OUTPUTS, _busiest, _pieces
from geothresh.cli import main
from geothresh.colours import ADDED, FOREGROUND, NO_DATA, REMOVED
from geothresh.raster.pictures import change_picture, shrunk
from tests.support.cli_runner import runner
from tests.support.outputs import without_sides


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    directory = tmp_path_factory.mktemp("demo") / "here"
    return directory, runner().invoke(main, ["demo", "-o", str(directory), "--json"])


@pytest.mark.slow
def test_the_demo_writes_what_it_says(run: tuple[Path, Result]) -> None:
    directory, result = run
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert {said[field] for field in OUTPUTS} == {
        str(directory / name) for name in without_sides(directory)
    }
    with (
        rasterio.open(directory / "scene.tif") as scene,
        rasterio.open(directory / "scene_mask.tif") as mask,
        rasterio.open(directory / "scene_refined.tif") as refined,
    ):
        for raster in (mask, refined):
            assert (raster.shape, raster.transform, raster.crs) == (
                scene.shape,
                scene.transform,
                scene.crs,
            )
        valid = scene.read_masks(1) > 0
        before = valid & (scene.read(1) >= 127.5)
        after = mask.read(1)
        assert np.array_equal(after != 255, valid)
    assert said["valid_pixels"] == valid.sum()
    assert said["road_before"] == before.sum()
    assert said["road_after"] == (after == 1).sum()
    assert said["road_after"] - said["road_before"] == said["added"] - said["removed"]
    assert said["model"] == "roads"
    areas = geopandas.read_file(directory / "roads.gpkg", layer="roads")
    assert said["pieces_after"] > said["polygons"] == len(areas) > 0 and areas.is_valid.all()
    lines = geopandas.read_file(directory / "road_lines.gpkg", layer="road_lines")
    assert said["lines"] == len(lines) > 50 and said["bridges"] == lines.bridged.sum() > 0
    assert said["lines_length"] == pytest.approx(lines.length.sum())
    nodes = geopandas.read_file(directory / "road_lines.gpkg", layer="road_lines_nodes")
    # A ring stands alone, or meets others where it closes: there is a node then.
    begins = lines.geometry.apply(lambda line: Point(line.coords[0]))
    alone = lines.is_ring & ~begins.isin(list(nodes.geometry))
    assert nodes.degree.sum() == 2 * (~alone).sum()


@pytest.mark.slow
def test_the_project_names_what_is_there(run: tuple[Path, Result]) -> None:
    directory, _ = run
    root = ElementTree.parse(directory / "demo.qgs").getroot()
    sources = [one.text for one in root.iter("datasource")]
    assert sources == [one.get("source") for one in root.iter("layer-tree-layer")]
    for layer, source in zip(root.iter("maplayer"), sources, strict=True):
        file, _, table = source.partition("|layername=")
        assert (directory / file).is_file()
        if table:
            assert table in geopandas.list_layers(directory / file).name.tolist()
            assert layer.find("renderer-v2") is not None
        else:
            assert layer.find("pipe/rasterrenderer") is not None
    kinds = [one.get("type") for one in root.iter("maplayer")]
    assert kinds[:2] == ["vector", "vector"] and kinds[-1] == "raster"


@pytest.mark.slow
def test_the_pictures_of_the_documentation_are_those_of_now(run: tuple[Path, Result]) -> None:
    directory, _ = run
    docs = Path(__file__).parents[2] / "docs"
    now = {
        "before_after.png": np.asarray(Image.open(directory / "before_after.png")),
        "network.png": network_picture(directory / "roads.gpkg", directory / "road_lines.gpkg"),
    }
    for name, picture in now.items():
        kept = np.asarray(Image.open(docs / name))
        assert kept.shape == picture.shape, name
        # Another processor may round a pixel at the threshold the other way.
        differs = (np.abs(kept.astype(int) - picture) > 8).any(axis=-1).mean()
        assert differs < 0.002, f"docs/{name}: {differs:.2%} of it is other now: make pictures"


@pytest.mark.slow
def test_the_packaged_scene_tells_its_scale(run: tuple[Path, Result]) -> None:
    with rasterio.open(run[0] / "scene.tif") as scene:
        assert scene.scales == (1 / 255,) and scene.descriptions == ("confidence",)


@pytest.mark.slow
def test_the_demo_replaces_its_files_only_when_told_so(run: tuple[Path, Result]) -> None:
    directory, _ = run
    times = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    result = runner().invoke(main, ["demo", "-o", str(directory)])
    assert result.exit_code == 4
    assert "--overwrite" in result.stderr and len(result.stderr.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == times


def test_the_demo_needs_a_place_to_write(tmp_path: Path) -> None:
    result = runner().invoke(main, ["demo", "-o", str(tmp_path / "none" / "there")])
    assert result.exit_code == 4
    assert "cannot be made" in result.stderr


def test_pieces_are_joined_by_their_sides() -> None:
    assert _pieces(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]], bool)) == 3


def test_the_busiest_windows_do_not_overlap() -> None:
    changed = np.zeros((40, 60), bool)
    changed[10:20, 10:20] = True
    changed[25:33, 40:48] = True
    (first, second) = _busiest(changed, 10, count=2)
    assert first == (10, 10)
    row, col = second
    assert changed[row : row + 10, col : col + 10].sum() == 64


def test_colours_of_change() -> None:
    before = np.array([[True, True, False, False]])
    after = np.array([[True, False, True, False]])
    valid = np.array([[True, True, True, False]])
    picture = change_picture(before, after, valid)
    assert [tuple(pixel) for pixel in picture[0]] == [FOREGROUND, REMOVED, ADDED, NO_DATA]
    assert shrunk(np.full((5, 7, 3), 9, np.uint8), 3).tolist() == [[[9, 9, 9]] * 2]
