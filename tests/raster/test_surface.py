"""Surfaces of many rasters: their pieces, and what is said about their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from geothresh import Many
from geothresh.errors import GeothreshWarning, InputError, warn
from geothresh.raster.surface import merged_warnings
from tests.support.many import run
from tests.support.rasters import NORTH_UP, write_raster


def test_pieces_need_no_operator_of_new_versions_of_affine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", np.full((64, 100), 0.7, np.float32))
    corner = NORTH_UP @ (64, 0)
    # Versions before 3 do not have it, and rasterio takes any.
    monkeypatch.delattr(Affine, "__matmul__")
    run([scene], tmp_path / "out", many=Many(piece=64))
    with rasterio.open(tmp_path / "out" / "scene_r0_c1_mask.tif") as piece:
        assert tuple(piece.transform)[:6] == (2.0, 0.0, corner[0], 0.0, -2.0, corner[1])


def test_warnings_are_given_when_an_error_ends_the_files() -> None:
    with (
        pytest.warns(GeothreshWarning, match=r"^a \(and 1 other file\): no georeference"),
        pytest.raises(InputError, match="b: broken"),
        pytest.warns(GeothreshWarning, match="^the GPU is shared$"),
        merged_warnings(["a", "b"]),
    ):
        for name in "ba":
            warn(f"{name}: no georeference")
            warn("the GPU is shared")
        raise InputError("b: broken")
