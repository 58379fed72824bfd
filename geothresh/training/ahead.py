"""Work that overlaps: one item is made in another thread while the one before is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order; what making one raises is raised when it is asked for.

    Args:
        items: none of them None; only ever asked for the next one, by one thread at a time.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="geothresh-ahead") as pool:
        waiting = pool.submit(next, source, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, source, None)
            yield item
