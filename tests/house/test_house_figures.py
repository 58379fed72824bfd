"""Figures of the source that may fall but not rise: circles, private imports, wide, long functions.

Read from the source, by ast. Whoever brings a figure down lowers its bound here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import geothresh

PACKAGE = Path(geothresh.__file__).parent

MOST_PARAMETERS, MOST_WIDE = 10, 0
"""Parameters of a function, without self and cls, and how many functions may have more."""
MOST_LINES, MOST_LONG = 60, 0
"""Lines of a function, without its docstring, and how many functions may have more."""
PRIVATE = {
    # GDAL's own exceptions, which rasterio lets through in places; they have no public home.
    "rasterio._err.CPLE_BaseError",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module's dotted name and its source, parsed."""

    name: str
    tree: ast.Module

    @classmethod
    def all_in(cls, package: Path) -> list[Module]:
        """Every module of a package."""
        found = []
        for path in sorted(package.rglob("*.py")):
            parts = (package.name, *path.relative_to(package).with_suffix("").parts)
            name = ".".join(parts).removesuffix(".__init__")
            found.append(cls(name=name, tree=ast.parse(path.read_text("utf-8"))))
        return found

    def imports(self) -> set[str]:
        """What is imported wherever in the module, but not what type checkers alone import.

        ``from a import b`` gives ``a`` and ``a.b``.
        """
        typing_only = {
            id(inside)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for inside in ast.walk(node)
        }
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                found.update((base, *(f"{base}.{alias.name}" for alias in node.names)))
        return found

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function and method by its name."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield f"{self.name}.{node.name}", node


def circle(modules: list[Module]) -> list[str]:
    """A circle of modules that import one another, empty where there is none."""
    names = {module.name for module in modules}
    graph = {module.name: module.imports() & names - {module.name} for module in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def private(modules: list[Module]) -> list[str]:
    """Names of other libraries that begin with an underscore, as ``module: name``."""
    own = modules[0].name.split(".")[0]
    found = []
    for module in modules:
        for name in sorted(module.imports()):
            parts = name.split(".")
            hidden = any(part.startswith("_") and not part.startswith("__") for part in parts)
            if parts[0] != own and hidden and not any(a.startswith(name) for a in PRIVATE):
                found.append(f"{module.name}: {name}")
    return found


def parameters(function: Function) -> int:
    """Parameters of a function, without self and cls."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    own = bool(positional) and positional[0].arg in ("self", "cls")
    return len(positional) + len(given.kwonlyargs) - own


def lines(function: Function) -> int:
    """Lines of a function, without its docstring."""
    docstring = ast.get_docstring(function, clean=False) or ""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - len(docstring.splitlines())


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return Module.all_in(PACKAGE)


def test_no_modules_import_one_another_in_a_circle(modules: list[Module]) -> None:
    assert circle(modules) == []


def test_no_private_name_of_another_library_is_imported(modules: list[Module]) -> None:
    assert private(modules) == []


def test_wide_functions_do_not_become_more(modules: list[Module]) -> None:
    wide = {
        name: parameters(function)
        for module in modules
        for name, function in module.functions()
        if parameters(function) > MOST_PARAMETERS
    }
    assert len(wide) <= MOST_WIDE, wide


def test_long_functions_do_not_become_more(modules: list[Module]) -> None:
    long = {
        name: lines(function)
        for module in modules
        for name, function in module.functions()
        if lines(function) > MOST_LINES
    }
    assert len(long) <= MOST_LONG, long


def test_the_checks_catch(tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING\nfrom house.two import f\nfrom numpy import _core\n"
        "if TYPE_CHECKING:\n    from dask._task_spec import Task\n"
    )
    (package / "two.py").write_text(
        "class A:\n    def f(self, a, /, b, *, c):\n        '''One.\n\n        Two.\n        '''\n"
        "        from house import one\n        return one\n"
    )
    found = Module.all_in(package)
    assert set(circle(found)) == {"house.one", "house.two"}
    assert private(found) == ["house.one: numpy._core"]
    ((name, function),) = found[2].functions()
    assert (name, parameters(function), lines(function)) == ("house.two.f", 3, 3)
