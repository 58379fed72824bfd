"""Outputs as Cloud Optimised GeoTIFFs: the same pixels, georeference and tags, with overviews."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

import geothresh
from geothresh.errors import OutputError, UsageError
from tests.support.fakes import UnevenRefiner
from tests.support.flat import grouped
from tests.support.outputs import without_sides
from tests.support.rasters import write_raster

TILES: dict[str, Any] = {"tile_size": 64, "overlap": 16}


def values() -> np.ndarray:
    row, col = np.mgrid[:1100, :900]
    found = (0.5 + 0.45 * np.sin(row / 33.3) * np.cos(col / 29.1)).astype(np.float32)
    found[200:600, 300:900] = np.nan
    return found


@pytest.mark.parametrize(
    "options",
    [{}, {"COMPRESS": "ZSTD", "ZSTD_LEVEL": "5"}, {"BLOCKXSIZE": "256", "BLOCKYSIZE": "256"}],
)
def test_a_cog_holds_what_the_plain_file_does(tmp_path: Path, options: dict[str, str]) -> None:
    turned = Affine.translation(5e5, 5e6) @ Affine.rotation(20) @ Affine.scale(2, -2)
    scene = write_raster(tmp_path / "scene.tif", values(), transform=turned)
    files: dict[bool, list[Path]] = {}
    for cog in (False, True):
        folder = tmp_path / str(cog)
        folder.mkdir()
        geothresh.refine(
            scene,
            folder / "m.tif",
            model=UnevenRefiner(),
            **grouped(
                confidence=folder / "c.tif",
                changes=folder / "d.tif",
                creation_options=options,
                cog=cog,
                **TILES,
            ),
        )
        assert without_sides(folder) == ["c.tif", "d.tif", "m.manifest.json", "m.tif"]
        files[cog] = [folder / name for name in ("m.tif", "c.tif", "d.tif")]
    for plain, made in zip(files[False], files[True], strict=True):
        with rasterio.open(plain) as one, rasterio.open(made) as other:
            np.testing.assert_array_equal(one.read(1), other.read(1))
            assert (one.crs, one.transform, one.nodata) == (
                other.crs,
                other.transform,
                other.nodata,
            )
            assert (one.scales, one.descriptions) == (other.scales, other.descriptions)
            ours = {k: v for k, v in other.tags().items() if not k.startswith("OVR_")}
            assert one.tags() == ours
            assert other.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert other.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == options.get(
                "COMPRESS", "DEFLATE"
            )
            block = int(options.get("BLOCKXSIZE", 512))
            assert other.block_shapes == [(block, block)]
            assert other.overviews(1)[0] == 2
            if one.name.endswith(("m.tif", "d.tif")):
                assert one.colormap(1) == other.colormap(1)
    with rasterio.open(files[True][0], overview_level=0) as half:
        assert set(np.unique(half.read(1))) <= {0, 1, 255}


def test_control_points_stay(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values(), crs=None, transform=None)
    points = [
        GroundControlPoint(row, col, 5e5 + col, 5e6 - row) for row in (0, 900) for col in (0, 800)
    ]
    with rasterio.open(scene, "r+") as dataset:
        dataset.gcps = (points, "EPSG:32632")
    done = geothresh.refine(scene, model=UnevenRefiner(), **grouped(cog=True, **TILES))
    with rasterio.open(done.mask) as dataset:
        found, crs = dataset.gcps
        assert crs == "EPSG:32632" and len(found) == 4
        assert (found[3].row, found[3].col, found[3].x) == (900, 800, 5e5 + 800)


@pytest.mark.parametrize("options", [{"TILED": "NO"}, {"BLOCKXSIZE": "256"}, {"LZMA_PRESET": "3"}])
def test_what_makes_no_cog_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, str]
) -> None:
    scene = write_raster(tmp_path / "scene.tif", values()[:70, :70])
    refiner = UnevenRefiner()
    with pytest.raises(UsageError, match="`cog`: a COG has"):
        geothresh.refine(
            scene, model=refiner, **grouped(cog=True, creation_options=options, **TILES)
        )
    assert not refiner.tiles


def test_a_copy_that_goes_wrong_is_noticed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", values()[:200, :300])
    made = rasterio.shutil.copy

    def damaged(source: Path, target: Path, **options: Any) -> None:
        made(source, target, **options)
        with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
            part = dataset.read(1)
            part[7, 9] ^= 1
            dataset.write(part, 1)

    monkeypatch.setattr(rasterio.shutil, "copy", damaged)
    with pytest.raises(OutputError, match="could not be written"):
        geothresh.refine(
            scene, tmp_path / "m.tif", model=UnevenRefiner(), **grouped(cog=True, **TILES)
        )
    assert os.listdir(tmp_path) == ["scene.tif"]
