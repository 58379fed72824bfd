"""From images to confidences: by the engine of `refine`, and without what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from geothresh.api.predict_base import predict_base
from geothresh.base.config import BaseConfig
from geothresh.base.networks import build_network
from geothresh.base.predictor import BaseSource, PictureReader, predict_picture
from geothresh.cli import main
from geothresh.errors import GeothreshWarning, InputError, ModelError, OutputError, UsageError
from geothresh.mosaic import Sink, mosaic
from geothresh.nn.modelfile import BASE, save_model
from geothresh.options import BaseTiling
from geothresh.raster.image import open_image
from geothresh.raster.writing import RasterWriter
from geothresh.tiling import TileGrid
from geothresh.types import BoolArray, Float32Array, UInt8Array
from geothresh.windows import PixelWindow
from tests.support.cli_runner import runner
from tests.support.flat import grouped
from tests.support.imagery import image_set, in_one_pass, road_image
from tests.support.outputs import without_sides
from tests.support.rasters import NORTH_UP, write_raster

QUICK: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


class BrightnessRefiner:
    """Pointwise: the weighted mean of the three bands, so that tiles cannot matter."""

    name, digest, patch = "brightness", "", 16
    shares = np.array([0.5, 0.3, 0.2], np.float32)

    def __call__(self, tiles: Float32Array) -> Float32Array:
        assert tiles.ndim == 4 and tiles.shape[1] == 3
        return np.asarray(np.einsum("bchw,c->bhw", tiles, self.shares), np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = BaseConfig(network="linknet", encoder="mobilenet_v2")
    path = tmp_path_factory.mktemp("model") / "base.safetensors"
    save_model(
        path,
        kind=BASE,
        tensors=build_network(config).state_dict(),
        config=config,
        training={"data": {"train": []}},
    )
    return path


def picture(height: int, width: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def read(path: Path) -> UInt8Array:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    overlap=st.sampled_from([0, 16, 32]),
    blend=st.sampled_from(["hann", "gaussian", "linear", "crop"]),
    batch_size=st.integers(1, 5),
    flat=st.booleans(),
)
def test_tiles_of_a_pointwise_network_are_the_whole_image(
    height: int, width: int, overlap: int, blend: Any, batch_size: int, flat: bool
) -> None:
    image = picture(height, width)
    if flat:
        image[:] = image[0, 0]
    found = np.full((height, width), np.nan, np.float32)

    def store(window: PixelWindow, confidence: Float32Array, valid: BoolArray) -> None:
        assert valid.all()
        found[window.slices()] = confidence

    reader = PictureReader(image)
    grid = TileGrid(size=reader.size, tile=48, overlap=overlap, patch=16)
    mosaic(reader, BrightnessRefiner(), Sink(store), grid=grid, blend=blend, batch_size=batch_size)
    expected = image.astype(np.float32) / 255 @ BrightnessRefiner.shares
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(height=st.integers(1, 90), width=st.integers(1, 90))
def test_a_picture_in_tiles_is_the_picture_in_one_pass(height: int, width: int) -> None:
    image = picture(height, width)
    one = predict_picture(BrightnessRefiner(), image, BaseTiling(tile_size=96, overlap=16))
    tiled = predict_picture(BrightnessRefiner(), image, BaseTiling(tile_size=32, overlap=16))
    assert one.shape == (height, width)
    np.testing.assert_allclose(one.astype(int), tiled.astype(int), atol=1)
    expected = image.astype(np.float32) @ BrightnessRefiner.shares
    np.testing.assert_allclose(one, expected, atol=0.51)


def test_a_scene_is_what_the_network_says_on_the_same_grid(model: Path, tmp_path: Path) -> None:
    image = picture(96, 96)
    turned = NORTH_UP @ NORTH_UP.rotation(33)
    scene = write_raster(tmp_path / "s.tif", image.transpose(2, 0, 1), transform=turned)
    result = predict_base(
        scene, model=model, **grouped(tile_size=96, overlap=32, **QUICK, base=True)
    )
    assert result.output == tmp_path / "s_confidence.tif"
    expected = in_one_pass(BaseSource.find(model, **QUICK).load(), image)
    np.testing.assert_allclose(read(result.output) / 254, expected, atol=0.6 / 254)
    with rasterio.open(result.output) as made, rasterio.open(scene) as given:
        assert (made.transform, made.crs, made.shape) == (given.transform, given.crs, given.shape)
        assert (made.nodata, made.dtypes) == (255, ("uint8",))
        tags = made.tags()
    assert tags["GEOTHRESH_MODEL"] == "base" and tags["GEOTHRESH_BANDS"] == "1,2,3"
    assert tags["GEOTHRESH_MODEL_SHA256"] == result.model_sha256
    assert result.pixels == 96 * 96
    assert result.foreground == np.count_nonzero(expected >= 0.5)


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha"])
def test_missing_data_is_not_predicted_and_does_not_leak(
    model: Path, tmp_path: Path, kind: str
) -> None:
    """Whatever the file holds where data is missing, the confidence elsewhere is the same."""
    holes = np.zeros((80, 100), bool)
    holes[:30, 20:60] = holes[50:, 90:] = True
    outputs = []
    for seed in (1, 2):
        image = picture(80, 100).transpose(2, 0, 1).copy()
        image[:, holes] = (
            7 if kind == "nodata" else picture(80, 100, seed).transpose(2, 0, 1)[:, holes]
        )
        # Data all the same: not all three bands hold the value.
        image[:2, 40, 70] = 7
        how: dict[str, Any] = {}
        if kind == "nodata":
            how["nodata"] = 7
        elif kind == "mask":
            how["mask"] = ~holes
        else:
            image = np.concatenate([image, 255 * ~holes[None]]).astype(np.uint8)
            how["alpha"] = "YES"
        scene = write_raster(tmp_path / f"s{seed}.tif", image, **how)
        result = predict_base(
            scene, model=model, **grouped(tile_size=64, overlap=32, **QUICK, base=True)
        )
        assert result.pixels == np.count_nonzero(~holes)
        outputs.append(read(result.output))
    assert ((outputs[0] == 255) == holes).all()
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_the_fill_is_the_mean_of_the_network_s_images(tmp_path: Path) -> None:
    image = picture(40, 40).transpose(2, 0, 1)
    mask = np.ones((40, 40), bool)
    mask[:, 10:20] = False
    scene = write_raster(tmp_path / "s.tif", image, mask=mask)
    with open_image(scene, fill=(0.1, 0.2, 0.3)) as opened:
        values, valid = opened.read(PixelWindow(row=0, col=0, height=40, width=40))
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_allclose(values[:, :, 15], np.repeat([[0.1], [0.2], [0.3]], 40, axis=1))
    np.testing.assert_allclose(values[:, mask], image[:, mask] / 255, atol=1e-7)


def test_bands_go_by_their_colours(tmp_path: Path) -> None:
    image = picture(20, 20).transpose(2, 0, 1)
    infrared = np.zeros((1, 20, 20), np.uint8)
    scene = write_raster(
        tmp_path / "s.tif",
        np.concatenate([image[::-1], infrared]),
        photometric="MINISBLACK",
    )
    with pytest.raises(InputError, match="4 bands and does not say"):
        open_image(scene)
    with rasterio.open(scene, "r+") as dataset:
        dataset.colorinterp = [
            ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined,
        ]  # fmt: skip
    with open_image(scene) as opened:
        assert opened.spec.bands == (3, 2, 1)
        values, _ = opened.read(PixelWindow(row=0, col=0, height=20, width=20))
    np.testing.assert_allclose(values, image / 255, atol=1e-7)


def test_a_scene_without_data_is_told(model: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "s.tif", np.zeros((3, 20, 20), np.uint8), nodata=0)
    with pytest.warns(GeothreshWarning, match="no data at all"):
        result = predict_base(scene, model=model, **grouped(**QUICK, base=True))
    assert (read(result.output) == 255).all() and result.pixels == 0


def test_what_is_no_image_in_eight_bits_is_refused(model: Path, tmp_path: Path) -> None:
    deep = write_raster(tmp_path / "deep.tif", np.zeros((3, 20, 20), np.uint16))
    with pytest.raises(InputError, match="uint16.*gdal_translate -ot Byte"):
        predict_base(deep, model=model, **grouped(**QUICK, base=True))
    grey = write_raster(tmp_path / "grey.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(InputError, match="holds 1 band; an image needs three"):
        predict_base(grey, model=model, **grouped(**QUICK, base=True))
    scene = write_raster(tmp_path / "s.tif", np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(UsageError, match="no uint8 value is 300"):
        predict_base(scene, model=model, **grouped(nodata=300, **QUICK, base=True))
    with pytest.raises(UsageError, match="tile size 100: must be a positive multiple"):
        predict_base(scene, model=model, **grouped(tile_size=100, **QUICK, base=True))
    with pytest.raises(UsageError, match="output is the input"):
        predict_base(scene, scene, model=model, **grouped(overwrite=True, **QUICK, base=True))
    assert not (tmp_path / "s_confidence.tif").exists()


def test_a_model_of_the_other_kind_is_refused_either_way(
    model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    scene = write_raster(tmp_path / "s.tif", np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(ModelError, match="is a ThreshNet"):
        predict_base(scene, model=tiny_model, **grouped(**QUICK, base=True))
    confidence = write_raster(tmp_path / "c.tif", np.zeros((20, 20), np.uint8))
    result = runner().invoke(main, ["refine", str(confidence), "-m", str(model)])
    assert result.exit_code == 5
    assert "is a base network, which is for `geothresh base predict`" in result.stderr


def test_a_folder_gives_a_folder_of_maps(model: Path, tmp_path: Path) -> None:
    folder = image_set(tmp_path / "d", 3, side=70)
    output = tmp_path / "maps"
    arguments = ["base", "predict", str(folder), "-m", str(model), "-o", str(output)]
    arguments += ["--device", "cpu", "--precision", "fp32"]
    result = runner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{output}\n"
    assert sorted(file.name for file in output.iterdir()) == ["r0.png", "r1.png", "r2.png"]
    expected = in_one_pass(BaseSource.find(model, **QUICK).load(), road_image(101, 70)[0])
    found = np.asarray(Image.open(output / "r1.png"))
    np.testing.assert_allclose(found, expected * 255, atol=0.51)
    again = runner().invoke(main, arguments)
    assert again.exit_code == 4 and "exists already" in again.stderr
    done = runner().invoke(main, [*arguments, "--overwrite", "--json"])
    assert json.loads(done.stdout)["images"] == 3


def test_the_working_directory_is_a_folder_with_a_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_set(tmp_path / "d", 1, side=70)
    (folder / "sub").mkdir()
    for here, named in ((folder, "."), (folder / "sub", "..")):
        monkeypatch.chdir(here)
        result = predict_base(named, model=model, **grouped(**QUICK, overwrite=True, base=True))
        assert result.output == tmp_path / "d_confidence"
    assert (tmp_path / "d_confidence" / "r0.png").is_file()


def test_what_a_folder_cannot_have_is_said_before_the_first_map(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for k in range(40):
        Image.fromarray(picture(33, 35)).save(folder / f"a{k}.png")
    with pytest.raises(UsageError, match="tile size 1000"):
        predict_base(folder, model=model, **grouped(tile_size=1000, **QUICK, base=True))
    with pytest.raises(UsageError, match="`creation_options` is for a GeoTIFF"):
        predict_base(
            folder, model=model, **grouped(creation_options={"TILED": "YES"}, **QUICK, base=True)
        )
    assert not list(tmp_path.rglob("*_confidence"))
    before = (folder / "a0.png").read_bytes()
    compared = []
    samefile = Path.samefile
    monkeypatch.setattr(
        Path, "samefile", lambda one, other: compared.append(one) or samefile(one, other)
    )
    with pytest.raises(UsageError, match="the output is the input"):
        predict_base(folder, folder, model=model, **grouped(overwrite=True, **QUICK, base=True))
    monkeypatch.setattr(
        "geothresh.api.predict_base.predict_picture", lambda *_, **__: picture(9, 9)[..., 0]
    )
    assert (
        predict_base(folder, tmp_path / "maps", model=model, **grouped(**QUICK, base=True)).images
        == 40
    )
    assert len(compared) <= 40 and (folder / "a0.png").read_bytes() == before


def test_one_picture_gives_one_map(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(40, 50)).save(path)
    result = predict_base(path, model=model, **grouped(**QUICK, base=True))
    assert result.output == tmp_path / "a_confidence.png"
    assert np.asarray(Image.open(result.output)).shape == (40, 50)
    with pytest.raises(OutputError, match="exists"):
        predict_base(path, model=model, **grouped(**QUICK, base=True))
    with pytest.raises(UsageError, match="for a GeoTIFF"):
        predict_base(path, model=model, **grouped(nodata=0, overwrite=True, **QUICK, base=True))


@pytest.mark.slow
def test_workers_give_the_same(model: Path, tmp_path: Path) -> None:
    image = picture(150, 170).transpose(2, 0, 1)
    scene = write_raster(tmp_path / "s.tif", image, nodata=3)
    how: dict[str, Any] = {"model": model, "tile_size": 64, "overlap": 32, **QUICK}
    here = predict_base(scene, tmp_path / "a.tif", **grouped(**how, base=True))
    there = predict_base(scene, tmp_path / "b.tif", **grouped(workers=1, **how, base=True))
    np.testing.assert_array_equal(read(here.output), read(there.output))


def test_an_interrupted_prediction_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "x.tif", picture(700, 60).transpose(2, 0, 1))
    out = tmp_path / "out"
    out.mkdir()
    how: dict[str, Any] = {"model": model, "tile_size": 64, "overlap": 32, **QUICK}
    whole = predict_base(scene, tmp_path / "whole.tif", **grouped(**how, base=True))

    def full(self: RasterWriter) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(RasterWriter, "finish", full)
    with pytest.raises(OutputError, match="no room") as caught:
        predict_base(scene, out / "c.tif", **grouped(**how, base=True))
    assert caught.value.__notes__[0].startswith("the same command goes on from 2 finished strips")
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"blend \(hann, now crop\)"):
        predict_base(scene, out / "c.tif", **grouped(blend="crop", **how, base=True))
    told: list[tuple[int, int]] = []
    result = predict_base(
        scene, out / "c.tif", progress=lambda *at: told.append(at), **grouped(**how, base=True)
    )
    assert told == []  # nothing was left to predict
    assert without_sides(out) == ["c.tif"]
    assert result.output.read_bytes() == whole.output.read_bytes()
    assert (result.pixels, result.foreground) == (whole.pixels, whole.foreground)
