"""Warnings of outcomes that are unlike those of training."""

from __future__ import annotations

import pytest

from geothresh.api.outcome import doubts
from geothresh.nn.scope import UNKNOWN, ModelScope

ROADS = ModelScope(theme="roads and streets")


@pytest.mark.parametrize(
    ("before", "after", "changed", "said"),
    [
        (90_000, 13_000, 79_000, "removed 87 % of the foreground"),
        (90_000, 70_000, 40_000, None),  # 30,000 removed, 10,000 added
        (90_000, 60_000, 30_000, None),  # just a third
        (90_000, 220_000, 130_000, "changed 13 % of all pixels"),
        (900, 0, 900, None),  # too little to tell
        (0, 0, 0, None),
    ],
)
def test_what_is_unlike_training_is_told(
    before: int, after: int, changed: int, said: str | None
) -> None:
    told = doubts(
        valid=10**6, before=before, after=after, changed=changed, model="roads", scope=ROADS
    )
    if said is None:
        assert told is None
    else:
        assert told is not None
        assert said in told
        assert "model roads is for roads and streets" in told


def test_general_is_not_advised_to_itself() -> None:
    told = doubts(valid=10**6, before=9000, after=0, changed=9000, model="general", scope=ROADS)
    assert told is not None
    assert "fits any" not in told


def test_a_model_without_a_theme_is_not_judged() -> None:
    assert not doubts(valid=10**6, before=9000, after=0, changed=9000, model="m", scope=UNKNOWN)
