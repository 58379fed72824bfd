"""Rules for the whole package: nothing in it runs code from data; what it says of itself agrees."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import geothresh

PACKAGE = Path(geothresh.__file__).parent
ROOT = PACKAGE.parent

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    "__import__",
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "torch.jit.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}


def dangers(source: str) -> list[str]:
    """What in `source` could run code that comes with the data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        found += [f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if call in FORBIDDEN_CALLS:
                found.append(call)
            if call == "torch.load" and given.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if given.get("allow_pickle", "False") != "False":
                found.append(f"{call} with allow_pickle")
            if given.get("shell", "False") != "False":
                found.append(f"{call} with shell")
    return found


def test_nothing_in_the_package_runs_code_from_data() -> None:
    found = {str(path): dangers(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "eval('1')",
        "exec(text)",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_rule_catches(source: str) -> None:
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "torch.load(path, weights_only=True)", "np.load(path)", "yaml.safe_load(x)"],
)
def test_the_rule_lets_pass(source: str) -> None:
    assert not dangers(source)


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize("page", ["architecture.md", "contributing.md"])
def test_pages_name_files_that_are_there(page: str) -> None:
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / page).read_text("utf-8"))
    assert named
    lost = [name for name in named if not any((p / name).is_file() for p in (PACKAGE, ROOT))]
    assert not lost


def test_test_files_do_not_import_each_other() -> None:
    pattern = re.compile(r"^from tests\.\S*\btest_\w+ ", re.MULTILINE)
    files = (ROOT / "tests").rglob("*.py")
    found = [str(path) for path in files if pattern.search(path.read_text("utf-8"))]
    assert found == []


def test_the_version_is_the_same_everywhere() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert geothresh.__version__ == newest[1] == version("geothresh")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {geothresh.__version__}\n" in citation


def test_the_command_is_registered_in_both_places() -> None:
    (script,) = entry_points(group="console_scripts", name="geothresh")
    (plugin,) = entry_points(group="rasterio.rio_plugins", name="geothresh")
    assert script.value == plugin.value == "geothresh.cli:main"


def test_public_names_load_from_their_homes() -> None:
    assert dir(geothresh) == sorted(geothresh.__all__)
    for name in geothresh.__all__:
        assert getattr(geothresh, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = geothresh.nothing


def test_type_checkers_find_every_public_name_where_it_is_loaded_from() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    homes = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == geothresh._HOMES


def test_every_public_function_tells_what_it_takes_gives_and_raises_and_shows_how() -> None:
    for name in geothresh.__all__:
        value = getattr(geothresh, name)
        if inspect.isfunction(value):
            told = inspect.getdoc(value) or ""
            for part in ("Args:", "Returns:", "Raises:", "Example:"):
                assert f"\n{part}\n" in told, f"{name} has no {part}"
