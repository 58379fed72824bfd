"""The notebooks run from top to bottom, and are kept with what they show."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import geothresh

FOLDER = Path(__file__).parents[2] / "notebooks"
# Pictures that each shows, and a text among what it prints.
SHOWN = {
    "quickstart": (4, "(400, 400) float32"),
    "own_network": (3, "gaps bridged"),
    "xarray_dask": (1, "(1, 3, 9) chunks"),
    "worth_it": (2, "6 maps to train on, 3 held out"),
}
each = pytest.mark.parametrize("name", SHOWN)


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def outputs_of(notebook: Any) -> list[Any]:
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def require_shown(name: str, notebook: Any) -> None:
    pictures, text = SHOWN[name]
    outputs = outputs_of(notebook)
    assert sum("image/png" in out.get("data", {}) for out in outputs) == pictures
    assert text in "".join(out.get("text", "") for out in outputs)


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHOWN)


@each
def test_a_notebook_is_kept_with_what_it_shows(name: str) -> None:
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    require_shown(name, notebook)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000
    kept = nbformat.writes(notebook)
    assert "stderr" not in kept and not re.search(r'"[^"]*/(home|tmp|root|Users)/', kept)


@each
def test_what_a_notebook_takes_from_geothresh_is_there(name: str) -> None:
    for cell in read(name).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module == "geothresh":
                assert {alias.name for alias in node.names} <= set(geothresh.__all__)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "geothresh" or node.attr in geothresh.__all__


def run(name: str, folder: Path) -> None:
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    require_shown(name, notebook)


@pytest.mark.slow
def test_the_first_notebook_runs(tmp_path: Path) -> None:
    run("quickstart", tmp_path)
    written = {path.name for path in (tmp_path / "geothresh-quickstart").iterdir()}
    assert {"mask.tif", "refined.tif", "roads.gpkg", "lines.gpkg"} <= written


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHOWN.keys() - {"quickstart"}))
def test_the_other_notebooks_run(tmp_path: Path, name: str) -> None:
    run(name, tmp_path)
