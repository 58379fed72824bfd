"""GDAL's options wherever a raster is opened and read: in this process and in workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio._env import get_gdal_config

from geothresh.mosaic import RasterReader, Sink, Workers, mosaic
from geothresh.raster.dataset import OpenRaster, open_raster
from geothresh.raster.image import open_image
from geothresh.raster.mask import open_mask
from geothresh.raster.paths import find_raster
from geothresh.raster.scene import SceneSpec, open_scene
from geothresh.tiling import TileGrid
from geothresh.windows import PixelWindow
from tests.support.fakes import FakeSource
from tests.support.rasters import write_raster

WANTED = {
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_DRIVER_PATH": "disable",
    "GDAL_HTTP_TIMEOUT": "30",
    "GDAL_HTTP_CONNECTTIMEOUT": "8",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "10",
    "PROJ_NETWORK": "OFF",
}


def options() -> dict[str, str]:
    """What GDAL would go by at this point of this thread."""
    return {name: str(get_gdal_config(name, normalize=False)) for name in WANTED}


@pytest.fixture(autouse=True)
def hostile_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's own variables say does not matter."""
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    monkeypatch.setenv("PROJ_NETWORK", "ON")


def test_the_options_hold_wherever_a_raster_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = write_raster(tmp_path / "x.tif", np.zeros((32, 32), np.uint8))
    colour = write_raster(tmp_path / "i.tif", np.zeros((3, 32, 32), np.uint8), photometric="RGB")
    seen: list[dict[str, str]] = []
    opening, decoding = rasterio.open, OpenRaster._decoded

    def spied_open(*arguments: object, **more: object) -> object:
        seen.append(options())
        return opening(*arguments, **more)

    def spied_read(self: OpenRaster, window: PixelWindow, read: object) -> object:
        def looking(*given: object) -> object:
            seen.append(options())
            return read(*given)

        return decoding(self, window, looking)

    monkeypatch.setattr(rasterio, "open", spied_open)
    monkeypatch.setattr(OpenRaster, "_decoded", spied_read)
    with open_scene(grey) as scene, scene.spec.open() as again:
        again.read(PixelWindow(row=0, col=0, height=32, width=32))
    with open_image(colour) as image:
        image.read(PixelWindow(row=0, col=0, height=32, width=32))
    with open_mask(grey) as mask:
        mask.read(PixelWindow(row=0, col=0, height=32, width=32))
    open_raster(find_raster(grey), lambda *_: seen.append(options()))
    assert len(seen) >= 8
    assert all(one == WANTED for one in seen), seen


@pytest.mark.parametrize(
    ("allow", "name"),
    [(False, "https://127.0.0.1/x.tif"), (True, "/vsicurl/http://127.0.0.1/x.vrt")],
)
def test_what_the_user_named_is_all_that_a_remote_raster_brings(allow: bool, name: str) -> None:
    assert find_raster(name, allow_vrt=allow).access == {"remote": True, "offline": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSpec:
    """Opens the scene in a worker, and writes down GDAL's options there."""

    scene: SceneSpec
    told: Path

    def open(self) -> RasterReader:
        opening = rasterio.open

        def spied(*arguments: object, **more: object) -> object:
            self.told.write_text(repr(options()))
            return opening(*arguments, **more)

        rasterio.open = spied
        try:
            return self.scene.open()
        finally:
            rasterio.open = opening


def test_the_options_hold_in_workers(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "x.tif", np.zeros((32, 32), np.uint8))
    told = tmp_path / "told"
    with open_scene(path) as scene:
        mosaic(
            scene,
            FakeSource(kind="identity"),
            Sink(lambda *_: None),
            grid=TileGrid(size=scene.size, tile=32, overlap=0, patch=16),
            where=Workers(1),
            reader_spec=WatchedSpec(scene=scene.spec, told=told),
        )
    assert told.read_text() == repr(WANTED)
