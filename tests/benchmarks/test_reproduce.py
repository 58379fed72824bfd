"""The paper's tables by one command, on images made here, with trainings of a few steps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import reproduce
from paper_tables import RECIPES, TABLES
from PIL import Image

from tests.support.imagery import image_set

SCRIPT = Path(reproduce.__file__)


def test_every_row_of_the_paper_has_a_row_here() -> None:
    rivals = {"base", "DenseCRF", "CascadePSP"}
    for name, of in TABLES.items():
        rows = {variant.row for variant in of.variants} | rivals
        for network in of.networks:
            assert network.paper.keys() <= rows, name
            # ThreshNet gains in every one of the paper's rows.
            refined = [value[0] for row, value in network.paper.items() if row not in rivals]
            assert max(value or 0 for value in refined) > (network.paper["base"][0] or 100)


@pytest.mark.slow
def test_a_table_is_made_and_not_made_again(tmp_path: Path) -> None:
    data = image_set(tmp_path / "data", 12)
    command = [
        sys.executable, str(SCRIPT), "2", "--data", str(data), "-o", str(tmp_path / "run"),
        "--network", "resunetpp", "--steps", "2", "--crop-size", "64", "--epochs", "1",
        "--chips-per-epoch", "4", "--chip-size", "64", "--preset", "small", "--frames", "2",
        "--stand-in", "roads made here",
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (tmp_path / "run" / "table-2.md").read_text()
    assert "Data: roads made here, a stand-in for Kvasir-SEG" in text
    lines = [line for line in text.splitlines() if line.startswith("| resunetpp")]
    names = [line.split(" | ")[1] for line in lines]
    variants = [variant.row for variant in RECIPES]
    assert names == ["base", "bound*", "DenseCRF", "CascadePSP", *variants]
    assert lines[0].endswith("| 55.9 | 56.8 | - |") and lines[4].endswith("| 61.7 | 62.9 | - |")
    assert "not had: " in lines[3] and "$ geothresh train" in first.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "$ geothresh" not in again.stderr
    assert again.stdout == first.stdout
    other = subprocess.run([*command, "--folds", "3"], capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "made with another folds; choose" in other.stderr


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    data = image_set(tmp_path / "data", 2)
    command = [sys.executable, str(SCRIPT), "7", "--data", str(data), "-o", str(tmp_path / "run")]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peaks = {row: float(re.search(rf"\| {row} \| (\d+) MB", made)[1])
             for row in ("nothing", "ThreshNet")}  # fmt: skip
    assert 50 < peaks["nothing"] < peaks["ThreshNet"] - 50
    assert "| CascadePSP | not had: name its weights" in made


@pytest.mark.slow
def test_maps_that_are_there_need_no_images(tmp_path: Path) -> None:
    data = image_set(tmp_path / "objects", 12)
    maps = tmp_path / "isnet"
    maps.mkdir()
    for image in data.glob("*_sat.png"):
        name = image.name.replace("_sat", "")
        Image.open(image).convert("L").point(lambda v: 60 + v // 2).save(maps / name)
        image.unlink()
    command = [
        sys.executable, str(SCRIPT), "3", "--data", str(data), "-o", str(tmp_path / "run"),
        "--maps", str(maps), "--epochs", "1", "--chips-per-epoch", "4", "--chip-size", "64",
        "--preset", "small", "--stand-in", "roads made here", "--most", "8",
    ]  # fmt: skip
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "$ geothresh base" not in first.stderr
    text = (tmp_path / "run" / "table-3.md").read_text()
    assert "a stand-in for DUTS, maps of isnet, which is no network of the table" in text
    lines = [line for line in text.splitlines() if line.startswith("| isnet")]
    assert [line.split(" | ")[1] for line in lines][2:4] == ["DenseCRF", "CascadePSP"]
    assert all("not had: it reads the image" in line for line in lines[2:4])
    assert all("not had" not in line for line in (*lines[:2], *lines[4:]))
    assert len(list((tmp_path / "run" / "data" / "objects" / "mask").iterdir())) == 6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--network", "pfan"), "Error: table 2 has no network pfan, but unet, resunet, resunetpp"),
        (("--maps", "nowhere"), "nowhere"),
        (("--encoder-weights", "nowhere.pth"), "`geothresh base` ended with exit code 2"),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    data = image_set(tmp_path / "data", 2)
    command = [sys.executable, str(SCRIPT), "2", "--data", str(data), "-o", str(tmp_path / "run")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert told in last and "Traceback" not in done.stderr
