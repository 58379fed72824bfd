"""Whole files of many layouts, to be damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.shutil
import shapely

from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import BASE, save_model
from geothresh.nn.packaged import find_model
from tests.support.rasters import NORTH_UP, write_raster

SIDE = 150
"""Of the scenes: several blocks in each layout, and few tiles for the network."""
SMALL = {"tiled": True, "blockxsize": 64, "blockysize": 64}


def _confidence() -> np.ndarray:
    """Roads in noise, in [0, 1]."""
    rng = np.random.default_rng(0)
    values = rng.random((SIDE, SIDE)) * 0.3
    values[40:46] = values[:, 90:97] = 0.9
    return values.astype(np.float32)


def scenes(folder: Path) -> list[Path]:
    """Confidence rasters, each with all that it needs in one file."""
    values = _confidence()
    grey = np.rint(values * 255).astype(np.uint8)
    mask = np.ones(grey.shape, np.uint8)
    mask[:30, :50] = 0
    made: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "strips": (grey, {"blockysize": 8}),
        "one_strip": (grey, {"blockysize": SIDE}),
        "tiles": (grey, SMALL),
        "deflate": (grey, {**SMALL, "compress": "deflate", "predictor": 2}),
        "lzw": (grey, {"blockysize": 16, "compress": "lzw"}),
        "zstd": (grey, {**SMALL, "compress": "zstd"}),
        "jpeg": (grey, {**SMALL, "compress": "jpeg"}),
        "packbits": (grey, {"compress": "packbits"}),
        "big": (grey, {**SMALL, "BIGTIFF": "YES", "compress": "deflate"}),
        "big_endian": (values, {"ENDIANNESS": "BIG", "compress": "deflate", "predictor": 3}),
        "float": (values, {**SMALL, "nodata": -9999.0, "compress": "deflate"}),
        "float64": (values.astype(np.float64), {"nodata": float("nan")}),
        "masked": (grey, {**SMALL, "mask": mask, "compress": "deflate"}),
        "alpha": (np.stack([grey, mask * 255]), {**SMALL, "alpha": "YES"}),
        "bits": ((values > 0.5).astype(np.uint8), {"nbits": 1}),
        "scaled": ((values * 10_000).astype(np.uint16), {"scale": (1e-4, 0.0), **SMALL}),
        "no_crs": (grey, {"crs": None, "transform": None}),
    }
    paths = [
        write_raster(folder / f"{name}.tif", array, **options)
        for name, (array, options) in made.items()
    ]
    cog = folder / "cog.tif"
    rasterio.shutil.copy(folder / "tiles.tif", cog, driver="COG", compress="deflate", blocksize=128)
    palette = write_raster(folder / "palette.tif", grey)
    with rasterio.open(palette, "r+") as dataset:
        dataset.write_colormap(1, {n: (n, 0, 0, 255) for n in range(256)})
    colour = write_raster(folder / "colour.tif", np.stack([grey] * 3), photometric="RGB")
    return [*paths, cog, palette, colour]


def masks(folder: Path) -> list[Path]:
    """Masks as `refine` writes them, and as others do."""
    truth = (_confidence() > 0.5).astype(np.uint8)
    return [
        write_raster(folder / "mask.tif", truth, nodata=255, compress="deflate", **SMALL),
        write_raster(folder / "mask_high.tif", truth * 255, compress="lzw"),
        write_raster(folder / "mask_wide.tif", truth.astype(np.int32), **SMALL),
    ]


def models(folder: Path) -> list[Path]:
    """A small model and the packaged one."""
    import torch

    from geothresh.nn.network import ThreshNet

    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16)
    small = folder / "small.safetensors"
    save_model(small, tensors=ThreshNet(config).state_dict(), config=config, training={"n": 1})
    packaged = folder / "roads.safetensors"
    packaged.write_bytes(find_model("roads").read_bytes())
    return [small, packaged]


def bases(folder: Path) -> list[Path]:
    """A base network, whose library takes many seconds to load."""
    from geothresh.base.config import BaseConfig
    from geothresh.base.networks import build_network

    base_config = BaseConfig(network="linknet", encoder="mobilenet_v2")
    base = folder / "base.safetensors"
    save_model(
        base,
        kind=BASE,
        tensors=build_network(base_config).state_dict(),
        config=base_config,
        training={"data": {"train": []}},
    )
    return [base]


def vectors(folder: Path) -> list[Path]:
    """Lines in each format that is read; the GeoPackage also has a layer of polygons."""
    left, top = NORTH_UP.c, NORTH_UP.f
    lines = [
        shapely.LineString([(left, top - 2 * row), (left + 300, top - 2 * row - 20)])
        for row in range(10, 140, 10)
    ]
    wkb = shapely.to_wkb(np.array(lines))
    made = []
    for name, driver in (
        ("lines.gpkg", "GPKG"),
        ("lines.geojson", "GeoJSON"),
        ("lines.fgb", "FlatGeobuf"),
        ("ways.shp", "ESRI Shapefile"),
    ):
        pyogrio.raw.write(
            folder / name, wkb, [np.arange(len(lines), dtype=float)], ["width"], layer="lines",
            driver=driver, geometry_type="LineString",
            crs="EPSG:4326" if driver == "GeoJSON" else "EPSG:32632",
        )  # fmt: skip
        made.append(folder / name)
    return made


def geopackages(folder: Path) -> list[Path]:
    """A GeoPackage of one layer, and one with styles and several layers."""
    square = shapely.to_wkb(np.array([shapely.box(500_000, 4_999_000, 500_100, 4_999_100)]))
    made = []
    for name, layers in (("one.gpkg", ["x"]), ("three.gpkg", ["x", "y", "out"])):
        for number, layer in enumerate(layers):
            pyogrio.raw.write(
                folder / name, square, [np.array([1.0])], ["area"], layer=layer, driver="GPKG",
                geometry_type="Polygon", crs="EPSG:32632", append=number > 0,
            )  # fmt: skip
        made.append(folder / name)
    return made


KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "scenes": scenes,
    "masks": masks,
    "models": models,
    "bases": bases,
    "vectors": vectors,
    "geopackages": geopackages,
}


def make_all(folder: Path, *, base: bool = True) -> dict[str, list[str]]:
    """Write all of them, and a list of what there is; without `base` no base networks."""
    found = {}
    for kind, make in KINDS.items():
        place = folder / kind
        place.mkdir(parents=True)
        found[kind] = [str(path) for path in make(place)] if base or kind != "bases" else []
    (folder / "seeds.json").write_text(json.dumps(found))
    return found


def parts_of(path: Path) -> Iterator[Path]:
    """The files that go with one: of a shapefile, all of its name."""
    yield from sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix == ".shp" else [path]
