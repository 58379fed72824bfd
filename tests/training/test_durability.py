"""A run that was stopped, killed or hurt goes on to the same bytes, or says why it does not."""

from __future__ import annotations

import csv
import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geothresh.api.train import TrainResult
from geothresh.api.train_base import train_base
from geothresh.cli import faults, main
from geothresh.durability.locking import only_run
from geothresh.durability.resuming import earlier_state, find_state
from geothresh.errors import DeviceLostError, GeothreshWarning, ModelError, OutputError
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import require_seal, save_model
from geothresh.nn.network import ThreshNet
from geothresh.training import Recipe, loop, threshnet, validation
from tests.support.cli_runner import runner
from tests.support.roads import make_roads
from tests.support.trainings import Killed, killed_at_a_rename, train_flat

QUICK = Recipe(
    epochs=2,
    chip_size=64,
    batch_size=2,
    chips_per_epoch=4,
    dropout=0.2,
    ema=0.9,
    precision="fp32",
)
MADE = (".safetensors", ".last.safetensors", ".split.json")


def run(folder: Path, name: str, recipe: Recipe = QUICK, **options: Any) -> TrainResult:
    data = folder.parent / "roads"
    start = folder.parent / "tiny.safetensors"
    options = {"validation_fraction": 0.34, "device": "cpu", "init": start, **options}
    return train_flat(data, folder / f"{name}.safetensors", recipe=recipe, **options)


