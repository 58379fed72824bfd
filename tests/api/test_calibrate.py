"""``calibrate`` from folders and scenes to a file, and what is refined by that file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from geothresh import (
    Calibrating,
    Compute,
    InputError,
    Maps,
    ModelError,
    OutputError,
    Refining,
    SceneData,
    Tiling,
    UsageError,
    calibrate,
    evaluate,
    refine,
    refine_array,
    refine_dataarray,
)
from geothresh.calibration import choosing
from geothresh.calibration.file import Calibration, CalibrationFile
from geothresh.files import file_digest
from geothresh.nn.transformation import Transformation
from geothresh.nn.wrappers import wrapped
from geothresh.raster.pictures import read_gray, read_rgb, write_png
from geothresh.training.recipe import recipe_of
from tests.support.fakes import UnevenRefiner
from tests.support.networks import write_model
from tests.support.rasters import write_raster

SIDE = 64
TILES = Tiling(tile_size=SIDE, overlap=32)


def make_data(folder: Path, n: int = 12, *, level: float = 0.3) -> Path:
    """Maps of blobs of which too few reach 0.5: the best threshold is about `level`."""
    for k in range(n):
        rng = np.random.default_rng(k)
        signal = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 3)
        signal /= signal.std()
        noisy = signal - 0.7 + rng.normal(0, 0.3, (SIDE, SIDE))
        bias = np.log(level / (1 - level))
        for name, picture in (
            ("mask", (signal > 0.7) * 255),
            ("confidence", np.rint(255 / (1 + np.exp(-(4 * noisy + bias))))),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_png(folder / name / f"p{k:02}_{k % 3}.png", picture.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "random.safetensors")


def write_calibration(path: Path, model: Path | None, **change: Any) -> Path:
    Calibration(
        candidate="some way",
        advice="Take it.",
        model=None if model is None else model.stem,
        model_sha256="" if model is None else file_digest(model),
        model_file=None if model is None else model.name,
        transformation=Transformation(**change),
        figures={},
    ).save(path)
    return path


def scene_of(data: Path, path: Path, name: str = "p00_0") -> Path:
    values = read_gray(data / "confidence" / f"{name}.png")
    write_raster(path, values)
    return path


def read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read(1), file.tags()


def test_the_diagram_does_not_replace_a_map(data: Path) -> None:
    one = data / "confidence" / "p00_0.png"
    before, writing = one.read_bytes(), Calibrating(output=one.with_suffix(".json"), overwrite=True)
    with pytest.raises(UsageError, match=r"p00_0\.png: the output is the input"):
        calibrate(data, models=(), calibrating=writing)
    assert one.read_bytes() == before and not one.with_suffix(".json").exists()


def test_one_model_may_be_named_without_a_list(data: Path, model: Path) -> None:
    for one in (model, str(model)):
        assert "random" in {c.model for c in calibrate(data, models=one).choice.candidates}


def test_the_best_threshold_is_found_and_followed(data: Path, tmp_path: Path) -> None:
    """No model knows better than the threshold that these maps were made with."""
    output = tmp_path / "calibration.json"
    told = []
    report = calibrate(
        data, models=(), calibrating=Calibrating(output=output),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert report.choice.best.key == "threshold"
    assert report.advice.startswith("Take best threshold (cut at 0.")
    assert told[-1] == (12, 12)
    found = CalibrationFile.load(output).calibration
    threshold = found.transformation.threshold
    assert 0.2 < threshold < 0.42 and found.advice == report.advice
    assert found.model is None and found.figures["tiles"] == 12
    assert read_rgb(tmp_path / "calibration.png").shape[0] > 400

    scene = scene_of(data, tmp_path / "scene.tif")
    result = refine(scene, refining=Refining(calibration=output))
    mask, tags = read(result.mask)
    levels = read_gray(data / "confidence" / "p00_0.png")
    assert (mask == (levels / np.float32(255) >= np.float32(threshold))).all()
    assert (result.model, result.threshold) == ("none", threshold)
    assert tags["GEOTHRESH_CALIBRATION"] == f"best threshold: cut at {threshold:.9g}"
    assert tags["GEOTHRESH_CALIBRATION_SHA256"] == file_digest(output)
    assert tags["GEOTHRESH_MODEL"] == "none"


def test_what_calibrate_scores_is_what_refine_makes(
    data: Path, model: Path, tmp_path: Path
) -> None:
    """Mixed with a model, shifted, cut elsewhere: the mask is that of the transformation."""
    change = Transformation(strength=0.5, slope=0.8, bias=0.4, threshold=0.45, keep=0.4)
    output = tmp_path / "calibration.json"
    shutil.copy(model, tmp_path)
    write_calibration(
        output, model, strength=0.5, slope=0.8, bias=0.4, threshold=0.45, keep=0.4
    )  # fmt: skip
    values = read_gray(data / "confidence" / "p01_1.png").astype(np.float32) / np.float32(255)
    refined = refine_array(values, model=model, tiling=TILES)
    expected = change(values, refined)
    refining = Refining(calibration=output)
    found = refine_array(values, refining=refining, tiling=TILES)
    assert found == pytest.approx(expected, abs=1e-6)
    scene = scene_of(data, tmp_path / "scene.tif", "p01_1")
    result = refine(scene, refining=refining, tiling=TILES)
    mask = (found >= np.float32(0.45)) | ((values >= np.float32(0.45)) & (found >= np.float32(0.4)))
    assert (read(result.mask)[0] == mask).all()
    assert (result.model, result.threshold, result.keep_threshold) == ("random", 0.45, 0.4)
    # evaluate follows it too.
    report = evaluate(data, refining=refining, tiling=TILES)
    by_id = {line["id"]: line["refined"]["iou"] for line in report.sources[0].maps}
    truth = read_gray(data / "mask" / "p01_1.png") > 0
    assert by_id["p01_1"] == pytest.approx((mask & truth).sum() / (mask | truth).sum())
    told = report.as_dict()
    assert (told["keep_threshold"], told["calibration"]) == (0.4, result.calibration)


def test_a_dataarray_is_refined_as_a_file_is(data: Path, model: Path, tmp_path: Path) -> None:
    """Lazily too, and its attributes tell the calibration."""
    xarray = pytest.importorskip("xarray", reason="the extra xarray is not installed")
    values = np.tile(read_gray(data / "confidence" / "p02_2.png"), (2, 3))
    write_raster(tmp_path / "scene.tif", values)
    shutil.copy(model, tmp_path)
    file = write_calibration(tmp_path / "c.json", model, strength=0.7, bias=0.3, threshold=0.4)
    refining = Refining(calibration=file, tta="none")
    mask, _ = read(refine(tmp_path / "scene.tif", refining=refining, tiling=TILES).mask)
    for array in (
        xarray.DataArray(values, dims=("y", "x")),
        xarray.DataArray(values, dims=("y", "x")).chunk({"x": 70, "y": 128}),
    ):
        found = refine_dataarray(array, layer="mask", refining=refining, tiling=TILES)
        assert (found.values == mask).all() and 0 < mask.mean() < 1
        assert "some way: strength 0.7" in str(found.attrs)


def test_a_model_is_tried_at_several_strengths(data: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "calibration.json"
    report = calibrate(
        data, models=[model], tiling=TILES,
        calibrating=Calibrating(output=output, folds=3),
    )  # fmt: skip
    labels = [one.label for one in report.choice.candidates]
    assert [label for label in labels if label.startswith("random")] == [
        "random, as refine does", "random, strength 0.25", "random, strength 0.5",
        "random, strength 0.75", "random, hysteresis", "random, strength and threshold",
        "random, strength, threshold, scaling",
    ]  # fmt: skip
    table = report.table()
    assert table.startswith("12 tiles of 12 places, 3 folds")
    assert "bound*" in table and "DenseCRF" not in table
    assert "\nrandom\n  as refine does  " in table and "\n  strength, threshold, scaling  " in table
    values = json.loads(output.read_text())["figures"]
    assert set(values["candidates"]["random"]) == {
        "label", "iou", "mean", "error", "share_worse", "chance", "ece", "seconds_per_megapixel",
    }  # fmt: skip


def test_places_are_held_out_together(data: Path) -> None:
    """Named by a pattern, or known by equal masks: one place under two names."""
    report = calibrate(data, models=(), calibrating=Calibrating(place_pattern=r"_(\d)$"))
    assert (report.places, report.folds, report.tiles) == (3, 3, 12)
    assert report.choice.does_nothing
    with pytest.raises(InputError, match="12 tiles of one place"):
        calibrate(data, models=(), calibrating=Calibrating(place_pattern="^(p)"))


def test_equal_masks_are_one_place(tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data", 4)
    for name in ("mask", "confidence"):
        shutil.copy(folder / name / "p00_0.png", folder / name / "twin.png")
    assert calibrate(folder, models=()).places == 4


def test_few_tiles_are_said_to_tell_nothing(tmp_path: Path) -> None:
    report = calibrate(make_data(tmp_path / "data", 7), models=())
    assert report.advice.startswith("Leave it at 0.5: with 7 tiles it cannot be known")
    assert "label 8 at least" in report.table() and report.choice.does_nothing


def test_maps_that_are_right_are_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "calibration.json"
    folder = make_data(tmp_path / "data", 12, level=0.5)
    report = calibrate(folder, models=(), calibrating=Calibrating(output=output))
    assert report.advice.startswith("Leave it at 0.5: none of 4 ways is better on 12 places")
    scene = scene_of(folder, tmp_path / "scene.tif")
    mask, tags = read(refine(scene, refining=Refining(calibration=output)).mask)
    assert (mask == (read_gray(folder / "confidence" / "p00_0.png") >= 128)).all()
    assert tags["GEOTHRESH_CALIBRATION"] == "cut at 0.5"


def test_the_maps_of_two_networks_of_one_place_are_one_place(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data / "confidence", other)
    report = calibrate(data, models=(), maps=Maps(confidence=[data / "confidence", other]))
    assert (report.tiles, report.places) == (24, 12)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scene of 2 x 5 cells, of which the last is without data."""
    folder = tmp_path_factory.mktemp("scene")
    rng = np.random.default_rng(0)
    signal = ndimage.gaussian_filter(rng.normal(0, 1, (700, 2200)).astype(np.float32), 9)
    signal /= signal.std()
    values = 1 / (1 + np.exp(-4 * (signal - 1.0)))
    levels = np.rint(values * 254).astype(np.uint8)
    levels[512:, 2048:] = 255
    write_raster(folder / "scene.tif", levels, nodata=255)
    write_raster(folder / "truth.tif", (signal > 0.7).astype(np.uint8))
    return folder / "scene.tif", folder / "truth.tif"


