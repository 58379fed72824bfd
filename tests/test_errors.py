"""Words of messages: numbers with their nouns, and names."""

from __future__ import annotations

import pytest

from geothresh.errors import names, number_of


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1200, "1,200 files")],
)
def test_a_number_with_its_noun(number: int, said: str) -> None:
    assert number_of(number, "file") == said


def test_a_noun_with_a_plural_of_its_own() -> None:
    assert number_of(1, "geometry", "geometries") == "1 geometry"
    assert number_of(3, "geometry", "geometries") == "3 geometries"


def test_many_names_are_cut_short() -> None:
    assert names(["b", "a"]) == "a, b"
    assert names(["c", "b", "a"], 2) == "a, b and 1 more"
