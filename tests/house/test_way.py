"""The way of a tile from disk to mask: through few files, which the page on the house names."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geothresh
from geothresh.mosaic import refining
from geothresh.nn import device
from geothresh.run.outputs import make_strips
from tests.support.rasters import write_raster

PACKAGE = Path(geothresh.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"

MOST_FILES = 25
"""Files of the package in which a function is called. Whoever brings it down lowers it here."""
OTHER_WAYS = {
    "mosaic/clients.py",
    "mosaic/cluster.py",
    "nn/cuda.py",
    "nn/transformation.py",
    "nn/wrappers.py",
}
"""Worker processes, GPUs, and what is asked for: not on the way of this tile."""


def test_a_tile_passes_few_files_which_the_page_names(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, passed, at_work = f"{PACKAGE}/", set(), threading.Event()

    def note(frame: Any, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and at_work.is_set() and name.startswith(start):
            passed.add(name.removeprefix(start))

    def traced(*arguments: Any, **options: Any) -> None:
        at_work.set()
        sys.setprofile(note)
        try:
            make_strips(*arguments, **options)
        finally:
            sys.setprofile(None)
            at_work.clear()

    monkeypatch.setattr("geothresh.run.jobs.make_strips", traced)
    # The model is loaded anew, on threads that are traced, and afterwards on others.
    _forget_model()
    values = np.random.default_rng(0).random((64, 64), np.float32)
    scene = write_raster(tmp_path / "scene.tif", values)
    threading.setprofile(note)
    try:
        geothresh.refine(scene, model=tiny_model)
    finally:
        threading.setprofile(None)
        _forget_model()
    assert len(passed) <= MOST_FILES, sorted(passed)
    way = re.search(r"## How a tile is processed\n(.*?)\n## ", PAGE.read_text("utf-8"), re.DOTALL)
    assert way is not None
    named = set(re.findall(r"`([\w/]+\.py)`", way[1]))
    assert named - OTHER_WAYS <= passed


def _forget_model() -> None:
    device.compute_threads.cache_clear()
    refining._load.cache_clear()
