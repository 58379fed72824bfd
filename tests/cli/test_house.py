"""The frame around every command: exit codes, messages, warnings, signals, and a quick --help."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import geothresh
from geothresh import cli
from geothresh.cli import main, options
from geothresh.cli.base import COMMANDS as BASE_COMMANDS
from geothresh.cli.faults import Terminated
from geothresh.cli.fields import option_of
from geothresh.cli.terminal import one_line
from geothresh.errors import (
    GeothreshError,
    GeothreshWarning,
    InputError,
    ModelError,
    OutputError,
    UsageError,
)
from geothresh.options import Compute, Reading, Writing
from tests.support.cli_runner import runner

HEAVY = [
    "dask",
    "geopandas",
    "numpy",
    "numpy.ma",
    "pyogrio",
    "pyproj",
    "rasterio",
    "scipy",
    "shapely",
    "torch",
]
SCENE = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"


def loaded_by(arguments: list[str]) -> list[str]:
    """The heavy libraries in the process after the command line `arguments` ran."""
    code = (
        "import json, sys\n"
        "from geothresh.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "command", ["", *cli.COMMANDS, *(f"base {name}" for name in BASE_COMMANDS)]
)
def test_help_waits_for_no_heavy_library(command: str) -> None:
    assert loaded_by([*command.split(), "--help"]) == []


def test_a_look_at_a_scene_waits_for_no_heavy_library_but_rasterio() -> None:
    assert loaded_by(["info", str(SCENE)]) == ["numpy", "rasterio"]


@pytest.mark.parametrize("command", [[], ["vectorize"]])
def test_help_answers_in_half_a_second(command: list[str]) -> None:
    """Of the processor's time: the machine may have other things to do."""
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "geothresh", *command, "--help"], check=True)
        after = os.times()
        took = after.children_user + after.children_system
        seconds.append(took - before.children_user - before.children_system)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_listed_and_explains_itself(command: str) -> None:
    group = CliRunner().invoke(main, ["--help"])
    assert f"\n  {command} " in group.output
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "--debug" in result.output and "--quiet" in result.output


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, "geothresh, version 0.1.0\n")


Probe = Callable[[Callable[[], None]], None]


@pytest.fixture
def probe() -> Iterator[Probe]:
    """Gives the group a command ``probe`` with the given body, for the length of a test."""

    def add(body: Callable[[], None]) -> None:
        @click.command(name="probe")
        @options.common
        def command() -> None:
            body()

        main.add_command(command)

    yield add
    main.commands.pop("probe", None)


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (GeothreshError("a.tif: ours"), 1, "Error: a.tif: ours\n"),
        (UsageError("contradiction"), 2, "Error: contradiction\n"),
        (InputError("two\nlines\x1b[31m"), 3, "Error: two lines\\x1b[31m\n"),
        (OutputError("full"), 4, "Error: full\n"),
        (ModelError("torn"), 5, "Error: torn\n"),
        (
            ValueError("x"),
            1,
            "Error: internal fault: ValueError: x; run again with --debug to see where\n",
        ),
        (KeyboardInterrupt(), 130, "Stopped by SIGINT.\n"),
        (Terminated(signal.SIGTERM), 143, "Stopped by SIGTERM.\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_an_exception_becomes_a_line_and_an_exit_code(
    probe: Probe, error: BaseException, exit_code: int, said: str
) -> None:
    probe(raising(error))
    result = CliRunner().invoke(main, ["probe"])
    assert (result.exit_code, result.output) == (exit_code, said)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "error"),
    [
        (["refine", "nothing.tif", "--json"], 3, "nothing.tif: no such file; check the path"),
        (["refine", "--json", "a.tif", "--nothing"], 2, "No such option: --nothing"),
        (["base", "predict", "--json", "a.tif"], 2, "Missing option '-m' / '--model'."),
    ],
)
def test_an_error_under_json_is_json_on_stdout_and_a_line_on_stderr(
    arguments: list[str], exit_code: int, error: str
) -> None:
    result = runner().invoke(main, arguments)
    assert result.exit_code == exit_code
    assert json.loads(result.stdout) == {"error": error, "exit_code": exit_code}
    assert result.stderr.endswith(f"Error: {error}\n")


def test_an_argument_that_looks_like_json_is_none() -> None:
    result = runner().invoke(main, ["refine", "--", "--json"])
    assert (result.exit_code, result.stdout) == (3, "")


