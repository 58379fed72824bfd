"""The studies: which runs they make, and one of them from data to page on small data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from geothresh.nn.modelfile import read_card
from geothresh.training import RECIPES
from tests.support.cli_runner import runner
from tests.support.roads import make_roads

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import study
    import study_runs

    return study, study_runs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two data sets with the same two networks, and a split by place."""
    root = tmp_path / "data"
    for name, turn in (("one", ""), ("two", "q")):
        masks, networks = make_roads(tmp_path / name)
        (root / name).mkdir(parents=True)
        for mask in masks.iterdir():
            shutil.copy(mask, root / name / f"{turn}{mask.name}")
        for network in networks:
            folder = root / "confidence" / name / network.name
            folder.mkdir(parents=True)
            for file in network.iterdir():
                shutil.copy(file, folder / f"{turn}{file.name}")
    ids = [f"{turn}p{k}" for turn in ("", "q") for k in range(6)]
    held = ["p0", "p1", "qp0", "qp1"]
    split = {"train": [i for i in ids if i not in held], "validation": held}
    (root / "split.json").write_text(json.dumps(split))
    return root


def planned(modules, monkeypatch, data: Path, tmp_path: Path, *arguments: str) -> list:
    """The runs that a study would make."""
    study, _ = modules
    found = []

    def remember(run, setting, say):
        found.append(run)
        return {}

    monkeypatch.setattr(study, "perform", remember)
    monkeypatch.setattr(study, "_write", lambda *arguments: None)
    command = [*arguments, "--data", str(data), "--output", str(tmp_path / "out")]
    result = runner().invoke(study.main, command)
    assert result.exit_code == 0, result.output
    return found


def test_what_is_left_out_is_not_trained_on(modules, monkeypatch, data, tmp_path) -> None:
    for name, part, left in (
        ("leave-network-out", 1, ["net1", "net2"]),
        ("leave-set-out", 0, ["one", "two"]),
    ):
        every, *runs = planned(modules, monkeypatch, data, tmp_path, name)
        assert len(every.maps) == 4
        assert [run.name for run in runs] == [f"without-{what}" for what in left]
        for run, what in zip(runs, left, strict=True):
            assert len(run.maps) == 2
            assert what not in {maps.name.split("/")[part] for maps in run.maps}


