"""The fuzzer itself: a few dozen of its cases keep the rules, and what breaks them is found."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geothresh.cli import main
from tests.fuzz import cases, pool
from tests.fuzz.cases import Case, Outcome, run_case
from tests.fuzz.fuzz import fuzz, table
from tests.fuzz.mutations import MOST, mutated, mutated_name


@pytest.mark.slow
def test_forty_cases_keep_the_rules(tmp_path: Path) -> None:
    sizes = {"geotiff": 24, "checkpoint": 4, "geopackage": 12}
    outcomes = fuzz(sizes, seed=2, workers=1, findings=tmp_path / "found", base=False, say=False)
    assert [outcome for outcome in outcomes if outcome.problem is not None] == []
    assert len(outcomes) == 40 and len({outcome.code for outcome in outcomes}) >= 3
    assert not (tmp_path / "found").exists()
    assert "geotiff     all            24" in table(outcomes)


def test_damage_is_small_and_the_same_for_the_same_seed() -> None:
    content = np.random.default_rng(0).bytes(5000)
    different = 0
    for seed in range(200):
        one, other = (mutated(content, np.random.default_rng(seed), head=100) for _ in range(2))
        assert one == other
        different += one != content
        if one.startswith(content[:-MOST]) or len(one) > len(content) - MOST:
            assert abs(len(one) - len(content)) <= MOST
    assert different > 190


def test_names_stay_in_their_directory() -> None:
    for seed in range(500):
        name = mutated_name("v.gpkg", np.random.default_rng(seed))
        assert "/" not in name and "\0" not in name


def a_file(rng: np.random.Generator, seeds: dict[str, list[str]]) -> Case:
    Path("x.tif").write_text("no raster")
    return Case(arguments=["info", "x.tif"])


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (lambda: print("fine"), None),
        (lambda: 1 / 0, "exit code 1"),
        (lambda: Path("left.tmp").touch(), "files ['./left.tmp'], expected []"),
    ],
)
def test_what_breaks_the_rules_is_found(
    body: Any, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cases.KINDS, "geotiff", a_file)
    command = main.get_command(None, "info")
    assert command is not None
    monkeypatch.setattr(command, "callback", lambda **_: body())
    outcome = run_case("geotiff", 0, seed=0, seeds={}, folder=tmp_path / "case")
    assert (outcome.problem or "").startswith(problem or ""), outcome
    assert (outcome.problem is None) == (problem is None)


def die(*arguments: object, **options: object) -> Outcome:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("it lived on")


def hang(*arguments: object, **options: object) -> Outcome:
    time.sleep(600)
    raise AssertionError("it woke up")


def serve_dying(*arguments: Any) -> None:
    patch = pytest.MonkeyPatch()  # for as long as the process lives
    patch.setattr(pool, "run_case", die)
    patch.setattr(pool, "load_models_once", lambda: None)
    pool.serve(*arguments)


def serve_hanging(*arguments: Any) -> None:
    patch = pytest.MonkeyPatch()  # for as long as the process lives
    patch.setattr(pool, "run_case", hang)
    patch.setattr(pool, "load_models_once", lambda: None)
    pool.serve(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("serving", "starting", "code", "problem"),
    [
        (serve_dying, 60.0, -signal.SIGSEGV, "the process died: -11"),
        (serve_hanging, 1.0, -9, "no end after"),
    ],
)
def test_a_process_that_dies_or_hangs_is_told_and_replaced(
    serving: Any,
    starting: float,
    code: int,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "TARGET", serving)
    kept: list[Outcome] = []
    outcomes = list(
        pool.run_all(
            [("geotiff", 0), ("geotiff", 1)], seed=0, seeds={}, folder=tmp_path, workers=1,
            keep=lambda outcome, place: kept.append(outcome), hangs=0.5, starting=starting,
        )
    )  # fmt: skip
    assert outcomes == kept
    assert [(outcome.number, outcome.code) for outcome in kept] == [(0, code), (1, code)]
    assert all((outcome.problem or "").startswith(problem) for outcome in kept)


def test_a_finding_is_kept_with_all_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome(
        kind="geotiff", number=3, command="info", code=1, problem="exit code 1", seconds=0.1
    )

    def run(tasks: object, *, folder: Path, keep: Any, **options: object) -> Any:
        place = folder / "worker0" / "case"
        place.mkdir(parents=True)
        (place / "x.tif").write_text("damaged")
        place.with_name("case.json").write_text('["info", "x.tif"]')
        keep(outcome, place)
        yield outcome

    monkeypatch.setattr("tests.fuzz.fuzz.run_all", run)
    monkeypatch.setattr("tests.fuzz.fuzz.make_all", lambda folder, base: {})
    assert fuzz({}, seed=5, workers=1, findings=tmp_path, say=False) == [outcome]
    found = tmp_path / "seed5-geotiff-3"
    assert (found / "files" / "x.tif").read_text() == "damaged"
    told = json.loads((found / "finding.json").read_text())
    assert told["arguments"] == ["info", "x.tif"] and told["seed"] == 5
