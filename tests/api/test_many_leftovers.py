"""Files beside outputs that no run has made, or that a later run no longer makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from geothresh import Many
from tests.support.many import run, write_tiles

UPDATE = Many(update=True)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


def test_update_removes_nothing_that_no_run_has_made(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([tiles], out)
    (out / "p12_changes.tif").write_text("mine")
    (out / "p12_confidence.tif").write_text("mine")
    (tiles / "p12.tif").unlink()
    assert run([tiles], out, many=UPDATE).removed == ("p12",)
    assert not (out / "p12_mask.tif").exists() and not (out / "p12_mask.qml").exists()
    for layer in ("changes", "confidence"):
        assert (out / f"p12_{layer}.tif").read_text() == "mine"
