"""Texts of strangers, such as names of files, do not command the terminal that shows them."""

from __future__ import annotations

import ast
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import geothresh.cli
from geothresh.cli.terminal import escaped
from geothresh.nn.config import NetworkConfig
from geothresh.nn.modelfile import save_model
from geothresh.nn.network import ThreshNet
from tests.support.rasters import write_raster

# Set the title, clear the screen, move up, the one-byte CSI, and text from right to left.
EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[1A\x9b31m\u202e"
RAW = re.compile(rb"\x1b|\x07|\x9b|\xe2\x80\xae")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A scene, a model and a broken file with such names; the model's card holds such a text."""
    values = np.zeros((32, 32), np.uint8)
    values[8:16] = 255
    write_raster(tmp_path / f"x{EVIL}.tif", values)
    (tmp_path / f"broken{EVIL}.tif").write_text("no raster")
    torch.manual_seed(0)
    config = NetworkConfig(widths=(2, 2, 2, 2), blocks=(1, 1, 1, 1), patch=16)
    save_model(
        tmp_path / f"m{EVIL}.safetensors",
        tensors=ThreshNet(config).state_dict(),
        config=config,
        training={"comment": EVIL, EVIL: 1},
    )
    return tmp_path


def on_terminal(*arguments: str, cwd: Path) -> bytes:
    """All that a command prints where stdout and stderr are one terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "geothresh", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TERM": "dumb"},
    ):
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not part:
                break
            said += part
    os.close(ours)
    return said


COMMANDS = {
    "results": ["refine", "x{}.tif", "-m", "m{}.safetensors", "--confidence-out", "c{}.tif",
                "--vector-out", "v{}.gpkg", "-v", "--no-progress"],
    "an error": ["refine", "broken{}.tif"],
    "an error with its traceback": ["refine", "broken{}.tif", "--debug"],
    "a model's card": ["model", "show", "m{}.safetensors"],
    "a scene": ["info", "x{}.tif"],
    "too many arguments": ["info", "x{}.tif", "broken{}.tif"],
    "no such option": ["info", "--x{}"],
    "no such option of the group": ["--x{}", "info"],
    "no such command": ["x{}"],
    "a choice": ["refine", "x{}.tif", "--blend", "x{}"],
}  # fmt: skip


@pytest.mark.parametrize("what", COMMANDS)
def test_no_control_character_reaches_the_terminal(what: str, place: Path) -> None:
    said = on_terminal(*(part.format(EVIL) for part in COMMANDS[what]), cwd=place)
    assert b"\\x1b" in said, said
    assert not RAW.search(said), said


@pytest.mark.slow
def test_programs_get_the_path_as_it_is(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geothresh", "refine", f"x{EVIL}.tif", "-m", f"m{EVIL}.safetensors"],
        capture_output=True, cwd=place, check=True,
    )  # fmt: skip
    assert (place / os.fsdecode(done.stdout.removesuffix(b"\n"))).is_file()
    assert not RAW.search(done.stderr)


def test_lines_and_tabs_stay() -> None:
    assert escaped("a\n\tb\r\x00ü路") == "a\n\tb\\r\\x00ü路"


def test_no_command_writes_past_the_module_that_escapes() -> None:
    folder = Path(geothresh.cli.__file__).parent
    own = {folder / name for name in ("terminal.py", "faults.py", "options.py")}
    found = [
        f"{path.name}:{node.lineno}"
        for path in folder.rglob("*.py")
        if path not in own
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("click.echo", "click.secho", "print", "sys.stdout.write")
    ]
    assert found == []
