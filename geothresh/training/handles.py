"""Keep the rasters of the most recently read scenes open, a limited number of them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Opened = TypeVar("Opened")

MOST_OPEN = 128
"""Scenes whose files are open at once. A scene has a raster, a mask and perhaps a file of validity,
and many systems allow a process 1,024 open files."""


class RecentFiles(Generic[Opened]):
    """Open files by key: the most recently used ones of this process, for several threads.

    Every process, also a forked one, opens the files itself: with a shared file handle, one process
    would move the position at which another process reads. A pickled copy has no open files.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        """Open nothing yet.

        Args:
            most: open files (or pairs of files) at once, at least 1.
        """
        self._most = most
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        # A new lock too: another thread may have held it when this process was forked.
        self._lock = threading.Lock()
        self._open: OrderedDict[object, Opened] = OrderedDict()

    def get(self, key: object, make: Callable[[], Opened]) -> Opened:
        """What `make` opened for this key, or opens now.

        A file that is dropped is closed with its last reference, so a thread that still reads it is
        not disturbed.
        """
        if self._process != os.getpid():
            self._forget()
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
            while len(self._open) >= self._most:
                self._open.popitem(last=False)
            opened = self._open[key] = make()
            return opened

    def __getstate__(self) -> dict[str, Any]:
        return {"_most": self._most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._most = state["_most"]
        self._forget()
