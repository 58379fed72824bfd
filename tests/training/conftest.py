"""Data to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.roads import make_roads


@pytest.fixture
def data(tmp_path: Path, tiny_preset: None) -> tuple[Path, list[Path]]:
    return make_roads(tmp_path)
