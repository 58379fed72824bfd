"""Every number of the catalogue is the mark of a test, somewhere below ``tests``."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
LAST = 132

# Number: why no test carries it, or where else the case is looked after.
ELSEWHERE: dict[int, str] = {}


def marked(source: str) -> set[int]:
    """The numbers in all ``pytest.mark.catalogue(...)`` of a module."""
    return {
        ast.literal_eval(number)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.catalogue"
        for number in node.args
    }


def test_every_case_is_a_test() -> None:
    homes: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for number in marked(path.read_text("utf-8")):
            homes[number].append(path.name)
    cases = set(range(1, LAST + 1))
    assert set(homes) <= cases
    assert cases - set(homes) == set(ELSEWHERE)


@pytest.mark.catalogue(118)
def test_nothing_in_the_package_unpacks_archives() -> None:
    """So that no archive can be an attack."""
    package = TESTS.parent / "geothresh"
    for path in package.rglob("*.py"):
        source = path.read_text("utf-8")
        for name in ("zipfile", "tarfile", "unpack_archive"):
            assert name not in source, path


@pytest.mark.parametrize(
    ("source", "numbers"),
    [
        ("@pytest.mark.catalogue(3)\ndef test(): pass", {3}),
        ("A = {'a': pytest.mark.catalogue(4, 5)}", {4, 5}),
        ("@pytest.mark.slow\ndef test(): pass", set()),
    ],
)
def test_marks_are_found(source: str, numbers: set[int]) -> None:
    assert marked(source) == numbers