def made(folder: Path, name: str) -> list[bytes]:
    return [(folder / f"{name}{ending}").read_bytes() for ending in MADE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside the data, with what an uninterrupted run made under the name whole."""
    here = tmp_path_factory.mktemp("training")
    data, networks = make_roads(here)
    shutil.copytree(networks[0], data / "confidence")
    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=32, shuffle=4)
    tensors = ThreshNet(config).state_dict()
    save_model(here / "tiny.safetensors", tensors=tensors, config=config, training={})
    (here / "out").mkdir()
    run(here / "out", "whole")
    return here / "out"


@pytest.fixture
def stopped(folder: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Makes a run that ended after so many epochs, as m.safetensors in a folder of its own."""

    def stop(epochs: int, name: str = "m") -> Path:
        place = folder.parent / tmp_path.name
        place.mkdir(exist_ok=True)

        def on_epoch(row: Any) -> None:
            if row["epoch"] == epochs:
                raise Killed

        with pytest.raises(Killed):
            run(place, name, on_epoch=on_epoch)
        return place

    return stop


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    """safetensors shuffles the metadata: two runs were never byte-equal."""
    config = NetworkConfig()
    facts = {"a": 1, "b": [2.5, None], "c": {"é": "ü"}}
    for name in "abcdefgh":
        save_model(tmp_path / name, tensors={}, config=config, training=facts)
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


@pytest.mark.parametrize("apart", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_same_call_again_goes_on_wherever_it_was_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """Killed after each of its renames, or each fourth, with a state after every step."""
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    place = folder.parent / tmp_path.name
    place.mkdir()
    kill_after = killed_at_a_rename(monkeypatch)
    kills = 0
    while True:
        kills += apart
        kill_after(kills)
        name = f"k{kills}"
        try:
            run(place, name)
        except Killed:
            try:
                run(place, name)
            except OutputError as error:
                # Killed when all was done.
                assert "exists already" in str(error)
        else:
            break
        assert made(place, name) == made(folder, "whole"), f"killed at rename {kills}"
    # Five states, the manifest, two epochs of last, best and log, and what was kept of each state.
    assert kills > 12
    assert not [file for file in place.iterdir() if file.suffix in (".tmp", ".lock")]


def test_a_run_goes_on_within_an_epoch(folder: Path, stopped, monkeypatch) -> None:
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    place = folder.parent / "within"
    place.mkdir()
    steps: list[tuple[int, int]] = []

    def stop(epoch: int, step: int, *_: Any) -> None:
        if (epoch, step) == (2, 1):
            raise Killed

    with pytest.raises(Killed) as caught:
        run(place, "m", on_step=stop)
    assert caught.value.__notes__ == ["the same command goes on in epoch 2 of 2, after step 1"]
    run(place, "m", on_step=lambda epoch, step, *_: steps.append((epoch, step)))
    assert steps == [(2, 2)]
    assert made(place, "m") == made(folder, "whole")
    with (place / "m.csv").open() as one, (folder / "whole.csv").open() as other:
        for first, second in zip(csv.DictReader(one), csv.DictReader(other), strict=True):
            assert {**first, "seconds": ""} == {**second, "seconds": ""}


def test_a_finished_run_is_not_made_again_unasked(folder: Path) -> None:
    before = made(folder, "whole")
    with pytest.raises(OutputError, match="whole.safetensors: exists already"):
        run(folder, "whole")
    assert run(folder, "whole", resume=True).epochs == 2
    assert made(folder, "whole") == before


def test_no_resume_takes_an_earlier_run_for_files_in_the_way(stopped) -> None:
    place = stopped(1)
    with pytest.raises(OutputError, match="m.safetensors: exists already"):
        run(place, "m", resume=False)


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:4],
        lambda content: b"",
        lambda content: bytes(64) + content[64:],
        *(
            lambda content, share=share: flipped(content, int(share * (len(content) - 1)))
            for share in (0.0, 0.5)
        ),
        *(
            pytest.param(
                lambda content, share=share: flipped(content, int(share * (len(content) - 1))),
                marks=pytest.mark.slow,
            )
            for share in (0.0001, 0.001, 1.0)
        ),
    ],
)
def test_a_damaged_state_is_told_and_the_one_before_it_taken(folder: Path, stopped, harm) -> None:
    place = stopped(1)
    state = place / "m.state.safetensors"
    state.write_bytes(harm(state.read_bytes()))
    told = r"m\.state\.safetensors: is damaged .*; going on from the one before it, m\.state\.prev"
    with pytest.warns(GeothreshWarning, match=told):
        run(place, "m")
    assert made(place, "m") == made(folder, "whole")


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_state_that_is_missing_is_no_damage(folder: Path, stopped) -> None:
    """A kill between the two renames leaves the earlier one alone."""
    place = stopped(1)
    (place / "m.state.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(place, "m")
    assert made(place, "m") == made(folder, "whole")


def test_two_damaged_states_end_the_run(stopped) -> None:
    place = stopped(1)
    state = place / "m.state.safetensors"
    for file in (state, earlier_state(state)):
        file.write_bytes(flipped(file.read_bytes(), 3000))
    with pytest.warns(GeothreshWarning, match="it is no use"):
        assert find_state(state, require_seal) is None
    with pytest.warns(GeothreshWarning), pytest.raises(OutputError, match="add `overwrite"):
        run(place, "m")
    with pytest.warns(GeothreshWarning), pytest.raises(ModelError, match="no state is whole"):
        run(place, "m", resume=True)


def test_what_differs_is_said_before_the_data_is_read(stopped) -> None:
    place, seen = stopped(1), []
    other = dataclasses.replace(QUICK, learning_rate=1e-3, seed=4)
    with pytest.raises(ModelError) as caught:
        run(place, "m", other, on_check=lambda done, _: seen.append(done))
    assert (
        "another recipe (learning_rate 0.0008, now 0.001, seed 0, now 4); give the same options "
        "and data again, or start anew with `overwrite`"
    ) in str(caught.value)
    assert not seen
    with pytest.raises(ModelError, match=r"another config \(blocks .*patch 32, now 64"):
        run(place, "m", init=None)
    with pytest.raises(ModelError, match="another data .*train_ids|another data .*sha256"):
        run(place, "m", hold_out=["p0"])
    assert run(place, "m").epochs == 2


def test_two_runs_of_one_output_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    with only_run(output):
        for make in (lambda: run(tmp_path, "m", init=None), lambda: train_base(folder, output)):
            with pytest.raises(OutputError, match="another run is making it"):
                make()
        # Another output is free.
        with only_run(tmp_path / "n.safetensors"):
            pass
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from geothresh.durability.locking import only_run\n"
        "with only_run(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    output = tmp_path / "m.safetensors"
    done = subprocess.run([sys.executable, "-c", code, str(output)])
    assert done.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == [".m.safetensors.lock"]
    with only_run(output):
        pass
    assert not list(tmp_path.iterdir())


# --- As a command.

SLOW = (
    "import sys, time\n"
    "from geothresh.training import loop\n"
    "step = loop._step\n"
    "def slowly(*arguments):\n"
    "    time.sleep(0.3)\n"
    "    return step(*arguments)\n"
    "loop._step = slowly\n"
    "from geothresh.cli import main\n"
    "main(sys.argv[1:], prog_name='geothresh')\n"
)


def arguments(folder: Path, output: Path) -> list[str]:
    return [
        "train", str(folder.parent / "roads"), "-o", str(output), "--recipe", "paper",
        "--init", str(folder.parent / "tiny.safetensors"), "--epochs", "2", "--chip-size", "64",
        "--batch-size", "2", "--chips-per-epoch", "4", "--dropout", "0.2", "--ema", "0.9",
        "--precision", "fp32", "--device", "cpu", "--validation-fraction", "0.34",
        "--progress", "none",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def by_command(folder: Path) -> Path:
    output = folder / "told.safetensors"
    assert runner().invoke(main, arguments(folder, output)).exit_code == 0
    return output


@pytest.mark.slow
@pytest.mark.parametrize(
    "signum, workers",
    [(signal.SIGINT, "0"), (signal.SIGTERM, "2")],
)
def test_a_signal_ends_the_run_in_one_line_that_says_how_to_go_on(
    folder: Path, by_command: Path, tmp_path: Path, signum: signal.Signals, workers: str
) -> None:
    """To the whole group of processes, as a terminal sends it."""
    output = tmp_path / "m.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments(folder, output), "--loader-workers", workers],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not (tmp_path / "m.split.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signum)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20  # well below 5 on a machine that does nothing else
    assert (process.returncode, out) == (128 + signum, "")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    name = signal.Signals(signum).name
    assert err == f"Stopped by {name}; the same command goes on from the first step.\n"
    assert not [file for file in tmp_path.iterdir() if file.suffix in (".tmp", ".lock")]
    done = runner().invoke(main, arguments(folder, output))
    assert (done.exit_code, done.stdout) == (0, f"{output}\n"), done.stderr
    assert output.read_bytes() == by_command.read_bytes()


def test_a_signal_that_went_unheard_is_raised_at_the_next_step(monkeypatch) -> None:
    """Python ignores what a handler raises while a destructor runs."""

    class Deaf:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        with faults._signals_raised():
            faults.require_not_stopped()
            Deaf()
            assert not lost  # nothing is printed of what is raised again below
            with pytest.raises(faults.Terminated):
                faults.require_not_stopped(1, 2, 3, 0.5)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, before[number])
    with faults._signals_raised():  # the next command of this process begins anew
        faults.require_not_stopped()


