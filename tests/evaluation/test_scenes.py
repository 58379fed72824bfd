"""Several rasters with their truth: scored together, told apart, matched by order or by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geothresh import InputError, Reading, Scoring, Tiling, UsageError, compare, evaluate
from geothresh.evaluation.report import Report
from geothresh.metrics import Counts
from geothresh.types import BoolArray
from tests.support.fakes import IdentityRefiner
from tests.support.rasters import write_raster

SIDES = {"a": (70, 80), "b": (520, 60), "c": (64, 64)}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three scenes and, under each of the names that are understood, their truth."""
    rng = np.random.default_rng(1)
    scenes, truths = tmp_path / "scenes", tmp_path / "truths"
    scenes.mkdir()
    truths.mkdir()
    for (name, shape), ending in zip(SIDES.items(), ("", "_mask", "_truth"), strict=True):
        truth = np.zeros(shape, np.uint8)
        truth[20:40] = 1
        noise = rng.random(shape) * {"a": 0.4, "b": 0.7, "c": 0.6}[name]
        write_raster(scenes / f"{name}.tif", np.abs(truth - noise).astype(np.float32))
        write_raster(truths / f"{name}{ending}.tif", truth)
    return scenes, truths


def counts(folders: tuple[Path, Path], name: str) -> Counts:
    """Of the plain cut of a whole scene, from its pixels."""

    def read(folder: Path, pattern: str) -> BoolArray:
        (path,) = folder.glob(pattern)
        with rasterio.open(path) as dataset:
            return np.asarray(dataset.read(1) >= 0.5)

    return Counts.of(
        prediction=read(folders[0], f"{name}.tif"), target=read(folders[1], f"{name}*.tif")
    )


def plain(data: Any, mask: Any) -> Report:
    return evaluate(data, mask=mask, model=None)


def test_totals_are_of_all_pixels_and_each_scene_has_its_own(folders: tuple[Path, Path]) -> None:
    (source,) = plain(*folders).sources
    own = {name: counts(folders, name) for name in SIDES}
    assert [one.name for one in source.scenes] == list(SIDES)
    assert [one.cells for one in source.scenes] == [1, 2, 1]
    assert [one.before for one in source.scenes] == [one.iou() for one in own.values()]
    assert source.row("cut").summary.iou_pooled == sum(own.values(), Counts()).iou()
    assert source.row("cut").summary.n == 4
    assert [line["id"] for line in source.maps] == [
        "a_row0_col0", "b_row0_col0", "b_row512_col0", "c_row0_col0",
    ]  # fmt: skip


def test_by_name_by_order_and_one_by_one_are_the_same(folders: tuple[Path, Path]) -> None:
    scenes, truths = (sorted(folder.iterdir()) for folder in folders)
    (by_name,) = plain(*folders).sources
    (by_order,) = plain(scenes, truths).sources
    assert (by_name.name, by_order.name) == ("scenes", "3 scenes")
    assert by_order.rows == by_name.rows and by_order.scenes == by_name.scenes
    for path, truth, score in zip(scenes, truths, by_name.scenes, strict=True):
        (alone,) = plain(path, truth).sources
        assert alone.scenes == () and alone.row("cut").summary.iou_pooled == score.before


