"""The blocks of code of README and docs, and the files that they speak of."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

import geothresh
from tests.support.imagery import image_set

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CRS = "EPSG:26986"
# Column and row of the demo scene where streets are dense and all pixels have data.
_STREETS = 3744, 480
_DEMO = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code."""

    language: str
    """``shell`` (that of a block without a name), ``python`` or ``text``."""
    text: str

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(language=name or "shell", text=code) for name, code in _BLOCK.findall(text)]


def lay_out(folder: Path, *, side: int = 192) -> None:
    """Write what the pages take for given: scene, area, truth, labels and folders of data."""
    left, top = 103000, 880800  # where the pages' --bounds are
    right, bottom = left + side, top - side
    with rasterio.open(_DEMO) as dataset:
        window = Window(_STREETS[0], _STREETS[1], side, side)
        values = dataset.read(1, window=window)
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8",
        "crs": _CRS, "transform": from_origin(left, top, 1, 1),
    }  # fmt: skip
    cut = np.where(values >= 128, 1, 0).astype(np.uint8)
    for name, raster in {"scene": values, "truth": cut, "labels": cut, "mask": cut}.items():
        if name != "mask" or folder.name == "training":
            with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
                file.write(raster, 1)
    picture = np.stack([values, values // 2, 255 - values])
    with rasterio.open(folder / "image.tif", "w", **profile | {"count": 3}) as file:
        file.write(picture)
    box = shapely.box(left + 8, bottom + 8, right - 40, top - 8)
    roads = [
        shapely.LineString([(left + 10, bottom + step), (right - 10, bottom + step)])
        for step in range(20, side, 60)
    ]
    _save(folder / "area.gpkg", [box])
    _save(folder / "aoi.geojson", [shapely.box(left, bottom, right, top)])
    _save(folder / "truth.gpkg", roads)
    if folder.name == "training":
        _save(folder / "roads.gpkg", roads, width=[7.0] * len(roads))
    for name in ("DATA", "coarse", "fine"):
        own = "" if name == "DATA" else f"{name}_"  # an id stands in one folder only
        data = image_set(folder / name, 6, side=96, prefix=f"{own}r")
        image_set(data, 2, side=96, prefix=f"testing_{own}")
        for network in ("unet", "linknet"):
            maps = data / "confidence" / network
            maps.mkdir(parents=True)
            for mask in data.glob("*_mask.png"):
                known = np.asarray(Image.open(mask), np.uint8)
                Image.fromarray(known // 2 + 40).save(maps / mask.name.replace("_mask", ""))


def _save(path: Path, shapes: list[shapely.Geometry], **columns: list[float]) -> None:
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=_CRS).to_file(path, layer=path.stem)
