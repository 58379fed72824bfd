"""Out-of-fold maps: no network predicts a place that it has seen, and a stopped run goes on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geothresh.api.crossfit import CrossfitResult, crossfit
from geothresh.api.train_base import train_base
from geothresh.base import crossfit as module
from geothresh.base.config import BasePlan, BaseRecipe, Holdout
from geothresh.base.networks import read_base_card
from geothresh.base.predictor import BaseSource
from geothresh.base.task import BaseTask
from geothresh.cli import main
from geothresh.errors import InputError, ModelError, OutputError, UsageError
from geothresh.raster.image_pairs import check_images, find_images
from geothresh.raster.pairs import find_pairs
from geothresh.raster.pictures import read_gray, read_rgb
from geothresh.splitting import folds_of
from geothresh.training import loop
from geothresh.training.state import Progress
from tests.support.cli_runner import runner
from tests.support.imagery import image_set, in_one_pass, road_image
from tests.support.trainings import images_and_plan

QUICK = BaseRecipe(steps=2, crop_size=64, batch_size=2, precision="fp32")
ENCODER = "mobilenet_v2"
NAME = f"linknet-{ENCODER}"


def run(data: Path | list[Path], output: Path, **more: Any) -> CrossfitResult:
    given: dict[str, Any] = {"encoder": ENCODER, "recipe": QUICK, "device": "cpu", **more}
    images, plan = images_and_plan(data, given)
    return crossfit(images, output, plan, **given)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = image_set(tmp_path_factory.mktemp("set") / "roads", 5)
    # The same ground under another name: these two may not be parted.
    (folder / "r5_sat.png").write_bytes((folder / "r0_sat.png").read_bytes())
    (folder / "r5_mask.png").write_bytes((folder / "r0_mask.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrossfitResult]:
    output = tmp_path_factory.mktemp("out") / "maps"
    return output, run(data, output, folds=3, snapshots=1)


def test_no_map_is_made_by_a_network_that_has_seen_its_place(
    data: Path, done: tuple[Path, CrossfitResult]
) -> None:
    output, result = done
    manifest = json.loads(result.manifest.read_text())
    folds = manifest["folds"]
    assert manifest["complete"] is True and len(folds) == 3
    assert sorted(i for fold in folds for i in fold["ids"]) == [f"r{n}" for n in range(6)]
    by_id = {pair.id: pair for pair in find_images(data)}
    for fold in folds:
        assert set(fold["models"]) == {NAME, f"{NAME}-step00001"}
        # r0 and r5 are one place: whoever predicts one has seen neither.
        place = {"r0", "r5"}
        assert place.isdisjoint(fold["ids"]) or place <= set(fold["ids"])
        for name, model in fold["models"].items():
            predictor = BaseSource.find(
                output / model["file"], device="cpu", precision="fp32"
            ).load()
            assert predictor.digest == model["sha256"]
            card = read_base_card(output / model["file"])
            assert card.trained_ids == by_id.keys() - set(fold["ids"])
            # And these are the maps of that very network.
            for i in fold["ids"]:
                expected = np.rint(in_one_pass(predictor, read_rgb(by_id[i].image)) * 255)
                found = read_gray(output / name / f"{i}.png")
                np.testing.assert_array_equal(found, expected)


def test_the_maps_are_what_train_takes(data: Path, done: tuple[Path, CrossfitResult]) -> None:
    _, result = done
    folders = [folder for some in result.maps.values() for folder in some]
    pairs = find_pairs(data, folders)
    assert Counter(p.source for p in pairs) == {NAME: 6, f"{NAME}-step00001": 6}


def test_the_scores_are_those_of_the_maps(data: Path, done: tuple[Path, CrossfitResult]) -> None:
    output, result = done
    common = union = 0
    for i in range(6):
        foreground = read_gray(output / NAME / f"r{i}.png") >= 128
        truth = read_gray(data / f"r{i}_mask.png") > 0
        common, union = common + (foreground & truth).sum(), union + (foreground | truth).sum()
    assert result.scores[NAME]["roads"]["iou_pooled"] == pytest.approx(common / union)


def test_the_same_call_again_makes_nothing_again(
    data: Path, done: tuple[Path, CrossfitResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, result = done

    def never(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(module, "fit", never)
    monkeypatch.setattr(module, "predict_picture", never)
    assert run(data, output, folds=3, snapshots=1) == result
    with pytest.raises(OutputError, match=r"another folds \(.*\), snapshots \(.*\); give the same"):
        run(data, output, folds=2)
    with pytest.raises(OutputError, match="another place_pattern"):
        run(data, output, folds=3, snapshots=1, place_pattern="^(..)")


class Stopped(Exception):
    """What a kill is to the run."""


def test_a_stopped_run_goes_on_to_the_same_maps(
    data: Path, done: tuple[Path, CrossfitResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, result = done
    real_fit = loop.fit
    trained: list[str] = []

    def fit(task: BaseTask, output: Path, **how: Any) -> Progress:
        trained.append(output.name)
        return real_fit(task, output, **how)

    def stop(fold: int, folds: int, step: int, steps: int, loss: float) -> None:
        if (fold, step) == (2, 1):
            raise Stopped

    monkeypatch.setattr(module, "fit", fit)
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    with pytest.raises(Stopped):
        run(data, tmp_path / "o", folds=3, snapshots=1, on_step=stop)
    work = tmp_path / "o" / f"{NAME}.folds"
    assert (work / "fold2.state.safetensors").exists()
    steps: list[tuple[int, int]] = []
    again = run(
        data, tmp_path / "o", folds=3, snapshots=1,
        on_step=lambda fold, folds, step, n, loss: steps.append((fold, step)),
    )  # fmt: skip
    assert trained == [f"fold{k}.safetensors" for k in (1, 2, 2, 3)]
    assert steps == [(2, 2), (3, 1), (3, 2)]
    assert again.scores == result.scores
    for name in result.maps:
        for i in range(6):
            file = f"{name}/r{i}.png"
            assert (tmp_path / "o" / file).read_bytes() == (output / file).read_bytes()
    assert not (work / "fold2.state.safetensors").exists()


def test_a_model_that_has_seen_the_fold_is_refused(
    data: Path, done: tuple[Path, CrossfitResult]
) -> None:
    output, result = done
    work = output / f"{NAME}.folds"
    first, second = work / "fold1.safetensors", work / "fold2.safetensors"
    kept = first.read_bytes()
    ids = json.loads(result.manifest.read_text())["folds"][0]["ids"]
    stale = output / NAME / f"{ids[0]}.png"
    old = stale.read_bytes()
    try:
        first.write_bytes(second.read_bytes())
        stale.unlink()
        assert read_base_card(first).trained_ids & set(ids)
        with pytest.raises(ModelError, match="of the fold that it is to predict"):
            run(data, output, folds=3, snapshots=1)
    finally:
        first.write_bytes(kept)
        stale.write_bytes(old)


def test_several_data_sets_have_folders_of_their_own(data: Path, tmp_path: Path) -> None:
    other = image_set(tmp_path / "more", 3, prefix="xx")
    result = run([data, other], tmp_path / "o", folds=2)
    assert result.maps == {NAME: [tmp_path / "o" / "more" / NAME, tmp_path / "o" / "roads" / NAME]}
    assert len(list((tmp_path / "o" / "more" / NAME).iterdir())) == 3
    pairs = find_pairs([data, other], result.maps[NAME])
    assert Counter(p.dataset for p in pairs) == {"roads": 6, "more": 3}


def test_maps_of_unknown_origin_are_not_mixed_in(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "o" / NAME
    folder.mkdir(parents=True)
    (folder / "r0.png").write_bytes((data / "r0_mask.png").read_bytes())
    with pytest.raises(OutputError, match="holds maps"):
        run(data, tmp_path / "o")


@pytest.mark.parametrize("name", ["fold1.safetensors", "fold2.state.safetensors"])
def test_models_without_a_manifest_are_not_deleted(data: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / "o" / f"{NAME}.folds" / name
    model.parent.mkdir(parents=True)
    model.write_bytes(b"hours of training")
    with pytest.raises(OutputError, match=rf"holds models .*{NAME}\.json is missing; put that"):
        run(data, tmp_path / "o")
    assert model.read_bytes() == b"hours of training"


@given(
    places=st.lists(st.integers(0, 6), min_size=4, max_size=30),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_folds_part_no_place_and_are_nearly_equal(places: list[int], folds: int, seed: int) -> None:
    ids = [f"p{place}_{n}" for n, place in enumerate(places)]
    datasets, marks = dict.fromkeys(ids, "d"), {i: (i,) for i in ids}
    how: dict[str, Any] = {"folds": folds, "place_pattern": "^(p.)", "seed": seed}
    if len(set(places)) < folds:
        with pytest.raises(UsageError, match="fewer `folds"):
            folds_of(datasets, marks, **how)
        return
    dealt = folds_of(datasets, marks, **how)
    assert sorted(i for ids in dealt for i in ids) == sorted(marks)
    homes = [{i.split("_")[0] for i in ids} for ids in dealt]
    assert all(a.isdisjoint(b) for k, a in enumerate(homes) for b in homes[:k])
    sizes = [len(ids) for ids in dealt]
    assert max(sizes) - min(sizes) <= max(Counter(places).values())
    assert dealt == folds_of(dict(reversed(datasets.items())), marks, **how)


def test_what_has_no_partner_is_named_before_anything_else(tmp_path: Path) -> None:
    folder = image_set(tmp_path / "d", 3)
    (folder / "r1_mask.png").unlink()
    (folder / "r2_sat.png").unlink()
    said = r"1 image without a mask \(d/r1\) and 1 mask without an image \(d/r2\).*`skip_unp"
    with pytest.raises(InputError, match=said):
        find_images(folder)
    assert [p.id for p in find_images(folder, skip_unpaired=True)] == ["r0"]
    result = runner().invoke(main, ["base", "crossfit", str(folder), "-o", str(tmp_path / "o")])
    assert result.exit_code == 3
    assert "image without a mask" in result.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"place_pattern": "("}, "no regular expression"),
        ({"folds": 9}, "9 folds of 6 places"),
        ({"folds": 0, "epochs": 3}, "give at least 2"),
        ({"holdout": Holdout(hold_out=["testing_*"])}, "no id matches"),
        ({"holdout": Holdout(validation_fraction=0.1), "place_pattern": "r"}, "has no group"),
    ],
)
def test_options_are_checked_before_the_images_are_read(
    data: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    seen: list[int] = []
    trains = "holdout" in options
    command, output = (train_base, "m.safetensors") if trains else (crossfit, "maps")
    given: dict[str, Any] = {"encoder": ENCODER, "recipe": QUICK, "device": "cpu", **options}
    images, plan = images_and_plan(data, given)
    with pytest.raises(UsageError, match=said):
        command(images, tmp_path / output, plan, on_check=lambda k, _: seen.append(k), **given)
    assert not seen and not list(tmp_path.iterdir())


def test_broken_images_are_named(tmp_path: Path) -> None:
    folder = image_set(tmp_path / "d", 4)
    (folder / "r1_sat.png").write_bytes(b"no picture")
    Image.fromarray(road_image(0, 32)[0]).save(folder / "r2_sat.png")
    with pytest.raises(InputError, match="2 unusable files.*r1_sat.*32 x 32 pixels.*64 x 64"):
        check_images(find_images(folder))


def test_train_keeps_back_what_is_held_out(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    plan = BasePlan(encoder=ENCODER, recipe=QUICK)
    result = train_base(data, output, plan, holdout=Holdout(hold_out=["r5"]), device="cpu")
    # r0 is the same place as r5.
    assert read_base_card(output).trained_ids == {"r1", "r2", "r3", "r4"}
    assert json.loads(result.split.read_text())["validation"] == ["r0", "r5"]
    assert (result.images, result.held_out) == (4, 2)
    with pytest.raises(OutputError, match="exists"):
        train_base(data, output, plan)
    with pytest.raises(UsageError, match="no run to go on with"):
        train_base(data, tmp_path / "n.safetensors", resume=True)


def test_a_training_does_not_replace_the_weights_it_starts_from(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    weights.write_bytes(b"mine")
    plan = BasePlan(encoder=ENCODER, encoder_weights=str(weights), recipe=QUICK)
    with pytest.raises(UsageError, match="the output is the input"):
        train_base(data, weights, plan, overwrite=True, device="cpu")
    assert weights.read_bytes() == b"mine"


def test_the_command_trains_and_says_where(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    options = f"--encoder {ENCODER} --epochs 1 --crop-size 64 --batch-size 4 --device cpu"
    arguments = ["base", "train", str(data), "-o", str(output), *options.split()]
    result = runner().invoke(main, [*arguments, "--snapshots", "1"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{output}\n"
    assert "2 steps" in result.stderr and "6 images" in result.stderr
    assert (tmp_path / "m.step00001.safetensors").exists()