def test_a_full_disk_ends_the_run_and_leaves_the_state(
    folder: Path, by_command: Path, tmp_path: Path
) -> None:
    output, state = tmp_path / "m.safetensors", tmp_path / "m.state.safetensors"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The first state has no moments: it can be written, and the next one cannot.
    least = by_command.stat().st_size * 3
    before = None
    for _ in range(2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, limit[1]))
        try:
            done = runner().invoke(main, arguments(folder, output))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert done.exit_code == 4 and done.stderr.count("\n") == 1, done.stderr
        assert "File too large); the same command goes on from the first step" in done.stderr
        assert before is None or state.read_bytes() == before
        before = state.read_bytes()
        assert not [file for file in tmp_path.iterdir() if file.suffix in (".tmp", ".lock")]
    assert runner().invoke(main, arguments(folder, output)).exit_code == 0
    assert output.read_bytes() == by_command.read_bytes()


def test_the_command_says_what_it_goes_on_with(stopped, folder: Path) -> None:
    place = stopped(1)
    given = arguments(folder, place / "m.safetensors")
    other = runner().invoke(main, [*given, "--learning-rate", "0.5"])
    assert other.exit_code == 5 and other.stderr.count("\n") == 1
    assert "learning_rate 0.0008, now 0.5" in other.stderr
    both = runner().invoke(main, [*given, "--resume", "--overwrite"])
    assert both.exit_code == 2


@pytest.mark.parametrize(
    ("place", "name"), [("a step", "threshnet_loss"), ("the validation", "score_network")]
)
def test_memory_that_runs_out_is_told_and_a_lost_gpu_is_gone_on_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    calls: list[int] = []
    fault: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise fault
        return real(*args, **options)

    module, target = (threshnet, name) if name == "threshnet_loss" else (validation, "refine_map")
    real = getattr(module, target)
    run_name = name.replace("_", "")
    with monkeypatch.context() as patch:
        patch.setattr(module, target, failing)
        advice = "lower `batch_size` or `chip_size`" if place == "a step" else "end what else runs"
        with pytest.raises(ModelError, match=f"{place}.* does not fit in the memory.*{advice}"):
            run(folder, run_name, overwrite=True)
        calls.clear()
        fault = torch.AcceleratorError("CUDA error: unspecified launch failure")
        with pytest.raises(DeviceLostError, match="is lost") as caught:
            run(folder, run_name, overwrite=True)
        assert any("goes on" in note for note in caught.value.__notes__)
    run(folder, run_name)
    assert made(folder, run_name) == made(folder, "whole")
