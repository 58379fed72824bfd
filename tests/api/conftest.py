"""An object store, and a directory in which outputs are made for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from geothresh.run import staging
from tests.support.objects import ObjectStore, object_store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStore]:
    monkeypatch.setenv(staging.WORK, str(tmp_path / "work"))
    with object_store() as found:
        found.use(monkeypatch)
        yield found
