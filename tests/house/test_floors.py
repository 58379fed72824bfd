"""Imports go down only, and each heavy library has one home: read from the source, by ast."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import geothresh

PACKAGE = Path(geothresh.__file__).parent

# The room (first name below the package) and its floor. The package's own modules, which only name
# what the rooms hold, stand above them all.
FLOORS = {
    "_version": -1,
    "addresses": -1,
    "fields": -1,
    "machine": -1,
    "qgis": -1,
    "types": -1,
    "colours": 0,
    "errors": 0,
    "files": 0,
    "options": 0,
    "packed": 0,
    "windows": 0,
    "tiling": 1,
    "durability": 1,
    "geobox": 1,
    "metrics": 1,
    "pages": 1,
    "profiles": 1,
    "project": 1,
    "sidecars": 1,
    "skeleton": 1,
    "splitting": 1,
    "thresholding": 1,
    "mosaic": 2,
    "raster": 2,
    "nn": 3,
    "vector": 3,
    "evaluation": 4,
    "rivals": 4,
    "training": 4,
    "base": 5,
    "calibration": 5,
    "run": 6,
    "many": 7,
    "api": 8,
    "cli": 9,
    "xarray": 9,
    "__init__": 10,
    "__main__": 10,
}

# The rooms in which a library may be imported: torch under nn/ and training/, and so on.
NUMERIC = {room for room, floor in FLOORS.items() if 1 <= floor <= 8}
HOMES = {
    "PIL": {"raster"},
    "click": {"cli"},
    "dask": {"mosaic"},
    "distributed": {"mosaic"},
    "geopandas": {"vector"},
    "numpy": NUMERIC | {"packed", "types"},
    "onnx": {"nn"},
    "onnxruntime": {"nn"},
    "openvino": {"nn"},
    "pandas": {"vector"},
    "pyarrow": {"vector"},
    "pyogrio": {"vector"},
    "processing": {"qgis"},
    "pyproj": {"vector"},
    "qgis": {"qgis"},
    "rasterio": {"raster"},
    "safetensors": {"base", "nn", "training"},
    "scipy": NUMERIC,
    "segmentation_models_pytorch": {"base"},
    "segmentation_refinement": {"rivals"},
    "shapely": {"vector"},
    "torch": {"base", "nn", "training"},
    "torchvision": {"base"},
    "tqdm": {"cli"},
    "xarray": {"api", "raster", "xarray"},
}


def imported(tree: ast.AST, module: tuple[str, ...], is_package: bool) -> list[tuple[int, str]]:
    """Every import of a module as (line, dotted name), wherever in the code it stands.

    ``from a import b`` gives ``a.b``, which may be a name or a module: the first two parts decide.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                drop = node.level - 1 if is_package else node.level
                parents = module[: len(module) - drop] if drop else module
                base = ".".join((*parents, base)).rstrip(".")
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def violations(package: Path) -> list[str]:
    """What in `package` imports upward, sideways, or a library outside that library's home."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        module = ("geothresh", *relative.with_suffix("").parts)
        is_package = module[-1] == "__init__"
        if is_package:
            module = module[:-1]
        room = relative.parts[0].removesuffix(".py")
        if room not in FLOORS:
            found.append(f"{relative}: the room {room!r} has no floor")
            continue
        for line, name in imported(ast.parse(path.read_text("utf-8")), module, is_package):
            fault = _fault(room, name)
            if fault:
                found.append(f"{relative}:{line}: {fault}")
    return found


def _fault(room: str, name: str) -> str | None:
    first, *rest = name.split(".")
    if first != "geothresh":
        if first in sys.stdlib_module_names or room in HOMES.get(first, set()):
            return None
        return f"{room} (floor {FLOORS[room]}) is no home of {first}"
    target = rest[0] if rest else "__init__"
    # Every room, on the ground floor too, raises the package's errors.
    if target in ("errors", room):
        return None
    if target not in FLOORS:
        return f"{name} is no room; import from where it is defined"
    if FLOORS[target] < FLOORS[room]:
        return None
    return f"{room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[target]})"


def test_the_package_keeps_its_floors() -> None:
    assert violations(PACKAGE) == []


def test_the_api_holds_public_functions_alone() -> None:
    """Each module has one, and no other: names of the package, or what a command calls."""
    called = {
        name
        for path in (PACKAGE / "cli").rglob("*.py")
        for _, name in imported(ast.parse(path.read_text("utf-8")), (), is_package=False)
    }
    for path in (PACKAGE / "api").glob("[!_]*.py"):
        functions = {
            node.name
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        }
        here = f"geothresh.api.{path.stem}"
        public = {name for name in functions if f"{here}.{name}" in called}
        assert functions, path
        assert functions - public <= set(geothresh.__all__), path


def test_the_page_on_the_house_has_every_room_on_its_floor() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (-?\d+) \| (.*?) \|", page, re.MULTILINE)
    told = {(room, int(floor)) for floor, text in rows for room in re.findall(r"`(\w+)/?`", text)}
    assert {one for one in FLOORS.items() if not one[0].startswith("__")} <= told


def test_every_room_exists() -> None:
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert set(FLOORS) <= rooms


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("errors.py", "import numpy", "errors (floor 0) is no home of numpy"),
        ("windows.py", "from geothresh.raster import reading", "imports raster (floor 2)"),
        ("mosaic/engine.py", "from geothresh.nn.refiner import x", "imports nn (floor 3)"),
        ("nn/network.py", "def f():\n    import rasterio.windows", "is no home of rasterio"),
        (
            "mosaic.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor",
            "is no home of torch",
        ),
        ("raster/reading.py", "from ..mosaic import Refiner", "imports mosaic (floor 2)"),
        ("raster/__init__.py", "from .. import mosaic", "imports mosaic (floor 2)"),
        ("vector/polygons.py", "import geothresh", "imports __init__ (floor 10)"),
        ("api/refine.py", "from geothresh import vectorize", "is no room"),
        ("api/refine.py", "import requests", "is no home of requests"),
        ("utils.py", "", "has no floor"),
    ],
)
def test_the_checker_catches(tmp_path: Path, path: str, source: str, expected: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(source)
    (found,) = violations(tmp_path)
    assert expected in found


def test_the_checker_lets_pass(tmp_path: Path) -> None:
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "refiner.py").write_text(
        "import os.path\nimport torch.nn as nn\nfrom geothresh._version import __version__\n"
        "from geothresh.errors import ModelError\nfrom . import network\nfrom .config import x\n"
    )
    assert violations(tmp_path) == []
