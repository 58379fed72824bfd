"""What neighbouring tiles share when nothing is asked for follows the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

import geothresh
from geothresh.api.evaluate import evaluate
from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.evaluation.options import Maps
from geothresh.options import Compute, Tiling
from geothresh.run.models import choose_model
from tests.support.blobs import write_pairs
from tests.support.cli_runner import runner
from tests.support.fakes import IdentityRefiner
from tests.support.rasters import write_raster

SHARED = {1: 128, 16: 128, 48: 144, 64: 128, 128: 128, 192: 192, 256: 256}


def values() -> np.ndarray:
    return np.random.default_rng(0).random((300, 700), np.float32)


@pytest.mark.parametrize("patch, overlap", SHARED.items())
def test_it_is_128_or_the_whole_patches_that_make_up_128(patch: int, overlap: int) -> None:
    chosen = choose_model(IdentityRefiner(patch), Compute(device="cpu"))
    assert chosen.overlap(Tiling(tile_size=768)) == overlap
    assert chosen.overlap(Tiling(tile_size=768, overlap=2 * patch)) == 2 * patch
    assert chosen.overlap(Tiling(tile_size=2 * patch)) == min(overlap, patch)


def test_a_patch_of_256_needs_no_option(tmp_path: Path) -> None:
    """128 is half of it: refine, refine_array and evaluate refused what they chose themselves."""
    model = IdentityRefiner(256)
    scene = write_raster(tmp_path / "scene.tif", values())
    result = geothresh.refine(scene, model=model)
    with rasterio.open(result.mask) as mask:
        assert mask.tags()["GEOTHRESH_OVERLAP"] == "256"
        np.testing.assert_array_equal(mask.read(1), values() >= 0.5)
    np.testing.assert_allclose(geothresh.refine_array(values(), model=model), values(), atol=1e-6)
    data, confidence = write_pairs(tmp_path, range(2))
    report = evaluate(data, model=model, maps=Maps(confidence=[confidence]))
    assert report.sources[0].changes is not None


def test_the_tags_of_other_models_say_128_as_before(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", values())
    with rasterio.open(geothresh.refine(scene, model=IdentityRefiner(64)).mask) as mask:
        assert mask.tags()["GEOTHRESH_OVERLAP"] == "128"


def test_what_is_asked_for_is_taken_or_refused() -> None:
    model = IdentityRefiner(256)
    with pytest.raises(UsageError, match="overlap 128: must be a multiple of the patch, 256"):
        geothresh.refine_array(values(), model=model, tiling=Tiling(overlap=128))
    # Tiles of one patch can share nothing: seams are not made unasked.
    with pytest.raises(UsageError, match="overlap 256: .* from 0 to 0"):
        geothresh.refine_array(values(), model=model, tiling=Tiling(tile_size=256))
    apart = geothresh.refine_array(values(), model=model, tiling=Tiling(tile_size=256, overlap=0))
    np.testing.assert_allclose(apart, values(), atol=1e-6)


@pytest.mark.parametrize("command", ["refine", "evaluate"])
def test_the_help_says_so(command: str) -> None:
    text = " ".join(runner().invoke(main, [command, "--help"]).stdout.split())
    assert "[default: 128, the model's patch where that is larger, less for small tiles]" in text