def test_a_scene_is_cut_into_cells(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    given = SceneData(scenes=[labelled[0]], labels=[labelled[1]])
    report = calibrate(given, models=())
    assert (report.unit, report.tiles, report.places) == ("cell", 9, 9)
    assert report.advice.startswith("Take best threshold")
    with pytest.raises(UsageError, match="`place_pattern` is for folders of maps"):
        calibrate(given, calibrating=Calibrating(place_pattern="(a)"))
    with pytest.raises(UsageError, match="`split` is for folders of maps"):
        calibrate(given, maps=Maps(split="train"))
    with pytest.raises(InputError, match="1 cell of one place"):
        scene = write_raster(tmp_path / "s.tif", np.full((SIDE, SIDE), 200, np.uint8))
        truth = write_raster(tmp_path / "t.tif", np.eye(SIDE, dtype=np.uint8))
        calibrate(SceneData(scenes=[scene], labels=[truth]), models=())
    with pytest.raises(UsageError, match="`ground_sample_distance` of a scene"):
        calibrate(replace(given, ground_sample_distance=[0.5]), models=())


@pytest.mark.slow
def test_a_scene_is_refined_as_a_whole(labelled: tuple[Path, Path], model: Path) -> None:
    """Its cells have the counts of the refined scene."""
    told = []
    report = calibrate(
        SceneData(scenes=[labelled[0]], labels=[labelled[1]]), models=[model],
        refining=Refining(resolution="native"), progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert told[-1] == (18, 18)
    scored = evaluate(
        labelled[0], mask=labelled[1], model=model, refining=Refining(resolution="native")
    )  # fmt: skip
    ious = [line["refined"]["iou"] for line in scored.sources[0].maps]
    assert sorted(report.choice.outcomes["random"].iou) == pytest.approx(sorted(ious))


def test_labels_without_foreground_are_refused(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.tif"
    write_raster(empty, np.zeros((700, 2200), np.uint8))
    with pytest.raises(InputError, match="is foreground in 9 cells; check the labels"):
        calibrate(SceneData(scenes=[labelled[0]], labels=[empty]), models=())


def test_a_calibration_of_another_model_is_refused(data: Path, model: Path, tmp_path: Path) -> None:
    output = write_calibration(tmp_path / "c.json", model, strength=0.5)
    other = write_model(tmp_path / "random.safetensors", patch=32)
    values = np.zeros((64, 64), np.float32)
    refining = Refining(calibration=output)
    with pytest.raises(ModelError, match=r"is of the model random .* is another"):
        refine_array(values, model=other, refining=refining)
    with pytest.raises(ModelError, match=r"is of the model random .* is another"):
        refine_array(values, refining=refining)
    other.unlink()
    with pytest.raises(ModelError, match=r"random is not beside it .* name the file as `model`"):
        refine_array(values, refining=refining)
    assert refine_array(values, model=model, refining=refining, tiling=TILES).shape == (64, 64)


def test_a_model_file_with_the_name_of_a_packaged_model_is_found_beside_its_calibration(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "iou_of_advice", lambda *_: None)
    monkeypatch.setattr(
        choosing, "advised", lambda maps, candidates, _: next(c for c in candidates if c.model)
    )
    file, output = tmp_path / "roads.safetensors", tmp_path / "c.json"
    shutil.copy(model, file)
    calibrating = Calibrating(output=output)
    calibrate(data, models=[file], calibrating=calibrating, tiling=TILES)
    assert json.loads(output.read_text())["model"]["file"] == "roads.safetensors"
    values, refining = np.zeros((64, 64), np.float32), Refining(calibration=output)
    assert refine_array(values, refining=refining, tiling=TILES).shape == (64, 64)


@pytest.mark.parametrize("name", ["c.last.safetensors", "c.fold2.safetensors"])
def test_a_model_in_the_way_of_a_fine_tuning_is_found_before_a_map_is_scored(
    data: Path, model: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    done: list[int] = []
    calibrating = Calibrating(output=tmp_path / "c.json", fine_tune=True)
    with pytest.raises(OutputError, match=f"{name}: exists"):
        calibrate(
            data, models=[model], calibrating=calibrating, tiling=TILES,
            progress=lambda n, _: done.append(n),
        )  # fmt: skip
    assert not done
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_fine_tuned_model_does_not_replace_one_that_is_compared(
    data: Path, model: Path, tmp_path: Path
) -> None:
    file = shutil.copy(model, tmp_path / "c.last.safetensors")
    before = file.read_bytes()
    calibrating = Calibrating(output=tmp_path / "c.json", fine_tune=True, overwrite=True)
    with pytest.raises(UsageError, match=r"c\.last\.safetensors: the output is the input"):
        calibrate(data, models=[model, file], calibrating=calibrating, tiling=TILES)
    assert file.read_bytes() == before


def test_a_calibration_does_not_replace_what_it_is_made_of(data: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({"train": [], "validation": ["p00_0", "p01_1"]}))
    calibrating = Calibrating(output=ids, overwrite=True)
    with pytest.raises(UsageError, match="the output is the input"):
        calibrate(data, models=(), maps=Maps(ids=ids), calibrating=calibrating)


def test_a_calibration_decides_alone(data: Path, model: Path, tmp_path: Path) -> None:
    output = write_calibration(tmp_path / "c.json", None, strength=0)
    with pytest.raises(UsageError, match="`calibration` decides on `threshold`"):
        Refining(calibration=output, threshold=0.4)
    with pytest.raises(UsageError, match="`fine_tune` makes a model beside"):
        Calibrating(fine_tune=True)
    with pytest.raises(UsageError, match="needs no model"):
        refine_array(np.zeros((9, 9)), model=model, refining=Refining(calibration=output))


def test_no_seam_comes_with_a_transformation() -> None:
    """A tile alone and in a batch, on one thread and on four: the same bits."""
    change = Transformation(strength=0.4, slope=1.3, bias=0.2)
    values = np.random.default_rng(0).random((150, 210), np.float32)
    calibrated = wrapped(UnevenRefiner(), transformation=change)
    whole = refine_array(values, model=calibrated, tiling=TILES)
    batched = refine_array(
        values, model=calibrated, tiling=TILES, compute=Compute(batch_size=1)
    )  # fmt: skip
    assert (whole == batched).all()
    tile = values[:SIDE, :SIDE]
    alone = calibrated(tile[None])[0]
    assert (alone == change(tile, UnevenRefiner()(tile[None])[0])).all()


@pytest.mark.slow
def test_a_model_is_trained_on_the_other_folds(data: Path, model: Path, tmp_path: Path) -> None:
    """Each map is refined by the model of the fold that holds it out; then one of all is kept."""
    output, native = tmp_path / "calibration.json", Refining(resolution="native")
    recipe = recipe_of("tune", epochs=1, chips_per_epoch=4, batch_size=2, chip_size=64)
    told = []
    report = calibrate(
        data, models=[model], tiling=TILES, recipe=recipe, refining=native,
        progress=lambda *done: told.append(done),
        calibrating=Calibrating(output=output, fine_tune=True, folds=2),
    )  # fmt: skip
    labels = {one.key: one.label for one in report.choice.candidates}
    assert told[-1] == (36, 36) and told[23] == (24, 24)
    assert labels["calibration.last@0.5"] == "random fine-tuned, strength 0.5"
    ids = sorted(path.stem for path in (data / "mask").iterdir())
    found = dict(zip(ids, report.choice.outcomes["calibration.last"].iou, strict=True))
    folds = json.loads((tmp_path / "calibration.split.json").read_text())["folds"]
    assert sorted(folds[0] + folds[1]) == ids
    for number, fold in enumerate(folds, start=1):
        (tmp_path / "ids.txt").write_text("\n".join(fold))
        scored = evaluate(
            data, model=tmp_path / f"calibration.fold{number}.safetensors", refining=native,
            maps=Maps(ids=tmp_path / "ids.txt"), tiling=TILES,
        )  # fmt: skip
        for line in scored.sources[0].maps:
            assert found[line["id"]] == pytest.approx(line["refined"]["iou"])
    last = tmp_path / "calibration.last.safetensors"
    write_calibration(tmp_path / "c.json", last, strength=0.5)
    values = np.zeros((64, 64), np.float32)
    assert refine_array(values, refining=Refining(calibration=tmp_path / "c.json")).shape == (
        64,
        64,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"models": ["roads", "roads"]}, "another model is named roads too"),
        ({"models": ["rods"]}, "no such model file"),
        ({"refining": Refining(threshold=0.4)}, "`threshold` is what calibrating finds"),
        ({"compute": Compute(workers=2)}, "`workers` is for `geothresh refine`"),
        ({"maps": Maps(split="train")}, "`split` train is a side .* name that with `ids`"),
        ({"models": (), "refining": Refining(tta="d4")}, "`tta` is for models, and there is none"),
        ({"recipe": recipe_of("tune")}, "`recipe` says how .* add `fine_tune=True`"),
        ({"calibrating": Calibrating(output="calibration.txt")}, "a calibration is JSON"),
        (
            {"models": (), "calibrating": Calibrating(output="c.json", fine_tune=True)},
            "`fine_tune` starts from one of the models, and there is none",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(data: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, ModelError), match=said):
        calibrate(data, **options)


def test_broken_data_is_refused_before_a_model_runs(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    write_png(folder / "mask" / "p03_0.png", np.zeros((9, 9), np.uint8))
    write_png(folder / "mask" / "p04_1.png", np.arange(4096, dtype=np.uint8).reshape(64, 64))
    with pytest.raises(InputError, match="2 unusable files.*9 x 9.*not a two-valued mask"):
        calibrate(folder)
    (folder / "mask" / "p05_2.png").unlink()
    with pytest.raises(InputError, match=r"1 map without a mask \(confidence/p05_2\)"):
        calibrate(folder)
    with pytest.raises(UsageError, match="is a file; name its labels"):
        calibrate(folder / "mask" / "p04_1.png")
