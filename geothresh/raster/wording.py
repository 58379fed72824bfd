"""Warnings of rasterio and Pillow that geothresh says in words of its own, or not at all."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

# What becomes of which warning.
_wanted: list[tuple[Literal["ignore", "error"], type[Warning]]] = [
    ("ignore", NotGeoreferencedWarning),
    ("ignore", NodataShadowWarning),
]
_lock = threading.Lock()
_inside = 0
_filters = warnings.catch_warnings()


def make_error(category: type[Warning]) -> None:
    """Make exceptions of these warnings, from the next time on that nobody is inside."""
    _wanted.append(("error", category))


@contextmanager
def in_own_words() -> Iterator[None]:
    """Silence what rasterio warns of, and make exceptions of what `make_error` was told.

    Filters of warnings belong to the process. Threads that each put theirs in force and the former
    ones back would leave some for good; here the first thread to come puts them in force, and the
    last one to leave puts the caller's back.
    """
    global _inside, _filters
    with _lock:
        if not _inside:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            for action, category in _wanted:
                warnings.simplefilter(action, category)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _filters.__exit__(None, None, None)
