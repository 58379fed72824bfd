"""Scenes whose pixels are not of the size that the model was trained on."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from geothresh import refine, refine_array
from geothresh.cli import main
from geothresh.errors import GeothreshWarning, UsageError
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import load_weights, read_card, save_model
from geothresh.options import Compute
from geothresh.run.models import choose_model
from tests.support.cli_runner import runner
from tests.support.flat import TILES, grouped
from tests.support.rasters import write_raster
from tests.support.roads import make_roads

OPTIONS: dict[str, Any] = {"tile_size": 64, "overlap": 16, "device": "cpu", "precision": "fp32"}


def values() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    confidence = rng.random((70, 90), np.float32)
    confidence[:20, :30] = np.nan
    return confidence


def scene(folder: Path, metres: float, name: str = "scene.tif", **options: Any) -> Path:
    place = Affine(metres, 0, 500_000, 0, -metres, 5_000_000)
    return write_raster(folder / name, values(), **{"transform": place, **options})


def pixels(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize(
    ("metres", "ratio"), [(0.125, "4 times smaller"), (1.6, "1.6 times larger")]
)
def test_another_resolution_is_warned_about(
    tmp_path: Path, half_model: Path, metres: float, ratio: str
) -> None:
    with pytest.warns(GeothreshWarning, match=f"{ratio}.*0.5 to 1 m.*leave out `resolution`"):
        result = refine(
            scene(tmp_path, metres),
            model=half_model,
            **grouped(resolution="native", **OPTIONS),
        )
    assert result.resampling == 1
    assert result.pixel_size == pytest.approx((metres, metres), rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"metres": 0.34},
        {"metres": 1.49},
        {"metres": 9.0, "transform": None, "crs": None},
        {"metres": 9.0, "crs": None},
    ],
)
def test_a_like_resolution_or_none_is_no_matter(
    tmp_path: Path, half_model: Path, options: dict[str, Any]
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refine(
            scene(tmp_path, **options),
            model=half_model,
            **grouped(resolution="native", **OPTIONS),
        )
    assert not [each for each in said if "times" in str(each.message)]


def test_feet_are_feet(tmp_path: Path, half_model: Path) -> None:
    place = Affine(2, 0, 775_000, 0, -2, 2_956_000)
    result = refine(
        scene(tmp_path, 2, crs="EPSG:2249", transform=place),
        model=half_model,
        **grouped(**OPTIONS),
    )
    assert result.pixel_size == pytest.approx((0.61, 0.61), rel=1e-2)


@pytest.mark.parametrize(("metres", "resampling"), [(0.25, 0.5), (0.3, 16 / 27), (3.0, 16 / 5)])
def test_the_output_has_the_grid_of_the_scene(
    tmp_path: Path,
    half_model: Path,
    rotated_transform: Affine,
    metres: float,
    resampling: float,
) -> None:
    turned = Affine.translation(500_000, 5_000_000) @ Affine.rotation(33)
    path = scene(tmp_path, 1, transform=turned @ Affine.scale(metres, -metres))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GeothreshWarning)
        result = refine(
            path,
            model=half_model,
            **grouped(confidence=tmp_path / "c.tif", **OPTIONS),
        )
    assert result.resampling == pytest.approx(resampling)
    for written in (result.mask, tmp_path / "c.tif"):
        with rasterio.open(path) as before, rasterio.open(written) as after:
            assert (after.width, after.height) == (before.width, before.height)
            assert after.transform == before.transform and after.crs == before.crs
            p, q = after.tags()["GEOTHRESH_RESAMPLING"].split("/")
            assert int(p) / int(q) == result.resampling
            assert np.array_equal(after.read(1) == 255, np.isnan(before.read(1)))
    array = refine_array(
        values(), model=half_model, ground_sample_distance=metres, **grouped(**OPTIONS)
    )
    stored = pixels(tmp_path / "c.tif")
    known = stored != 255
    np.testing.assert_allclose(stored[known] / 254, array[known], atol=0.51 / 254)
    plain = refine_array(
        values(), model=half_model, ground_sample_distance=metres,
        **grouped(resolution="native", **OPTIONS),
    )  # fmt: skip
    assert not np.allclose(plain, array, atol=0.01, equal_nan=True)


def test_within_the_range_nothing_is_resampled(tmp_path: Path, half_model: Path) -> None:
    path, written = scene(tmp_path, 0.7), [tmp_path / "plain.tif", tmp_path / "matched.tif"]
    for output, resolution in zip(written, ("native", "auto"), strict=True):
        result = refine(path, output, model=half_model, **grouped(resolution=resolution, **OPTIONS))
        assert result.resampling == 1
    assert written[0].read_bytes() == written[1].read_bytes()


def test_oblong_pixels_are_matched_by_their_area(tmp_path: Path, half_model: Path) -> None:
    # At 60 degrees north a degree of longitude is half as long as one of latitude.
    step = 1e-6 / 111.3 * 1000
    place = Affine(step, 0, 8, 0, -step, 60)
    path = scene(tmp_path, 1, crs="EPSG:4326", transform=place)
    result = refine(path, model=half_model, **grouped(**OPTIONS))
    assert result.pixel_size == pytest.approx((0.5, 1.0), rel=1e-2)
    assert result.resampling == 1
    coarse = scene(tmp_path, 1, "c.tif", crs="EPSG:4326", transform=place @ Affine.scale(4, 4))
    result = refine(coarse, model=half_model, **grouped(**OPTIONS))
    # 2 x 4 m: sides of 2.83 m on average, 2.83 of the model's; 16 / 6 is nearest.
    assert result.resampling == pytest.approx(16 / 6)


def test_a_flat_map_is_refined_as_at_the_resolution_of_the_model(half_model: Path) -> None:
    """Away from the frames of tiles, whose place on the ground differs."""
    refined = refine_array(
        np.full((300, 300), 0.5, np.float32),
        model=half_model,
        ground_sample_distance=0.25,
        **grouped(**OPTIONS),
    )
    whole = refine_array(
        np.full((150, 150), 0.5, np.float32), model=half_model, **grouped(**OPTIONS)
    )
    assert refined[128:160, 128:160].mean() == pytest.approx(whole[64:80, 64:80].mean(), abs=0.01)


def test_workers_get_the_same_by_mail(half_model: Path) -> None:
    there = Compute(device="cpu", precision="fp32", workers=2)
    chosen = choose_model(half_model, there, tta="d4", resolution="auto", metres=0.25)
    source = pickle.loads(pickle.dumps(chosen.refiner))
    assert source == chosen.refiner and hash(source) == hash(chosen.refiner)
    assert source.patch == chosen.raster_patch == 32 and not callable(source)
    tiles = np.random.default_rng(0).random((1, 128, 128), np.float32)
    here = choose_model(
        half_model, replace(there, workers=0), tta="d4", resolution="auto", metres=0.25
    ).refiner
    assert np.array_equal(source.load()(tiles), here.load()(tiles))


def test_what_cannot_be_matched_is_refused_at_once(
    tmp_path: Path, half_model: Path, tiny_model: Path
) -> None:
    options = grouped(resolution=1.0, **OPTIONS)
    with pytest.raises(UsageError, match="9 times larger than the model's: at most 8"):
        refine(scene(tmp_path, 9), model=tiny_model, **options)
    nowhere = scene(tmp_path, 9, "nowhere.tif", transform=None, crs=None)
    with pytest.raises(UsageError, match="not known.*georeference it"):
        refine(nowhere, model=half_model, **options)
    with pytest.raises(UsageError, match="`ground_sample_distance` 0.0: give a number above 0"):
        refine_array(values(), model=half_model, ground_sample_distance=0.0, **grouped(**OPTIONS))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nowhere.tif", "scene.tif"]


def test_metres_are_what_the_model_reads(tmp_path: Path, tiny_model: Path) -> None:
    """Whatever its card tells, or does not."""
    result = refine(scene(tmp_path, 0.25), model=tiny_model, **grouped(resolution=0.5, **OPTIONS))
    assert result.resampling == 0.5


def test_far_beyond_the_range_the_nearest_is_read_and_warned_about(
    tmp_path: Path, half_model: Path
) -> None:
    with pytest.warns(GeothreshWarning, match="100 m are 1e\\+02 times larger"):
        result = refine(scene(tmp_path, 100), model=half_model, **grouped(**OPTIONS))
    assert result.resampling == 8


def test_without_a_place_on_the_ground_the_width_of_the_foreground_decides(
    tmp_path: Path,
) -> None:
    import torch

    from geothresh.nn.network import ThreshNet

    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16)
    wide = tmp_path / "wide.safetensors"
    torch.manual_seed(0)
    save_model(
        wide, tensors=ThreshNet(config).state_dict(), config=config,
        training={"ground_sample_distance": [1, 1], "widths": [2, 5]},
    )  # fmt: skip
    confidence = np.full((70, 90), 0.2, np.float32)
    confidence[30:40] = 0.9
    nowhere = write_raster(tmp_path / "n.tif", confidence, transform=None, crs=None)
    assert refine(nowhere, model=wide, **grouped(**OPTIONS)).resampling == 0.5
    array = refine_array(confidence, model=wide, **grouped(**OPTIONS))
    same = refine_array(confidence, model=wide, ground_sample_distance=0.5, **grouped(**OPTIONS))
    assert np.array_equal(array, same)
    # Infinities are missing data, no foreground: their square is as wide as a tile.
    confidence[:28, :28] = np.nan
    holed = refine_array(confidence, model=wide, **grouped(**OPTIONS))
    confidence[:28, :28] = np.inf
    again = refine_array(confidence, model=wide, **grouped(**OPTIONS))
    np.testing.assert_array_equal(again, holed)
    # The ground decides where it is known.
    assert refine(scene(tmp_path, 1), model=wide, **grouped(**OPTIONS)).resampling == 1


def test_foreground_stays_down_to_the_models_keep_threshold(
    tmp_path: Path, tiny_model: Path
) -> None:
    card = read_card(tiny_model)
    kept = tmp_path / "kept.safetensors"
    tensors = load_weights(tiny_model, card.config)
    save_model(kept, tensors=tensors, config=card.config, training={**card.training, "keep": 0.0})
    path = scene(tmp_path, 1)
    cut = grouped(threshold=0.9, **OPTIONS)
    plain = refine(path, tmp_path / "p.tif", model=tiny_model, **cut)
    result = refine(path, tmp_path / "k.tif", model=kept, **cut)
    cut = grouped(threshold=0.9, keep_threshold=0.0, **OPTIONS)
    asked = refine(path, tmp_path / "a.tif", model=tiny_model, **cut)
    before = values() >= np.float32(0.9)
    expected = np.where(before, 1, pixels(plain.mask))
    expected = np.where(np.isnan(values()), 255, expected)
    assert (pixels(plain.mask) != expected).any()
    assert np.array_equal(pixels(result.mask), expected)
    assert np.array_equal(pixels(asked.mask), expected)
    assert (plain.keep_threshold, result.keep_threshold, asked.keep_threshold) == (None, 0.0, 0.0)
    with rasterio.open(result.mask) as dataset:
        assert dataset.tags()["GEOTHRESH_KEEP_THRESHOLD"] == "0"


def test_tile_and_overlap_are_the_models_pixels(tmp_path: Path, half_model: Path) -> None:
    with pytest.raises(UsageError, match="tile size 60: must be a positive multiple of the patch"):
        refine(
            scene(tmp_path, 0.25),
            model=half_model,
            **grouped(**{**OPTIONS, "tile_size": 60}),
        )


def test_the_command_says_what_it_resampled(tmp_path: Path, half_model: Path) -> None:
    path = scene(tmp_path, 0.25)
    result = runner().invoke(
        main,
        [
            "refine",
            str(path),
            "-m",
            str(half_model),
            "--match-resolution",
            "--tta",
            "d4",
            *TILES,
        ],
    )
    assert result.exit_code == 0, result.output
    assert "model half, TTA d4" in result.stderr
    assert "a pixel of 0.25 x 0.25 m is read as 0.5 of the model's, of 0.5 x 0.5 m" in result.stderr
    with rasterio.open(tmp_path / "scene_mask.tif") as dataset:
        assert dataset.tags()["GEOTHRESH_TTA"] == "d4"


def test_json_tells_resolution_and_changes(tmp_path: Path, half_model: Path) -> None:
    path = scene(tmp_path, 0.7)
    result = runner().invoke(main, ["refine", str(path), "-m", str(half_model), "--json", *TILES])
    facts = json.loads(result.stdout)
    assert facts["tta"] == "none" and facts["resampling"] == 1
    assert facts["pixel_size"] == pytest.approx([0.7, 0.7], rel=1e-3)
    assert facts["changed_share"] == facts["changed_pixels"] / facts["valid_pixels"] > 0


def test_info_and_model_show_tell_the_resolution(tmp_path: Path, half_model: Path) -> None:
    told = runner().invoke(main, ["info", str(scene(tmp_path, 0.25))])
    assert "0.25 x 0.25 m on the ground" in told.stdout
    nowhere = scene(tmp_path, 9, "nowhere.tif", transform=None, crs=None)
    facts = json.loads(runner().invoke(main, ["info", str(nowhere), "--json"]).stdout)
    assert facts["pixel_size"] is None
    shown = runner().invoke(main, ["model", "show", str(half_model)])
    assert "ground_sample_distance: 0.5, 1.0" in shown.stdout


def test_the_packaged_model_knows_its_resolution() -> None:
    from geothresh.nn.refiner import ModelSource

    scope = ModelSource.find("roads").scope
    assert scope.theme == "roads and streets"
    assert scope.pixels is not None and scope.widths is not None
    assert (scope.pixels.least, scope.pixels.greatest) == (0.8, 2.08)


@pytest.mark.parametrize(("given", "kept"), [("0.5", [0.5, 0.5]), ("0.3,1", [0.3, 1.0])])
def test_train_keeps_what_it_is_told(tmp_path: Path, given: str, kept: list[float]) -> None:
    folder, networks = make_roads(tmp_path)
    output = tmp_path / "m.safetensors"
    result = runner().invoke(
        main,
        ["train", str(folder), "--confidence", str(networks[0]), "-o", str(output), "--gsd", given,
         "--recipe", "paper", "--epochs", "1", "--chip-size", "64", "--chips-per-epoch", "4",
         "--device", "cpu"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert read_card(output).training["ground_sample_distance"] == kept


@pytest.mark.parametrize("given", ["0", "-1", "2,1", "1,2,3", "half", "nan", "1,inf"])
def test_train_refuses_what_is_no_size(given: str) -> None:
    result = runner().invoke(main, ["train", "x", "-o", "m.safetensors", "--gsd", given])
    assert result.exit_code == 2 and "MIN,MAX" in result.stderr