def test_refined_scenes_have_gains_and_the_least_is_named(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    class Lost(IdentityRefiner):
        """Of what is likely, makes nothing: where there is more of it, more is lost."""

        def refine(self, batch: np.ndarray) -> np.ndarray:
            return np.zeros_like(super().refine(batch))

    same, lost = (
        evaluate(
            folders[0], mask=folders[1], model=model, tiling=Tiling(tile_size=64, overlap=0),
            scoring=Scoring(report=str(tmp_path / name)),
        ).sources[0]
        for name, model in (("s.html", IdentityRefiner(patch=32)), ("l.html", Lost(patch=32)))
    )  # fmt: skip
    assert [one.gain for one in same.scenes] == [0, 0, 0]
    assert [one.after for one in lost.scenes] == [0, 0, 0]
    worst = max(lost.scenes, key=lambda one: one.before or 0)
    sentence = f"Refining gains least in {worst.name}: -{100 * (worst.before or 0):.2f} points"
    assert sentence in lost.table() and sentence in (tmp_path / "l.html").read_text("utf-8")
    assert lost.as_dict()["scenes"][0]["gain"] == lost.scenes[0].gain


def test_the_table_has_a_line_for_each_scene(folders: tuple[Path, Path]) -> None:
    (source,) = plain(*folders).sources
    lines = source.table().splitlines()
    assert lines[0] == "scenes: 4 cells of 3 scenes"
    at = lines.index("scene  cells  IoU before  after  gain")
    for line, name in zip(lines[at + 1 : at + 4], SIDES, strict=True):
        assert line.split() == [
            name, "2" if name == "b" else "1", f"{100 * counts(folders, name).iou():.2f}", "-", "-",
        ]  # fmt: skip
    worst = min(SIDES, key=lambda name: counts(folders, name).iou())
    assert f"The least IoU has {worst}: {100 * counts(folders, worst).iou():.2f}." in lines


def test_a_scene_without_a_valid_pixel_hides_no_other(folders: tuple[Path, Path]) -> None:
    write_raster(folders[0] / "a.tif", np.full(SIDES["a"], np.nan, np.float32))
    (source,) = plain(*folders).sources
    first = source.scenes[0]
    assert (first.cells, first.before, first.gain) == (0, None, None)
    assert source.row("cut").summary.n == 3


def test_a_missing_or_doubled_mask_is_named(folders: tuple[Path, Path]) -> None:
    scenes, truths = folders
    write_raster(truths / "a_mask.tif", np.zeros(SIDES["a"], np.uint8))
    with pytest.raises(UsageError, match=r"a\.tif: has 2 masks, .*a\.tif, .*a_mask\.tif; leave"):
        plain(*folders)
    for path in truths.glob("a*"):
        path.unlink()
    with pytest.raises(InputError, match=r"no mask of 1 of 3 scenes: a\.tif"):
        plain(*folders)
    with pytest.raises(UsageError, match="3 rasters and 2 masks"):
        plain(sorted(scenes.iterdir()), sorted(truths.iterdir()))


def test_scenes_and_masks_may_be_vrts_where_that_is_allowed(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    scenes, truths = tmp_path / "vrts", tmp_path / "true_vrts"
    for folder, vrts in zip(folders, (scenes, truths), strict=True):
        vrts.mkdir()
        rasterio.shutil.copy(folder / "a.tif", vrts / "a.vrt", driver="VRT")
        (tmp_path / f"{vrts.name}.txt").write_text(f"{vrts.name}/a.vrt\n")
    one = {"data": scenes / "a.vrt", "mask": truths / "a.vrt", "model": None}
    listed = {"data": f"@{scenes}.txt", "mask": f"@{truths}.txt", "model": None}
    for pair in (one, listed):
        (source,) = evaluate(**pair, reading=Reading(allow_vrt=True)).sources
        assert source.row("cut").summary.n == 1
        with pytest.raises(InputError, match=r"a\.vrt: is a VRT, .* add `allow_vrt=True`"):
            evaluate(**pair)
    with pytest.raises(InputError, match=r"a VRT, .* write a GeoTIFF of it with gdal_translate"):
        compare(truths / "a.vrt", folders[1] / "a.tif", tmp_path / "c.tif")


def test_how_values_are_read_is_for_directories_of_scenes_too(folders: tuple[Path, Path]) -> None:
    once, halved = (
        evaluate(folders[0], mask=folders[1], model=None, reading=Reading(scale=scale))
        for scale in ("auto", 2.0)
    )
    assert once.sources[0].scenes != halved.sources[0].scenes
