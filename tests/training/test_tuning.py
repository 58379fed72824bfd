"""Fine-tuning: the start is scored first, kept if it is best, and what came of it is told."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from geothresh.api.train import TrainResult
from geothresh.cli import main
from geothresh.errors import GeothreshWarning, ModelError, OutputError, UsageError
from geothresh.metrics import Counts
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import digest, load_weights, read_card, save_model
from geothresh.nn.network import ThreshNet
from geothresh.nn.scope import ModelScope
from geothresh.nn.wrappers import smoothed
from geothresh.raster.pairs import find_pairs, read_confidence, read_mask
from geothresh.splitting import Split, deal_places
from geothresh.training import Recipe, threshnet, validation
from geothresh.training.options import Splitting
from geothresh.training.tuning import Mean, Tuning, TuningFigures
from geothresh.training.validation import Figures, means, refine_map
from tests.support.cli_runner import runner
from tests.support.roads import make_roads
from tests.support.trainings import Killed, train_flat

QUICK = Recipe(
    head="confidence", epochs=2, chip_size=32, batch_size=2, chips_per_epoch=2, precision="fp32",
    learning_rate=2e-2,
)  # fmt: skip
SHORT = Recipe(**{**QUICK.as_dict(), "loss": QUICK.loss, "epochs": 1})
STILL = Recipe(**{**QUICK.as_dict(), "loss": QUICK.loss, "learning_rate": 1e-30, "ema": 0.99})
CARD = {"theme": "lines", "ground_sample_distance": [0.8, 2.0], "widths": [3.0, 12.0]}
MADE = (".safetensors", ".last.safetensors", ".split.json")

pytestmark = pytest.mark.filterwarnings("ignore:the data does not tell the size of its pixels")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a small model to start from, which finds next to nothing."""
    here = tmp_path_factory.mktemp("tuning")
    data, networks = make_roads(here)
    shutil.copytree(networks[0], data / "confidence")
    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=32, shuffle=4)
    tensors = ThreshNet(config).state_dict()
    save_model(here / "tiny.safetensors", tensors=tensors, config=config, training=CARD)
    return here


def tune(folder: Path, output: Path, recipe: Recipe = QUICK, **options: Any) -> TrainResult:
    options = {"device": "cpu", "init": folder / "tiny.safetensors", **options}
    return train_flat(folder / "roads", output, recipe=recipe, **options)


def rows_of(result: TrainResult) -> list[dict[str, str]]:
    with result.log.open() as file:
        return list(csv.DictReader(file))


def made(output: Path) -> list[bytes]:
    return [output.with_name(output.stem + ending).read_bytes() for ending in MADE]


# --- Figures.


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_of_one_group_it_is_the_usual_standard_error(values: list[float]) -> None:
    found = Mean.of(values, ["set"] * len(values))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    expected = np.std(values, ddof=1) / np.sqrt(len(values))
    assert found.standard_error == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1))
def test_groups_count_alike_as_in_the_scores_of_an_epoch(values: list[tuple[str, float]]) -> None:
    figures = [Figures(group, iou, 1 - iou) for group, iou in values]
    found = Mean.of([iou for _, iou in values], [group for group, _ in values])
    assert found.mean == pytest.approx(means(figures)["miou"])
    assert (found.standard_error is None) == (len(values) == 1)


def figures_of(*ious: float) -> list[Figures]:
    return [Figures("set/net", iou, iou) for iou in ious]


def test_the_best_epoch_is_compared_map_by_map() -> None:
    figures = TuningFigures(cut=figures_of(0.2, 0.4), start=figures_of(0.3, 0.5))
    for epoch, shift in ((1, 0.05), (2, 0.1), (3, 0.0)):
        figures.offer(epoch, figures_of(0.3 + shift, 0.5 + shift))
    found = Tuning.of(figures, figures.tuned, epoch=figures.epoch, start="roads")
    assert (found.epoch, found.helped, found.maps) == (2, True, 2)
    assert found.miou.gain.text(sign="+") == "+10.00 (s.e. 0.00)"
    assert found.lines()[0] == (
        "miou: cut at 0.5 30.00 (s.e. 10.00) -> roads 40.00 (s.e. 10.00) -> "
        "tuned, epoch 2 50.00 (s.e. 10.00)"
    )
    assert "expect less elsewhere" in found.sentence()
    assert TuningFigures.of_dict(json.loads(json.dumps({**vars_of(figures)}))) == figures


