"""Warnings of rasterio and Pillow that geothresh says in words of its own, or not at all."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL.Image import DecompressionBombWarning
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

_lock = threading.Lock()
_inside = 0
_filters = warnings.catch_warnings()


@contextmanager
def in_own_words() -> Iterator[None]:
    """Silence what rasterio warns of, and make an exception of a picture that is too large.

    Filters of warnings belong to the process. Threads that each put theirs in force and the former
    ones back would leave some for good; here the first thread to come puts them in force, and the
    last one to leave puts the caller's back.
    """
    global _inside, _filters
    with _lock:
        if not _inside:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            warnings.simplefilter("ignore", NodataShadowWarning)
            warnings.simplefilter("error", DecompressionBombWarning)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _filters.__exit__(None, None, None)
