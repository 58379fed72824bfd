"""Which ids show one place, however they are joined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geothresh.splitting import places_of


def test_places_join_by_marks_and_names_alike() -> None:
    marks = {"a_1": ["x"], "b_1": ["x", "y"], "b_2": [], "c_1": ["z"], "d": ["y"]}
    found = places_of(marks, marks, r"^([a-z])_")
    assert found == [("a_1", "b_1", "b_2", "d"), ("c_1",)]


def test_an_optional_group_that_matches_nothing_names_no_place() -> None:
    found = places_of(["x", "y", "1_a", "1_b"], {}, r"^(?:(\d+)_)?")
    assert found == [("1_a", "1_b"), ("x",), ("y",)]


@given(st.dictionaries(st.text("abc", max_size=3), st.lists(st.sampled_from("123456"), max_size=2)))
def test_places_are_the_connected_ids(marks: dict[str, list[str]]) -> None:
    expected = [({i}, set(marks[i])) for i in marks]
    for mark in "123456":
        joined = [place for place in expected if mark in place[1]]
        apart = [place for place in expected if mark not in place[1]]
        if joined:
            ids, known = (set[str]().union(*parts) for parts in zip(*joined, strict=True))
            expected = [*apart, (ids, known)]
    assert places_of(marks, marks, None) == sorted(tuple(sorted(ids)) for ids, _ in expected)
