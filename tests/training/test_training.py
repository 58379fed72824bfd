"""Training on small data, on the disk and through the command line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geothresh.api.models import load_model
from geothresh.api.train import TrainResult
from geothresh.cli import main
from geothresh.errors import InputError, ModelError, OutputError, UsageError
from geothresh.nn.config import PRESETS, LossWeights, NetworkConfig
from geothresh.nn.losses import threshnet_loss
from geothresh.nn.modelfile import digest, read_card
from geothresh.raster.pairs import find_pairs
from geothresh.training import Recipe, loop, state
from geothresh.training.chips import ChipDataset
from geothresh.training.folder_data import pair_sources
from geothresh.training.loop import cosine_rate
from geothresh.training.sizes import preset_of, require_batch
from geothresh.training.threshnet import batches_of
from tests.support.cli_runner import runner
from tests.support.pictures import write
from tests.support.roads import SIDE
from tests.support.trainings import train_flat

QUICK = Recipe(
    epochs=3, chip_size=64, batch_size=4, chips_per_epoch=8, learning_rate=2e-3, precision="fp32"
)


def run(
    data: tuple[Path, list[Path]], output: Path, recipe: Recipe = QUICK, **options: Any
) -> TrainResult:
    drawn = {} if "split" in options else {"validation_fraction": 0.34}
    options = {**drawn, "device": "cpu", "head": "correction", **options}
    return train_flat(data[0], output, confidence=data[1], recipe=recipe, **options)


def test_a_run_writes_model_log_split_and_state(data, tmp_path: Path) -> None:
    steps: list[Any] = []
    rows: list[Any] = []
    result = run(
        data,
        tmp_path / "m.safetensors",
        on_step=lambda *args: steps.append(args),
        on_epoch=rows.append,
    )
    assert (result.epochs, result.steps, result.train_maps, result.validation_maps) == (3, 6, 8, 4)
    assert [(epoch, step, n) for epoch, step, n, _ in steps][:3] == [
        (1, 1, 2),
        (1, 2, 2),
        (2, 1, 2),
    ]
    with result.log.open() as file:
        logged = list(csv.DictReader(file))
    assert [row["epoch"] for row in logged] == ["1", "2", "3"]
    for column in ("train_focal", "train_boundary", "train_cross_entropy", "miou", "boundary_iou"):
        assert 0 <= float(logged[-1][column]) < 10
    assert float(logged[0]["miou/roads/net1"]) == pytest.approx(
        rows[0]["miou/roads/net1"], rel=1e-5
    )
    split = json.loads(result.split.read_text())
    assert len(split["train"]) == 4 and len(split["validation"]) == 2

    card = read_card(result.model)
    assert card.config == dataclasses.replace(PRESETS["small"], head="correction")
    told = card.training
    assert told["epoch"] == result.best_epoch
    assert told["recipe"]["learning_rate"] == 2e-3
    assert told["data"]["train_maps"] == {"roads/net1": 4, "roads/net2": 4}
    assert len(told["data"]["sha256"]) == 64
    assert told["validation"]["miou"] == pytest.approx(rows[result.best_epoch - 1]["miou"])
    refiner = load_model(result.model, device="cpu")
    assert refiner(np.full((1, 64, 64), 0.5, np.float32)).shape == (1, 64, 64)


def test_training_learns(data, tmp_path: Path) -> None:
    rows: list[Any] = []
    recipe = dataclasses.replace(QUICK, epochs=4, chips_per_epoch=16, learning_rate=1e-2)
    run(data, tmp_path / "m.safetensors", recipe, head="confidence", on_epoch=rows.append)
    assert rows[-1]["train_total"] < 0.85 * rows[0]["train_total"]


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_resumed_run_equals_one_that_was_never_stopped(data, tmp_path: Path, schedule) -> None:
    recipe = dataclasses.replace(QUICK, schedule=schedule, ema=0.9, mix=0.5, jitter=0.3, zoom=1.3)
    recipe = dataclasses.replace(recipe, degrade=0.5, synthesise=0.3, dropout=0.2)
    whole = run(data, tmp_path / "whole.safetensors", recipe)

    def stop(row) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut.safetensors", recipe, on_epoch=stop)
    cut = run(data, tmp_path / "cut.safetensors", recipe, resume=True)
    for one, other in ((whole.model, cut.model), (whole.last, cut.last)):
        first, second = load_file(one), load_file(other)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert (cut.steps, cut.best_epoch) == (whole.steps, whole.best_epoch)
    rows = [list(csv.DictReader(file.read_text().splitlines())) for file in (whole.log, cut.log)]
    for first, second in zip(*rows, strict=True):
        assert {**first, "seconds": ""} == {**second, "seconds": ""}


def test_a_run_is_resumed_with_the_same_recipe_and_data_only(data, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    recipe = dataclasses.replace(QUICK, epochs=1)
    run(data, output, recipe)
    with pytest.raises(ModelError, match="another recipe"):
        run(data, output, dataclasses.replace(recipe, learning_rate=1e-3), resume=True)
    with pytest.raises(ModelError, match="another config"):
        run(data, output, recipe, resume=True, patch=32)
    path = data[1][0] / "p0.png"
    write(path, np.zeros((SIDE, SIDE), np.uint8))
    with pytest.raises(ModelError, match="another data"):
        run(data, output, recipe, resume=True)
    with pytest.raises(OutputError, match="exists"):
        run(data, output, recipe)
    with pytest.raises(UsageError, match="one of them"):
        run(data, output, recipe, resume=True, overwrite=True)


def test_a_model_says_which_model_it_was_started_from(data, tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, epochs=1)
    first = run(data, tmp_path / "first.safetensors", recipe)
    assert "init" not in read_card(first.model).training
    second = run(data, tmp_path / "second.safetensors", recipe, init=first.model)
    told = read_card(second.last).training["init"]
    assert told == {"name": "first", "sha256": digest(first.model)}
    with pytest.raises(ModelError, match="another init"):
        run(data, tmp_path / "second.safetensors", recipe, resume=True)


def test_resuming_with_another_split_is_refused_and_harms_nothing(data, tmp_path: Path) -> None:
    output, other = tmp_path / "m.safetensors", tmp_path / "other.json"
    recipe = dataclasses.replace(QUICK, epochs=1)
    result = run(data, output, recipe)
    manifest = result.split.read_text()
    split = json.loads(manifest)
    swapped = {"train": split["validation"], "validation": split["train"]}
    other.write_text(json.dumps(swapped))
    with pytest.raises(ModelError, match="another data"):
        run(data, output, recipe, resume=True, split=other)
    with pytest.raises(ModelError, match="another data"):
        run(data, output, recipe, resume=True, validation_fraction=0.7)
    assert result.split.read_text() == manifest
    assert run(data, output, recipe, resume=True).epochs == 1
    assert run(data, output, recipe, resume=True, validation_fraction=0.15).epochs == 1


@pytest.mark.parametrize(
    "options, kind, said",
    [
        ({"resume": True}, UsageError, "no run to go on with"),
        ({"split": "nowhere.json"}, InputError, "no such file"),
        ({"device": "cuda:99"}, InputError, "CUDA devices are there"),
        ({"split": "m.split.json", "block_size": 512}, UsageError, "so does `block_size"),
        ({"place_pattern": "("}, UsageError, "no regular expression"),
        ({"hold_out": ["testing_*"]}, UsageError, "no id matches"),
        (
            {"recipe": dataclasses.replace(QUICK, batch_size=1)},
            UsageError,
            "`batch_size` 1: .* chip of 64 pixels .* give `batch_size` of 2 or more",
        ),
        (
            {"recipe": dataclasses.replace(QUICK, chips_per_epoch=1)},
            UsageError,
            "1 chip in an epoch: .* give `chips_per_epoch` of 2 or more",
        ),
    ],
)
def test_what_is_wrong_besides_the_data_is_found_before_it_is_read(
    data, tmp_path: Path, options, kind, said
) -> None:
    seen: list[int] = []
    with pytest.raises(kind, match=said):
        run(data, tmp_path / "m.safetensors", on_check=lambda done, _: seen.append(done), **options)
    assert not seen
    # Nothing is left that would stand in the way of the next run.
    assert not list(tmp_path.glob("m.*"))


def test_a_run_that_is_killed_while_it_writes_its_state_can_be_resumed(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, recipe = tmp_path / "m.safetensors", dataclasses.replace(QUICK, epochs=2)
    save_state = state.save_state

    def killed(*arguments, **values) -> None:
        save_state(*arguments, **values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            run(data, output, recipe)
    result = run(data, output, recipe, resume=True)
    with result.log.open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_run_that_was_overwritten_is_not_gone_on_with(data, tmp_path: Path) -> None:
    output, recipe = tmp_path / "m.safetensors", dataclasses.replace(QUICK, epochs=1)
    run(data, output, recipe)

    def stop(*_) -> None:
        raise KeyboardInterrupt

    other = dataclasses.replace(recipe, seed=1)
    with pytest.raises(KeyboardInterrupt):
        run(data, output, other, overwrite=True, on_step=stop)
    with pytest.raises(ModelError, match=r"another recipe \(seed 1, now 0\)"):
        run(data, output, recipe)
    assert run(data, output, other).steps == 2
    whole = run(data, tmp_path / "whole.safetensors", other)
    assert output.read_bytes() == whole.model.read_bytes()


def test_a_chip_left_over_alone_joins_the_step_before(data, tmp_path: Path) -> None:
    assert batches_of(9, 4) == [range(0, 4), range(4, 9)]
    assert batches_of(10, 4) == [range(0, 4), range(4, 8), range(8, 10)]
    assert batches_of(3, 4) == [range(0, 3)]
    assert batches_of(2, 1) == [range(0, 1), range(1, 2)]
    recipe = dataclasses.replace(QUICK, chips_per_epoch=9, epochs=1)
    assert run(data, tmp_path / "m.safetensors", recipe).steps == 2


def test_the_command_refuses_a_step_of_one_chip_in_one_line(data, tmp_path: Path) -> None:
    """It ended in the middle of the first step, as a fault of ours."""
    arguments = ["train", str(data[0]), "--confidence", str(data[1][0]), "--patch", "64"]
    arguments += ["--chip-size", "64", "--batch-size", "1", "-o", str(tmp_path / "m.safetensors")]
    result = runner().invoke(main, arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: --batch-size 1: ")
    assert not list(tmp_path.glob("m.*"))


def test_one_branch_is_not_trained_from_a_model_with_two(data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has branches both, not global"):
        run(
            data,
            tmp_path / "m.safetensors",
            dataclasses.replace(QUICK, branches="global"),
            init="roads",
            head=None,
        )


@pytest.mark.parametrize("ending", ["last.safetensors", "state.safetensors", "csv", "split.json"])
def test_a_file_beside_the_model_is_not_replaced_unasked(data, tmp_path: Path, ending) -> None:
    mine = tmp_path / f"m.{ending}"
    mine.write_text("mine")
    with pytest.raises(OutputError, match=f"m.{ending}: exists"):
        run(data, tmp_path / "m.safetensors")
    assert mine.read_text() == "mine"


def test_a_split_and_patterns_contradict_each_other(data, tmp_path: Path) -> None:
    for options in (
        {"hold_out": ["p0"]}, {"place_pattern": "(p)"}, {"validation_fraction": 0.3},
    ):  # fmt: skip
        with pytest.raises(UsageError, match="one or the other"):
            run(data, tmp_path / "m.safetensors", split=tmp_path / "s.json", **options)


def test_a_split_that_cannot_be_written_is_an_output_error(data, tmp_path: Path) -> None:
    (tmp_path / "m.split.json").mkdir()
    with pytest.raises(OutputError, match="m.split.json"):
        run(data, tmp_path / "m.safetensors")


def test_the_run_stops_when_the_training_loss_stalls(data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_step", lambda *args: {"total": 1.0})
    recipe = dataclasses.replace(QUICK, epochs=50, stop_patience=3, patience=1)
    rows: list[Any] = []
    result = run(data, tmp_path / "m.safetensors", recipe, on_epoch=rows.append)
    assert result.epochs == 4
    assert [row["learning_rate"] for row in rows] == pytest.approx([2e-3, 2e-3, 2e-3, 2e-4])


def test_a_device_without_bf16_trains_in_fp32(data, tmp_path: Path, monkeypatch) -> None:
    seen = set()

    def step(task, *_) -> dict[str, float]:
        seen.add(task.dtype)
        return {"total": 1.0}

    monkeypatch.setattr(loop, "pick_dtype", lambda *args: torch.float16)
    monkeypatch.setattr(loop, "_step", step)
    run(data, tmp_path / "m.safetensors", dataclasses.replace(QUICK, epochs=1))
    assert seen == {torch.float32}


def test_a_loss_that_is_not_finite_ends_the_run(data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_step", lambda *args: {"total": float("nan")})
    with pytest.raises(ModelError, match="`learning_rate`"):
        run(data, tmp_path / "m.safetensors")


def test_weights_that_are_not_finite_are_no_model(data, tmp_path: Path, monkeypatch) -> None:
    """The loss of a step is of the weights before it: that of the last step tells nothing."""

    def step(task, *_) -> dict[str, float]:
        with torch.no_grad():
            next(task.network.parameters()).fill_(math.inf)
        return {"total": 1.0}

    monkeypatch.setattr(loop, "_step", step)
    output = tmp_path / "m.safetensors"
    with pytest.raises(ModelError) as caught:
        run(data, output)
    assert str(caught.value) == (
        "the weights are not finite in epoch 1, step 2; lower `learning_rate` and start anew"
    )
    assert not output.exists() and not (tmp_path / "m.last.safetensors").exists()


def test_a_network_that_overflows_is_no_model(data, tmp_path: Path, monkeypatch) -> None:
    def step(task, *_) -> dict[str, float]:
        with torch.no_grad():
            for weights in task.network.parameters():
                weights.fill_(3e38)
        return {"total": 1.0}

    monkeypatch.setattr(loop, "_step", step)
    with pytest.raises(ModelError, match="confidences of roads/net1 are not finite; lower"):
        run(data, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_network_without_a_pyramid_pools_a_chip_by_its_encoder_alone() -> None:
    config = dataclasses.replace(PRESETS["small"], pool_sizes=())
    require_batch(config, chip_size=64, batch_size=1, n_chips=1)
    with pytest.raises(UsageError, match="pools a chip of 32 pixels into one cell"):
        require_batch(config, chip_size=32, batch_size=1, n_chips=1)


def test_the_cosine_warms_up_and_ends_at_the_least_rate() -> None:
    rates = [cosine_rate(k, 200, highest=1e-3, least=1e-6) for k in range(201)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) * 1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[200] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"mix": 2.0}, {"ema": -0.1}, {"batch_size": 0}, {"zoom": 0.0}]
)
def test_recipes_that_make_no_sense_are_refused(change) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(QUICK, **change)


def test_the_command_trains_and_prints_the_model(data, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    arguments = ["train", str(data[0]), "-o", str(output), "--epochs", "1", "--chip-size", "64"]
    arguments += ["--recipe", "paper"]
    for network in data[1]:
        arguments += ["--confidence", str(network)]
    result = runner().invoke(main, [*arguments, "--hold-out", "p[01]", "--device", "cpu"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(output)
    assert "best epoch 1: validation miou " in result.stderr
    assert json.loads((tmp_path / "m.split.json").read_text())["validation"] == ["p0", "p1"]
    again = runner().invoke(main, arguments)
    assert again.exit_code == 4 and "exists" in again.stderr
    quiet = runner().invoke(main, [*arguments, "--hold-out", "p[01]", "--overwrite", "-q"])
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_the_command_finds_broken_data_before_the_first_epoch(data, tmp_path: Path) -> None:
    (data[0] / "p3_mask.png").write_text("no picture")
    output = tmp_path / "m.safetensors"
    result = runner().invoke(
        main, ["train", str(data[0]), "--confidence", str(data[1][0]), "-o", str(output)]
    )
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: ") and "p3_mask.png" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("m.*"))


def test_unusable_data_is_said_by_python_too(data, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        train_flat(tmp_path / "none", tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="safetensors"):
        train_flat(data[0], tmp_path / "m.pt")


def test_maps_in_folders_are_valid_everywhere_and_the_mask_changes_no_loss(data) -> None:
    recipe = dataclasses.replace(QUICK, chip_size=128, zoom=1.5)
    chips = ChipDataset(pair_sources(find_pairs(data[0], data[1])), recipe, patch=32)
    batch = [
        torch.from_numpy(np.stack(part)) for part in zip(*(chips[k] for k in range(6)), strict=True)
    ]
    confidence, target, truth, valid = batch
    assert valid.all()
    logits = [(confidence * scale - 1).requires_grad_(True) for scale in (3, 2)]
    outcomes = []
    for mask in (None, valid):
        found = threshnet_loss(
            confidence=confidence,
            logits=logits,
            region_target=target,
            truth=truth,
            weights=LossWeights(overlap=1.0, centerline=1.0, harm=1.0),
            valid=mask,
        )
        outcomes.append((found, torch.autograd.grad(found["total"], logits)))
    for name, value in outcomes[0][0].items():
        assert outcomes[1][0][name].item() == pytest.approx(value.item(), rel=1e-6), name
    for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (dataclasses.replace(PRESETS["small"], patch=32, head="correction"), "small"),
        (dataclasses.replace(PRESETS["full"], patch=16, branches="local"), "full"),
        (NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16, shuffle=2), "own"),
        (NetworkConfig(patch=256, shuffle=16), "own"),
    ],
)
def test_the_preset_of_any_network_is_known(config: NetworkConfig, name: str) -> None:
    assert preset_of(config) == name
