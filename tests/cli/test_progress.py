"""How far a command is: a bar, lines, JSON, the time that is left, and what each leaves unsaid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import click
import pytest

from geothresh.cli import main, options
from geothresh.cli.progress import (
    Json,
    Lines,
    Pace,
    Steps,
    Update,
    checking,
    duration,
    reporting,
    training_steps,
)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def at(done: int, seconds: float, **facts: Any) -> Update:
    return Update(kind="refine", stage=facts.pop("stage", "refine"), unit="tile", done=done,
                  total=100, seconds=seconds, eta=facts.pop("eta", None), **facts)  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_the_time_left_counts_only_what_this_run_does() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    clock.now = 5.0
    # 60 tiles were done by an earlier run.
    assert pace.at(60, 100) == (5.0, None)
    clock.now = 15.0
    assert pace.at(70, 100) == (15.0, 30.0)
    clock.now = 45.0
    assert pace.at(100, 100) == (45.0, 0.0)


def test_each_pass_has_a_pace_of_its_own() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for second in range(1, 11):
        clock.now = float(second)
        pace.at(second, 10)
    for part in range(1, 4):
        clock.now += 100.0
        seconds, eta = pace.at(part, 10)
    assert (seconds, eta) == (310.0, 700.0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (18600, "5 h 10 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_lines_come_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for second in range(150):
        lines.show(at(second // 2, float(second), eta=150.0 - second, loss=0.5))
    assert printed(capsys) == [
        "refine: 30 of 100 tiles (30 %), loss 0.5000, 1 min 0 s so far, 1 min 30 s left",
        "refine: 60 of 100 tiles (60 %), loss 0.5000, 2 min 0 s so far, 30 s left",
    ]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Json()
    for done in range(101):
        shown.show(
            at(done, done / 100, eta=(100 - done) / 100, stage="epoch 1/2", loss=float(done))
        )
    shown.tell_epoch("train", {"epoch": 1, "miou": float("nan"), "learning_rate": 1e-3})
    shown.end(at(100, 1.0, eta=0.0))
    lines = [json.loads(line, parse_constant=pytest.fail) for line in printed(capsys)]
    assert [line["event"] for line in lines] == ["progress"] * 6 + ["epoch", "end"]
    assert lines[1] == {
        "kind": "refine", "event": "progress", "done": 20, "total": 100, "unit": "tile",
        "seconds": 0.2, "eta": 0.8, "stage": "epoch 1/2", "loss": 20.0,
    }  # fmt: skip
    assert lines[5]["done"] == 100
    assert lines[6] == {
        "kind": "train", "event": "epoch", "epoch": 1, "miou": None, "learning_rate": 0.001
    }  # fmt: skip
    assert lines[7] == {
        "kind": "refine", "event": "end", "done": 100, "total": 100, "unit": "tile",
        "seconds": 1.0, "eta": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("how", "quiet", "expected"),
    [
        ("bar", True, "4/4"),
        ("json", True, '"event": "end"'),
        ("lines", False, None),
        ("none", False, None),
        ("auto", False, None),
        ("auto", True, None),
    ],
)
def test_what_is_shown_of_a_short_work(
    capsys: pytest.CaptureFixture[str], how: str, quiet: bool, expected: str | None
) -> None:
    with click.Context(main) as ctx:
        ctx.meta["geothresh.verbosity"] = -1 if quiet else 0
        with reporting(how, "probe") as report:
            assert (report is None) is (how == "none" or (how == "auto" and quiet))
            if report is not None:
                report(1, 4)
                report(4, 4)
    said = "\n".join(printed(capsys))
    assert expected in said if expected else said == ""


def test_a_work_that_fails_has_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), reporting("json", "probe") as report:
        assert report is not None
        report(1, 4)
        raise KeyboardInterrupt
    (line,) = printed(capsys)
    assert json.loads(line)["event"] == "progress"


def test_the_look_at_the_data_ends_before_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    with checking("json") as on_check, training_steps("json") as steps:
        assert on_check is not None
        on_check(1, 1)
        steps("train", 1, 1, 0.25)
    told = [(line["kind"], line["event"]) for line in map(json.loads, printed(capsys))]
    assert told == [
        ("check data", "progress"), ("check data", "end"), ("train", "progress"), ("train", "end"),
    ]  # fmt: skip


def test_the_loss_at_the_end_is_a_mean() -> None:
    steps = Steps(None)
    assert steps.recent_loss() is None
    alone = Steps(None)
    alone("train", 1, 9, 0.5)
    assert alone.recent_loss() == "loss 0.5000 over the last step"
    for step in range(1, 301):
        steps("train", step, 300, float(step > 250))
    assert steps.recent_loss() == "loss 0.5000 over the last 100 steps"


def test_the_scores_of_the_best_epoch_are_told_at_the_end() -> None:
    steps = Steps(None)
    row = {"train_total": 0.5, "learning_rate": 1e-3, "seconds": 1.0}
    steps.tell_epoch({**row, "epoch": 2, "miou": 0.7, "boundary_iou": 0.45})
    assert steps.scores(2) == "validation miou 70.00, Boundary IoU 45.00"
    assert steps.scores(1) is None


def test_the_option_names_one_of_five(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @options.progress
    def command(progress: str) -> None:
        click.echo(progress)

    for given, word in (
        ([], "auto"),
        (["--progress", "json"], "json"),
        (["--no-progress"], "none"),
    ):
        command(given, standalone_mode=False)
        assert capsys.readouterr().out == f"{word}\n"


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_terminal_without_a_size_shows_the_bar() -> None:
    """A pseudo-terminal of another program often has 0 columns: the bar was blank there."""
    import pty

    code = (
        "import click\nfrom geothresh.cli import main\n"
        "from geothresh.cli.progress import reporting\n"
        "with click.Context(main), reporting('auto', 'probe') as report:\n"
        "    report(1, 4)\n    report(4, 4)\n"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            said += part
    os.close(ours)
    assert process.returncode == 0
    assert b"probe: 100%" in said and b"4/4" in said