def vars_of(figures: TuningFigures) -> dict[str, Any]:
    return {name: getattr(figures, name) for name in ("cut", "start", "tuned", "epoch")}


def test_a_gain_within_two_standard_errors_may_be_chance() -> None:
    figures = TuningFigures(cut=figures_of(0.2, 0.4), start=figures_of(0.3, 0.5))
    found = Tuning.of(figures, figures_of(0.2, 0.7), epoch=1, start="roads", folds=2)
    assert found.helped
    assert "which may be chance" in found.sentence()
    assert "trained on all of them, and itself scored on none" in found.sentence()


# --- A run.


def test_the_start_is_scored_first_and_what_beats_it_is_written(
    folder: Path, tmp_path: Path
) -> None:
    told: list[Any] = []
    longer = Recipe(
        **{**QUICK.as_dict(), "loss": QUICK.loss, "chip_size": 64, "chips_per_epoch": 4}
    )
    result = tune(folder, tmp_path / "m.safetensors", longer, on_epoch=told.append)
    rows = rows_of(result)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"] == [str(r["epoch"]) for r in told]
    assert rows[0]["train_total"] == "" != rows[1]["train_total"]
    assert result.tuning is not None
    assert result.tuning.helped
    assert result.best_epoch == result.tuning.epoch > 0
    best = max(float(row["miou"]) for row in rows[1:])
    assert result.tuning.miou.tuned.mean == pytest.approx(best, abs=1e-6)
    assert result.tuning.miou.start is not None
    assert result.tuning.miou.start.mean == pytest.approx(float(rows[0]["miou"]), abs=1e-6)
    card = read_card(result.model).training
    assert card["tuning"] == json.loads(json.dumps(result.tuning.as_dict()))
    assert card["init"]["name"] == "tiny"
    assert json.loads(json.dumps(result.as_dict()))["tuning"]["folds"] is None


