"""The plugin as far as it goes without QGIS: options, command lines, runs, its sources."""

from __future__ import annotations

import ast
import configparser
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import geothresh
from geothresh.cli import main
from geothresh.cli.qgis import vocabulary
from geothresh.qgis import arguments, runner
from geothresh.qgis.vocabulary import LEFT_OUT, Command, Option, Vocabulary

SOURCES = Path(geothresh.__file__).parent / "qgis"
# What `algorithms.py` makes of the options whose values are files.
INPUTS = {"refine": {"aoi", "calibration"}, "vectorize": {"confidence"}, "compare": set()}
OUTPUTS = {
    "refine": {"confidence", "changes", "thresholds", "vector", "report"}, "vectorize": set(),
    "compare": set(),
}  # fmt: skip


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return dict(json.loads(json.dumps(vocabulary(), allow_nan=False)))


@pytest.fixture(scope="module")
def known(stored: dict[str, Any]) -> Vocabulary:
    return Vocabulary.of(stored)


def command_of(name: str) -> click.Command:
    with click.Context(main) as ctx:
        command = main.get_command(ctx, name)
    assert command is not None
    return command


def test_every_option_of_the_commands_is_known_or_left_out(known: Vocabulary) -> None:
    everything = set()
    for name, command in known.commands.items():
        options = {p.name for p in command_of(name).params if isinstance(p, click.Option)}
        assert {option.name for option in command.options} == options - LEFT_OUT.keys()
        everything |= options
    assert everything >= LEFT_OUT.keys(), "left out, and no option any more"


def test_it_is_known_what_each_file_is(known: Vocabulary) -> None:
    """A new option of files is to be told to `algorithms.py`, or to be left out."""
    for name, command in known.commands.items():
        files = {option.name for option in command.options if option.kind == "file"}
        assert files == INPUTS[name] | OUTPUTS[name]


def test_the_vocabulary_names_what_runs_it(known: Vocabulary) -> None:
    assert known.executable == (sys.executable, "-m", "geothresh")
    assert known.version == geothresh.__version__ and "roads" in known.models
    assert known.commands["refine"].option("scale").words == ()
    assert known.commands["refine"].option("blend").words[0] == "hann"
    assert known.commands["refine"].option("threshold").most == 1
    assert known.commands["refine"].option("thresholds").parameter == "THRESHOLDS"


def example(option: Option) -> Any:
    """A value that is not the default."""
    return {
        "flag": not option.default, "choice": option.words[-1:] and option.words[-1], "whole": 7,
        "number": -9999.0 if option.least is None else 0.25, "word": "3.5", "text": "a text",
        "file": "/some where/a=b.tif", "bounds": "-3.0,2.0,1.5,4.0", "pairs": "TILED=YES|ZLEVEL=3",
    }[option.kind]  # fmt: skip


@pytest.mark.parametrize("name", ["refine", "vectorize", "compare"])
def test_command_lines_say_what_was_given(known: Vocabulary, name: str) -> None:
    """click itself reads them back, each option on its own."""
    command, parser = known.commands[name], command_of(name)
    inputs = ["-a.tif", "b.tif"][: 2 if name == "compare" else 1]

    def read(values: dict[str, Any]) -> dict[str, Any]:
        outputs = {"--output": "/out put/-x.tif"}
        words = arguments.command_line(command, inputs, outputs, values)
        assert words[0] == name
        with parser.make_context(name, words[1:]) as ctx:
            # Of many scenes or masks that a command may take, QGIS gives one.
            return {
                k: v[0] if k in ("scene", "mask") and isinstance(v, tuple) else v
                for k, v in ctx.params.items()
            }

    usual = read({})
    assert (usual["progress"], str(usual["output"])) == ("json", "/out put/-x.tif")
    assert read({option.name: option.default for option in command.options}) == usual
    for option in command.options:
        value = example(option)
        if option.name == "batch_size":
            value = "3"
        found = read({option.name: value})
        changed = {key for key in usual if found[key] != usual[key]}
        assert changed == {option.name}, option
        text = str(found[option.name])
        if option.kind in ("choice", "whole", "number", "word", "text", "file", "flag"):
            assert text in (str(value), f"{value}.0"), option
    assert [str(usual[key]) for key in ("scene", "mask", "before", "after") if key in usual] == (
        inputs
    )


