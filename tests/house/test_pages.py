"""Each block of README and docs is right as it stands: accepted, and run from top to bottom."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest

from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.pages import PAGES, ROOT, Block, blocks, lay_out

# What a page begins with that is no program of ours, and that no test should run.
OTHERS = {"pip", "eval", ".venv/bin/python", ".venv/bin/pre-commit"}
# Words after which a command takes longer than the quick tests may.
LONG = {"train", "crossfit", "predict", "image_confidence.tif", "image_confidence_mask.tif"}
LONG |= {"--workers", "openvino", "export", "coarse", "calibration.json"}
# What would take the time of a training, made small.
LESS = {
    "train": "--epochs 1 --chips-per-epoch 2 --batch-size 2 --chip-size 128",
    "base train": "--steps 2 --crop-size 64 --batch-size 2",
    "base crossfit": "--steps 2 --crop-size 64 --batch-size 2",
}
# A cluster; a network of another place, whose maps come from a training of 2000 steps; and a scene
# of several cells.
ELSEWHERE = {"--scheduler", "maps/linknet-resnet18-step00667", "from_scene.json"}
RUN = ["README", "calibrating", "evaluating", "refining", "vectorizing"]
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def find(words: list[str]) -> tuple[click.Command, list[str], list[str]]:
    """The command that is meant, its name in words, and its arguments."""
    command: click.Command = main
    names: list[str] = []
    while isinstance(command, click.Group):
        names.append(words[len(names)])
        found = command.get_command(click.Context(command), names[-1])
        assert found is not None, f"there is no command {names}"
        command = found
    return command, names, words[len(names) :]


@each
def test_every_command_of_a_page_is_accepted(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for block in blocks(page):
        assert block.language in ("shell", "python", "text")
        if block.language == "python":
            compile(block.text, str(page), "exec")
        for words in block.commands if block.language == "shell" else ():
            if words[0] == "geothresh":
                command, names, arguments = find(words[1:])
                command.make_context(names[-1], [word for word in arguments if word != "..."])
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), words[1]
            elif words[0] == "make":
                assert words[1] in targets
            else:
                assert words[0] in OTHERS or words[0].startswith("_GEOTHRESH_COMPLETE="), words


def run(page: Path, folder: Path, *, long: bool) -> None:
    for block in blocks(page):
        if block.language == "python" and (long or page.stem != "training"):
            exec(compile(_made_small(block.text), str(page), "exec"), {})
        elif block.language == "shell":
            _run_shell(block, long=long)


def _made_small(code: str) -> str:
    """Python as it stands, but for a recipe where something is trained."""
    less = "recipe=recipe_of('best', epochs=1, chips_per_epoch=2, batch_size=2, chip_size=128)"
    if "train(" not in code:
        return code
    return "from geothresh.training.recipe import recipe_of\n" + code.replace(
        '.safetensors")', f'.safetensors", {less})'
    ).replace("    network=", f"    {less},\n    network=").replace("=0.2", "=0.2, block_size=112")


def _run_shell(block: Block, *, long: bool) -> None:
    for words in block.commands:
        if words[0] != "geothresh" or ELSEWHERE & set(words):
            continue
        if LONG & set(words) and not long:
            continue
        _, names, _ = find(words[1:])
        more = LESS.get(" ".join(names), "").split()
        if names == ["train"] and "scene.tif" in words:
            more += ["--block-size", "112"]
        result = runner().invoke(main, [*words[1:], *more])
        assert result.exit_code == 0, f"{' '.join(words)}: {result.stderr}"


@each
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, headings), target


def _anchor(heading: str) -> str:
    """As hosts of code and mkdocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_site_has_every_page() -> None:
    nav = (ROOT / ".mkdocs.yml").read_text("utf-8")
    assert all(f": {page.name}\n" in nav for page in PAGES if page.parent.name == "docs")


@pytest.fixture
def laid_out(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch) -> Path:
    folder = tmp_path / request.node.callspec.params["name"]
    folder.mkdir()
    lay_out(folder, side=448 if folder.name == "training" else 192)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", RUN)
def test_a_page_runs_from_top_to_bottom(laid_out: Path, name: str) -> None:
    (page,) = (page for page in PAGES if page.stem == name)
    run(page, laid_out, long=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUN, "base", "training"])
def test_a_page_runs_with_its_trainings(laid_out: Path, name: str) -> None:
    (page,) = (page for page in PAGES if page.stem == name)
    run(page, laid_out, long=True)


@pytest.mark.parametrize("typed", ["geothresh refine --b", "geothresh base p"])
def test_the_shell_completes(typed: str) -> None:
    words = typed.split()
    given = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    result = runner().invoke(
        main, [], prog_name="geothresh",
        env=os.environ | given | {"_GEOTHRESH_COMPLETE": "bash_complete"},
    )  # fmt: skip
    found = [line.split(",")[1] for line in result.stdout.split()]
    assert found and all(word.startswith(words[-1]) for word in found)