def test_a_start_that_no_epoch_beats_is_the_model(folder: Path, tmp_path: Path) -> None:
    result = tune(folder, tmp_path / "m.safetensors", STILL)
    start = folder / "tiny.safetensors"
    first, second = load_file(start), load_file(result.model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    card = dict(read_card(result.model).training)
    tried = card.pop("tried")
    assert card == read_card(start).training
    assert tried["init"] == {"name": "tiny", "sha256": digest(start)}
    assert "the model written is tiny as it was" in tried["tuning"]["sentence"]
    assert (tried["epoch"], result.best_epoch) == (2, 0)


def test_a_start_is_scored_as_refine_has_it_and_trained_on_what_it_reads(
    folder: Path, tmp_path: Path
) -> None:
    card = read_card(folder / "tiny.safetensors")
    tensors = load_weights(folder / "tiny.safetensors", card.config)
    start = tmp_path / "start.safetensors"
    training = {**CARD, "smooth": True, "strength": 0.5}
    save_model(start, tensors=tensors, config=card.config, training=training)
    result = tune(folder, tmp_path / "m.safetensors", init=start)
    told = read_card(result.last).training
    assert told["smooth"] and told["recipe"]["smooth"] and "strength" not in told
    network = ThreshNet(card.config).eval()
    network.load_state_dict(tensors)
    held = set(Split.load(result.split).validation)
    ious = []
    for pair in find_pairs([folder / "roads"], [folder / "roads" / "confidence"]):
        if pair.id in held:
            seen = smoothed(read_confidence(pair.confidence))
            refined = refine_map(network, seen, dtype=torch.float32, strength=0.5)
            ious.append(Counts.of(prediction=refined >= 0.5, target=read_mask(pair.mask)).iou())
    assert result.tuning is not None and result.tuning.miou.start is not None
    assert result.tuning.miou.start.mean == pytest.approx(np.mean(ious), abs=1e-6)


def test_the_start_is_scored_once_whatever_happens(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(folder, tmp_path / "whole.safetensors")
    scored = []

    def counted(maps: Any) -> Any:
        scored.append(len(maps))
        return score(maps)

    score = validation.score_unrefined
    monkeypatch.setattr(threshnet, "score_unrefined", counted)

    def stop(row: Any) -> None:
        raise Killed

    for _ in range(3):  # after epochs 0, 1 and 2
        with pytest.raises(Killed):
            tune(folder, tmp_path / "m.safetensors", on_epoch=stop)
    again = tune(folder, tmp_path / "m.safetensors", resume=True)
    assert len(scored) == 1
    assert made(tmp_path / "m.safetensors") == made(tmp_path / "whole.safetensors")
    assert again.tuning is not None


def test_without_a_start_nothing_is_scored_before(folder: Path, tmp_path: Path) -> None:
    result = tune(folder, tmp_path / "m.safetensors", SHORT, init=None, patch=32)
    assert result.tuning is None
    assert rows_of(result)[0]["epoch"] == "1"


# --- What is taken over, and said.


def test_pixel_sizes_of_the_start_are_taken_and_said(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(GeothreshWarning, match=r"taken for that of tiny, 0\.8 to 2 m; say"):
        result = tune(folder, tmp_path / "m.safetensors")
    scope = ModelScope.of_card(read_card(result.last).training)
    assert scope == ModelScope.of_card(CARD)


def test_other_pixel_sizes_are_kept_and_warned_of(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(GeothreshWarning, match=r"pixels of 0\.3 m .*`resolution=0\.8`"):
        result = tune(folder, tmp_path / "m.safetensors", ground_sample_distance=[(0.3, 0.3)])
    scope = ModelScope.of_card(read_card(result.last).training)
    assert (scope.pixels.least, scope.widths, scope.theme) == (0.3, None, "lines")


def test_held_out_ids_that_the_start_has_seen_are_told(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tiny.safetensors", tmp_path)
    Split(train=("p0", "p5"), validation=("p1",)).save(tmp_path / "tiny.split.json")
    options = {"init": tmp_path / "tiny.safetensors", "hold_out": ["p5", "p1"]}
    with pytest.warns(GeothreshWarning, match=r"trained on 1 of 2 held-out ids itself \(p5\)"):
        tune(folder, tmp_path / "m.safetensors", **options)


# --- Folds.


def test_every_place_is_held_out_once_and_the_model_learns_from_all(
    folder: Path, tmp_path: Path
) -> None:
    result = tune(folder, tmp_path / "m.safetensors", folds=3)
    split = json.loads(result.split.read_text())
    assert sorted(i for ids in split["folds"] for i in ids) == split["train"]
    assert (len(split["folds"]), split["validation"]) == (3, [])
    rows = rows_of(result)
    assert [row["fold"] for row in rows] == ["", "1", "1", "2", "2", "3", "3", "all", "all"]
    assert result.tuning is not None
    assert (result.tuning.folds, result.tuning.maps, result.train_maps) == (3, 6, 6)
    # Of equal size, so that the mean over all maps is that over the folds.
    mean = np.mean([float(row["miou"]) for row in rows[2::2][:3]])
    assert result.tuning.miou.tuned.mean == pytest.approx(mean, abs=1e-6)
    card = read_card(result.last).training
    assert card["tuning"]["folds"] == 3
    assert "validation" not in card


def test_a_fold_is_a_run_of_its_own(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(**{**QUICK.as_dict(), "loss": QUICK.loss, "ema": 0.9, "dropout": 0.2})
    folded = tune(folder, tmp_path / "m.safetensors", recipe, folds=2, fold_models=True)
    sides = json.loads(folded.split.read_text())
    for number, held in enumerate(sides["folds"]):
        manifest = tmp_path / f"{number}.json"
        train = tuple(i for i in sides["train"] if i not in held)
        Split(train=train, validation=tuple(held)).save(manifest)
        alone = tune(folder, tmp_path / f"{number}.safetensors", recipe, split=manifest)
        one, other = rows_of(alone)[-1], rows_of(folded)[2 * number + 2]
        assert {k: v for k, v in one.items() if k not in ("epoch", "seconds")} == {
            k: v for k, v in other.items() if k not in ("epoch", "seconds", "fold")
        }
        kept = load_file(tmp_path / f"m.fold{number + 1}.safetensors")
        last = load_file(alone.last)
        assert all(torch.equal(kept[name], last[name]) for name in last)


def test_folds_go_on_where_they_were_killed(folder: Path, tmp_path: Path) -> None:
    tune(folder, tmp_path / "whole.safetensors", SHORT, folds=2)
    steps: list[int] = []

    def stop(epoch: int, step: int, *_: Any) -> None:
        steps.append(epoch)
        if steps.count(epoch) == 1:
            raise Killed

    output = tmp_path / "m.safetensors"
    for epoch in (1, 2, 3):
        with pytest.raises(Killed) as caught:
            tune(folder, output, SHORT, folds=2, on_step=stop)
        where = "from the first step" if epoch == 1 else f"after epoch {epoch - 1} of 3"
        assert caught.value.__notes__ == [f"the same command goes on {where}"]
    with pytest.raises(ModelError, match="another data"):
        tune(folder, output, SHORT, folds=3)
    tune(folder, output, SHORT, folds=2)
    assert made(output) == made(tmp_path / "whole.safetensors")
    with pytest.raises(OutputError, match="exists already"):
        tune(folder, output, SHORT, folds=2)


def test_models_of_folds_are_for_folds() -> None:
    with pytest.raises(UsageError, match="`fold_models` keeps the models of `folds`"):
        Splitting(fold_models=True)


def test_folds_that_do_not_gain_leave_the_start(folder: Path, tmp_path: Path) -> None:
    result = tune(folder, tmp_path / "m.safetensors", STILL, folds=2)
    first, second = load_file(folder / "tiny.safetensors"), load_file(result.model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_card(result.model).training["tried"]["tuning"]["helped"] is False
    assert result.best_epoch == 0


def test_folds_without_a_start_gain_over_the_cut(folder: Path, tmp_path: Path) -> None:
    result = tune(folder, tmp_path / "m.safetensors", SHORT, init=None, patch=32, folds=2)
    assert result.tuning is not None
    assert result.tuning.miou.start is None
    assert "start" not in read_card(result.model).training
    assert result.tuning.sentence().startswith("Training ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "`folds` 1: give a whole number of at least 2"),
        ({"folds": 9}, "9 folds of 6 places"),
        ({"folds": 2, "hold_out": ["p1"]}, "`folds` .* and `hold_out` says"),
        ({"folds": 2, "validation_fraction": 0.2}, "`folds` .* and `validation_fraction` says"),
        ({"folds": 2, "split": "x.json"}, "`folds` .* and `split` says"),
        ({"folds": 2, "validation_aoi": "x.gpkg"}, "`folds` .* and `validation_aoi` says"),
    ],
)
def test_folds_that_make_no_sense_are_refused_before_any_work(
    folder: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    checked: list[int] = []
    with pytest.raises(UsageError, match=said):
        tune(folder, tmp_path / "m.safetensors", on_check=lambda n, _: checked.append(n), **options)
    assert not checked
    assert not list(tmp_path.iterdir())


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from("xy"), min_size=4),
    st.integers(2, 4),
)
def test_places_are_dealt_out_evenly(datasets: dict[str, str], folds: int) -> None:
    places = [(i,) for i in sorted(datasets)]
    dealt = deal_places(places, datasets, folds=folds, seed=1)
    assert sorted(i for ids in dealt for i in ids) == sorted(datasets)
    for name in "xy":
        sizes = [sum(datasets[i] == name for i in ids) for ids in dealt]
        assert max(sizes) - min(sizes) <= 1
    assert all(dealt)
    with pytest.raises(UsageError, match=f"{len(places) + 1} folds of {len(places)} places"):
        deal_places(places, datasets, folds=len(places) + 1, seed=1)


def test_the_command_tells_what_came_of_it(folder: Path, tmp_path: Path) -> None:
    arguments = [
        "train", str(folder / "roads"), "-o", str(tmp_path / "m.safetensors"), "--init",
        str(folder / "tiny.safetensors"), "--epochs", "1", "--chip-size", "32", "--batch-size",
        "2", "--chips-per-epoch", "2", "--precision", "fp32", "--device", "cpu", "--folds", "2",
    ]  # fmt: skip
    done = runner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    error = r"\(s\.e\. \d+\.\d\d\)"
    number = rf"\d+\.\d\d {error}"
    line = rf"miou: cut at 0\.5 {number} -> tiny {number} -> tuned, 2 folds {number}\n"
    assert re.search(line, done.stderr)
    assert re.search(r"Tuning (helped|did not help): ", done.stderr)
    for one in (["--validation-fraction", "0.15"], ["--hold-out", "p1"]):
        done = runner().invoke(main, [*arguments, *one, "--overwrite"])
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        assert f"and {one[0]} says what to validate on" in done.stderr


def test_a_split_says_nothing_of_folds() -> None:
    assert Splitting(folds=2, place_pattern="^(.)", block_size=256).folds == 2