@pytest.mark.parametrize("arguments", [["--debug", "probe"], ["probe", "--debug"]])
def test_debug_shows_the_traceback(probe: Probe, arguments: list[str]) -> None:
    probe(raising(InputError("bad")))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.output
    assert result.output.endswith("Error: bad\n")


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["--nothing"], ["refine"], ["refine", "a.tif", "--threshold", "2"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_the_frame_holds_inside_another_group(probe: Probe) -> None:
    """As in ``rio geothresh``, where the outer group has an object and options of its own."""

    @click.group()
    @click.pass_context
    def rio(ctx: click.Context) -> None:
        ctx.obj = {"verbosity": 30}

    rio.add_command(main)
    probe(raising(InputError("bad")))
    result = CliRunner().invoke(rio, ["geothresh", "-v", "probe"])
    assert (result.exit_code, result.output) == (3, "Error: bad\n")


def warn() -> None:
    for text in ("one", "one", "two"):
        warnings.warn(text, GeothreshWarning, stacklevel=1)
    warnings.warn("of a library", RuntimeWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("option", "lines"),
    [
        ([], ["Warning: one", "Warning: two"]),
        (["-q"], []),
        (["-v"], ["Warning: one", "Warning: two", "RuntimeWarning: of a library"]),
    ],
)
def test_each_warning_is_one_line_said_once(
    probe: Probe, option: list[str], lines: list[str]
) -> None:
    probe(warn)
    for _ in range(2):
        result = CliRunner().invoke(main, ["probe", *option])
        assert result.exit_code == 0
        said = result.output.splitlines()
        assert [line.split(" (")[0] for line in said] == lines


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["probe"], ["warning"]),
        (["probe", "-v"], ["info", "warning"]),
        (["-v", "probe", "-v"], ["debug", "info", "warning"]),
        (["-q", "probe"], []),
    ],
)
def test_verbosity_chooses_the_log_lines(
    probe: Probe, arguments: list[str], lines: list[str]
) -> None:
    logger = logging.getLogger("geothresh.probe")

    def body() -> None:
        logger.debug("debug")
        logger.info("info")
        logger.warning("warning")

    probe(body)
    before = logging.getLogger("geothresh").level
    result = CliRunner().invoke(main, arguments)
    assert result.output.splitlines() == lines
    assert logging.getLogger("geothresh").level == before


def test_termination_runs_the_clean_up(probe: Probe) -> None:
    cleaned = []

    def body() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    probe(body)
    try:
        result = CliRunner().invoke(main, ["probe"])
    finally:
        # The command leaves them as they are: its process is ending.
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (result.exit_code, cleaned) == (143, [True])


@pytest.mark.skipif(os.name != "posix", reason="pipes and head are POSIX")
def test_a_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m geothresh model list --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_number_or_a_word() -> None:
    @click.command()
    @option_of(Reading, "scale")
    @option_of(Compute, "batch_size")
    def command(**values: object) -> None:
        click.echo(repr(values))

    def run(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments).output

    assert run() == "{'scale': 'auto', 'batch_size': 'auto'}\n"
    assert run("--scale", "1e4", "--batch-size", "8") == "{'scale': 10000.0, 'batch_size': 8}\n"
    assert run("--scale", "LOGIT") == "{'scale': 'logit', 'batch_size': 'auto'}\n"
    assert "Or say auto or logit." in run("--scale", "0")
    assert "is not a valid integer" in run("--batch-size", "x")


def test_creation_options() -> None:
    @click.command()
    @option_of(Writing, "creation_options")
    def command(creation_options: dict[str, str]) -> None:
        click.echo(json.dumps(creation_options))

    good = CliRunner().invoke(command, ["--co", "compress=zstd", "--co", "ZSTD_LEVEL=3"])
    assert json.loads(good.output) == {"COMPRESS": "zstd", "ZSTD_LEVEL": "3"}
    bad = CliRunner().invoke(command, ["--co", "zstd"])
    assert bad.exit_code == 2 and "is not NAME=VALUE" in bad.output


def test_one_line_escapes_what_a_terminal_would_obey() -> None:
    assert one_line("a\n  b\tc\x07\u202e") == "a b\\tc\\x07\\u202e"
    assert one_line("Straße 路.tif") == "Straße 路.tif"


def test_model_list_runs_without_torch(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["model", "list", "--json"])
    assert result.exit_code == 0
    assert "models" in json.loads(result.output)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_standard_output_that_is_full_is_an_output(options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "geothresh", "model", "list", *options],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith("Error: standard output cannot be written (No space left")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_printed_path_is_that_of_the_file_whatever_its_bytes() -> None:
    code = "import sys; from geothresh.cli.terminal import print_result; print_result(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, b"caf\xe9.csv"],
        capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.stdout == b"caf\xe9.csv\n"