def test_data_sets_can_be_left_out_together(modules, monkeypatch, data, tmp_path) -> None:
    shutil.copytree(data / "two", data / "three")
    shutil.copytree(data / "confidence" / "two", data / "confidence" / "three")
    command = ["leave-set-out", "--together", "two,three"]
    _, *runs = planned(modules, monkeypatch, data, tmp_path, *command)
    assert [run.name for run in runs] == ["without-one", "without-two-and-three"]
    assert {maps.dataset for maps in runs[1].maps} == {"one"}
    study, _ = modules
    command = ["leave-set-out", "--together", "two,four", "--data", str(data)]
    result = runner().invoke(study.main, [*command, "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and "four: there is no such data set" in result.stderr


def test_snapshots_are_left_out_with_their_network(modules, monkeypatch, data, tmp_path) -> None:
    for maps in (data / "confidence").glob("*/net1"):
        shutil.copytree(maps, maps.with_name("net1-step00050"))
    _, *runs = planned(modules, monkeypatch, data, tmp_path, "leave-network-out")
    assert [run.name for run in runs] == ["without-net1", "without-net2"]
    assert {maps.network for maps in runs[0].maps} == {"net2"}
    assert {maps.network for maps in runs[1].maps} == {"net1", "net1-step00050"}


def test_the_ablation_takes_one_thing_away_at_a_time(modules, monkeypatch, data, tmp_path) -> None:
    runs = {r.name: r for r in planned(modules, monkeypatch, data, tmp_path, "ablation")}
    best = runs["all"].recipe
    assert runs["without-zoom"].recipe.zoom == 1.0 < best.zoom
    assert runs["with-ema"].recipe.ema > best.ema
    assert runs["without-overlap-loss"].recipe.loss.overlap == 0
    assert runs["branch-local"].recipe.branches == "local"
    loss = runs["loss-focal-only"].recipe.loss
    assert (loss.region, loss.focal, loss.boundary, loss.overlap) == (1, 1, 0, 0)
    assert runs["with-degrade"].recipe.degrade > 0
    assert runs["without-centerline-loss"].recipe.loss.centerline == 0
    assert runs["with-harm-loss"].recipe.loss.harm > 0
    assert runs["more-boundary-loss"].recipe.loss.boundary > best.loss.boundary
    paper = runs.pop("paper").recipe
    assert (paper.head, paper.schedule, paper.jitter) == ("confidence", "plateau", 0)
    assert (paper.chip_size, paper.epochs) == (best.chip_size, best.epochs)
    together = runs.pop("with-all-together").recipe
    assert (together.ema, together.weight_decay, together.zoom) == (0.998, 0.02, 1.6)
    for name, run in runs.items():
        before, after = best.as_dict(), run.recipe.as_dict()
        assert sum(before[key] != after[key] for key in before) == (name != "all"), name


def test_a_network_can_be_left_out_of_an_ablation(modules, monkeypatch, data, tmp_path) -> None:
    every = planned(modules, monkeypatch, data, tmp_path, "ablation")[0]
    families = {maps.family for maps in every.maps}
    left_out = min(families)
    runs = planned(modules, monkeypatch, data, tmp_path, "ablation", "--leave-out", left_out)
    assert all({maps.family for maps in run.maps} == families - {left_out} for run in runs)


def test_a_data_set_can_be_left_out_of_an_ablation(modules, monkeypatch, data, tmp_path) -> None:
    runs = planned(modules, monkeypatch, data, tmp_path, "ablation", "--leave-set", "two")
    assert all({maps.dataset for maps in run.maps} == {"one"} for run in runs)
    command = ["ablation", "--leave-set", "three", "--data", str(data)]
    result = runner().invoke(modules[0].main, [*command, "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and "three: there is no such data set" in result.stderr


def test_a_wider_network_is_tried_and_is_no_preset(modules, monkeypatch, data, tmp_path) -> None:
    study, study_runs = modules
    small = {"chip_size": 64, "batch_size": 2, "precision": "fp32"}
    monkeypatch.setitem(study.RECIPES, "best", study.replace(RECIPES["best"], **small))
    wide = study.replace(study.PRESETS["small"], widths=(8, 8, 8, 16))
    monkeypatch.setitem(study_runs.TRIED, "wide", wide)
    command = ["seeds", "--data", str(data), "-o", str(tmp_path / "out"), "--preset", "wide"]
    command += ["--split", str(data / "split.json"), "--steps", "1", "--device", "cpu"]
    result = runner().invoke(study.main, [*command, "--only", "all"])
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "out" / "runs" / "all" / "model.last.safetensors")
    assert card.config.widths == wide.widths != study.PRESETS["small"].widths


def test_patches_share_their_chips_and_seeds_their_all_else(
    modules, monkeypatch, data, tmp_path
) -> None:
    runs = planned(modules, monkeypatch, data, tmp_path, "patch", "--steps", "800")
    assert [run.patch for run in runs] == [256, 128, 64, 32]
    assert len({run.recipe for run in runs}) == 1
    assert runs[0].recipe.epochs * runs[0].recipe.chips_per_epoch == 800 * 12
    runs = planned(modules, monkeypatch, data, tmp_path, "patch", "--preset", "full")
    assert [run.patch for run in runs] == [256, 128, 64, 32, 16]
    runs = planned(modules, monkeypatch, data, tmp_path, "seeds")
    assert [run.recipe.seed for run in runs] == [0, 1, 2]


def test_folders_of_one_name_are_refused(modules, monkeypatch, data, tmp_path) -> None:
    study, _ = modules
    command = ["seeds", "--data", str(data), "--output", str(tmp_path / "out")]
    result = runner().invoke(study.main, [*command, "--confidence", str(data / "confidence")])
    assert result.exit_code == 1 and "same name" in result.stderr


def test_a_study_from_data_to_page(modules, monkeypatch, data: Path, tmp_path: Path) -> None:
    study, study_runs = modules
    small = {"chip_size": 64, "batch_size": 2, "precision": "fp32"}
    quick = study.replace(RECIPES["best"], **small)
    monkeypatch.setitem(study.RECIPES, "best", quick)
    command = ["leave-set-out", "--data", str(data), "--output", str(tmp_path / "out")]
    command += ["--split", str(data / "split.json"), "--steps", "2", "--device", "cpu"]
    command += ["--gsd", "one=0.5", "--gsd", "two=0.5,2", "--resolution", "1"]
    first = runner().invoke(study.main, [*command, "--only", "without-two"])
    assert first.exit_code == 0, first.output
    page = Path(first.stdout.strip())
    assert page == tmp_path / "out" / "leave-set-out.md"
    (result,) = json.loads(page.with_suffix(".json").read_text())
    assert result["steps"] == 2 and set(result["scores"]) == {
        "one/net1", "one/net2", "two/net1", "two/net2"
    }  # fmt: skip
    assert result["run"]["pixels"] == {"one": [0.5, 0.5], "two": [0.5, 2.0]}
    text = page.read_text()
    assert "| without-two | one/net1 | yes | 2 | miou |" in text
    assert "| without-two | two/net1 | no such labels | 2 | Boundary IoU |" in text
    scores = {name: score["rows"] for name, score in result["scores"].items()}
    unseen = [rows["refined"]["miou"] - rows["cut"]["miou"] for name, rows in scores.items()
              if name.startswith("two/")]  # fmt: skip
    (gains,) = (row for row in text.splitlines() if row.startswith("| without-two |") and "*" in row
                and "**" not in row)  # fmt: skip
    assert gains.split(" | ")[-2].split(" / ")[0] == f"{50 * sum(unseen):+.2f}"
    assert gains.split(" | ")[-1].removesuffix(" |").endswith(" of 4")

    assert runner().invoke(study.main, [*command, "--only", "all"]).exit_code == 0

    def never(*arguments, **options):
        raise AssertionError("a run that is done is not done again")

    monkeypatch.setattr(study_runs, "train", never)
    again = runner().invoke(study.main, [*command, "--only", "without-two"])
    assert again.exit_code == 0 and "done before" in again.stderr
    # What another study has done too is not done again.
    shared = runner().invoke(study.main, ["seeds", *command[1:], "--only", "all"])
    assert shared.exit_code == 0 and "all: done before" in shared.stderr
    elsewhere = [*command[:-6], "--resolution", "1", "--output", str(tmp_path / "new")]
    unsized = runner().invoke(study.main, elsewhere)
    assert unsized.exit_code == 1 and "--gsd SET=M" in unsized.stderr
    other = runner().invoke(study.main, [*command, "--only", "without-two", "--steps", "3"])
    assert other.exit_code == 1 and "other options" in other.stderr


def test_a_patch_beyond_the_usual_overlap_is_scored(
    modules, monkeypatch, data: Path, tmp_path: Path
) -> None:
    """Tiles share whole patches: 128 pixels are half of one of 256, and scoring was refused."""
    study, _ = modules
    monkeypatch.setattr(study, "PATCH_BATCH", 2)
    command = ["patch", "--data", str(data), "--output", str(tmp_path / "out"), "--only", "p256"]
    command += ["--split", str(data / "split.json"), "--steps", "1", "--device", "cpu"]
    done = runner().invoke(study.main, command)
    assert done.exit_code == 0, done.output
    assert "| p256 | one/net1 | yes | 2 | miou |" in (tmp_path / "out" / "patch.md").read_text()