def test_the_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "geothresh"
    own.write_text("")
    own.chmod(0o755)
    assert arguments.find_executable(str(own), ["x"]) == [str(own)]
    assert arguments.find_executable("", [str(own), "-m"]) == [str(own), "-m"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arguments.find_executable("", ["/gone/python", "-m"]) == [str(own)]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(arguments.NotFound, match="not on PATH; set it in Settings"):
        arguments.find_executable("", [])
    with pytest.raises(arguments.NotFound, match="no such executable"):
        arguments.find_executable("/gone", [sys.executable])


class Log:
    """A feedback that writes down what it is told."""

    def __init__(self, cancel_at: float = 101.0) -> None:
        self.progress: list[float] = []
        self.texts: list[str] = []
        self.said: list[tuple[str, str]] = []
        self.cancel_at = cancel_at

    def isCanceled(self) -> bool:
        return bool(self.progress) and self.progress[-1] >= self.cancel_at

    def setProgress(self, progress: float) -> None:
        self.progress.append(progress)

    def setProgressText(self, text: str) -> None:
        self.texts.append(text)

    def pushInfo(self, info: str) -> None:
        self.said.append(("info", info))

    def pushWarning(self, warning: str) -> None:
        self.said.append(("warning", warning))

    def pushCommandInfo(self, info: str) -> None:
        self.said.append(("command", info))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


REPORTING = """
import sys
from geothresh.cli import main
from geothresh.cli.progress import reporting
import click
with click.Context(main), reporting("json", "refine") as report:
    for done in range(1, 5):
        report(done, 4)
print("Warning: odd pixels", "4 tiles refined", sep="\\n", file=sys.stderr)
print("mask.tif")
"""


@pytest.fixture
def package_on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variables that are kept from the command are those of QGIS; here they are ours."""
    monkeypatch.setattr(runner, "environment", dict)
    monkeypatch.setenv("PYTHONPATH", str(SOURCES.parent.parent))
    yield


def test_a_run_and_what_it_tells(package_on_path: None) -> None:
    """The lines are those that `--progress json` writes."""
    log = Log()
    assert runner.run(python(REPORTING), log, begin=50, end=100) == "mask.tif"
    # Updates within a fifth of a second are left out.
    assert log.progress[0] == 62.5 and log.progress[-1] == 100
    assert log.texts[0] == "refine: 1 of 4 tiles"
    assert log.said[1:] == [("warning", "odd pixels"), ("info", "4 tiles refined")]


def test_an_error_is_its_one_line() -> None:
    said = "Usage: geothresh refine\\n\\nError: x.tif: torn\\n"
    with pytest.raises(runner.Failed, match=r"^x.tif: torn$"):
        runner.run(python(f"import sys; sys.stderr.write('{said}'); sys.exit(3)"), Log())
    with pytest.raises(runner.Failed, match="exit code 9"):
        runner.run(python("import sys; sys.exit(9)"), Log())
    with pytest.raises(runner.Failed, match="cannot be started"):
        runner.run(["/gone/geothresh"], Log())


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a run is ended without a signal")
def test_cancelling_lets_the_command_tidy_up(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        "def end(*_):\n"
        f"    pathlib.Path({str(tmp_path / 'tidy')!r}).touch()\n"
        "    print('Stopped by SIGTERM; the same command goes on.', file=sys.stderr)\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        'print(\'{"event": "progress", "kind": "refine", "done": 1, "total": 2, "unit": "tile", '
        '"eta": 90}\', file=sys.stderr)\n'
        "time.sleep(30)\n"
    )
    log = Log(cancel_at=50)
    with pytest.raises(runner.Canceled, match="the same command goes on"):
        runner.run(python(code), log)
    assert (tmp_path / "tidy").exists()
    assert log.texts == ["refine: 1 of 2 tiles, 1 min 30 s left"]


def test_a_run_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_GRACE", 0.2)
    ignored = f"import signal, time; signal.signal({int(signal.SIGTERM)}, signal.SIG_IGN)\n"
    code = ignored + (
        "import sys\n"
        'print(\'{"event": "progress", "kind": "a", "done": 1, "total": 2, "unit": "tile", '
        '"eta": null}\', file=sys.stderr)\ntime.sleep(30)\n'
    )
    with pytest.raises(runner.Canceled):
        runner.run(python(code), Log(cancel_at=0))


def test_the_environment_is_not_that_of_the_python_of_qgis() -> None:
    own = {"PATH": "/bin", "PYTHONHOME": "/qgis", "PYTHONPATH": "/qgis", "PROJ_LIB": "/qgis/proj"}
    assert runner.environment(own) == {"PATH": "/bin"}


def test_other_objects_are_no_progress() -> None:
    assert runner.progress_of("plain") is runner.progress_of("{broken") is None
    assert runner.progress_of('{"a": 1}') is None
    assert runner.progress_of('{"event": "end"}') == {"event": "end"}


def test_the_sources_suit_the_python_of_qgis_322() -> None:
    for path in SOURCES.glob("*.py"):
        ast.parse(path.read_text("utf-8"), feature_version=(3, 9))


def test_the_metadata() -> None:
    about = configparser.ConfigParser(interpolation=None)
    about.read(SOURCES / "metadata.txt", "utf-8")
    assert about["general"]["version"] == geothresh.__version__
    assert about["general"]["hasProcessingProvider"] == "yes"
    assert about["general"]["qgisMinimumVersion"] == "3.22"
    assert (SOURCES / about["general"]["icon"]).is_file()


def test_a_flag_that_is_on_is_switched_off() -> None:
    option = Option(
        name="resume", flag="--resume", no_flag="--no-resume", kind="flag", default=True, help=""
    )
    command = Command(name="refine", help="", options=(option,))
    words = arguments.command_line(command, ["a.tif"], {}, {"resume": False})
    assert words == ["refine", "--progress=json", "--no-resume", "--", "a.tif"]
