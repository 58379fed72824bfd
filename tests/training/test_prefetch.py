"""Items made ahead: the same ones in the same order, in another thread, with their errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from geothresh.training.loop import prefetched


@pytest.mark.parametrize("n", [0, 1, 7])
def test_items_come_in_their_order(n: int) -> None:
    assert list(prefetched(range(1, n + 1))) == list(range(1, n + 1))


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    made = [threading.Event() for _ in range(4)]
    threads = set()

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            threads.add(threading.get_ident())
            event.set()
            yield number

    for number in prefetched(items()):
        if number + 1 < len(made):
            assert made[number + 1].wait(5)
        if number + 2 < len(made):
            assert not made[number + 2].is_set(), "one ahead, not more: they take memory"
    assert threading.get_ident() not in threads and len(threads) == 1


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    found = prefetched(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="torn"):
        next(found)


def test_stopping_early_leaves_no_thread() -> None:
    before = threading.active_count()
    for number in prefetched(range(1, 100)):
        if number == 3:
            break
    assert threading.active_count() == before
