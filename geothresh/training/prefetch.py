"""Prefetch one item of an iterable in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over items, the next of which is made in a thread meanwhile.

    An exception while an item is made is raised when that item is asked for.

    Args:
        items: none of them None; only ever asked for the next one, by one thread at a time.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="geothresh-prefetch") as pool:
        waiting = pool.submit(next, source, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, source, None)
            yield item
