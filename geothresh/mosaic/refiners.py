"""One refiner per process, whoever asks for it and however often."""

from __future__ import annotations

import threading
from functools import lru_cache

from geothresh.mosaic.protocols import Refiner, RefinerSource
from geothresh.mosaic.tasks import GuardedRefiner

_loading = threading.Lock()


@lru_cache(maxsize=1)
def _load(source: RefinerSource) -> GuardedRefiner:
    return GuardedRefiner(source.load())


def load_refiner(refiner: Refiner | RefinerSource) -> GuardedRefiner:
    """The refiner that a source describes, loaded at the first call; or the one that is given.

    Only the last source's refiner is kept: a second model does not stay beside the first.
    """
    if callable(refiner):
        return GuardedRefiner(refiner)
    with _loading:  # lru_cache alone would let two threads load the same model
        return _load(refiner)
