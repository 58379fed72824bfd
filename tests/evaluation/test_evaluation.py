"""Evaluation: every row against a naive twin, folders and one raster alike."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine
from scipy import stats

from geothresh.api.evaluate import evaluate
from geothresh.colours import ADDED, FOREGROUND, NO_DATA, REMOVED
from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError
from geothresh.evaluation.figures import error_picture, figure
from geothresh.evaluation.options import Maps, Scoring
from geothresh.evaluation.report import Report
from geothresh.evaluation.samples import read_ids
from geothresh.evaluation.scoring import Sample, Tally, sweep
from geothresh.evaluation.verdict import Changes
from geothresh.metrics import Counts, boundary_counts
from geothresh.options import Compute, Reading, Refining, Tiling
from geothresh.thresholding import THRESHOLDS
from tests.support.blobs import scene, write_pairs
from tests.support.fakes import IdentityRefiner
from tests.support.rasters import write_raster


class SharperRefiner(IdentityRefiner):
    """Takes 0.2 from every confidence, so that its cut at 0.5 is the input's at 0.7."""

    name = "sharper"
    digest = "5ha"

    def refine(self, tiles: np.ndarray) -> np.ndarray:
        return np.maximum(tiles - np.float32(0.2), 0)


def sample(seed: int, size: int = 60, **changes: Any) -> Sample:
    levels, truth = scene(seed, size, size)
    confidence = levels.astype(np.float32) / np.float32(255)
    return replace(Sample(id=f"map{seed}", confidence=confidence, truth=truth), **changes)


def write_tif(path: Path, values: np.ndarray, **profile: Any) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[0],
        width=values.shape[1],
        count=1,
        dtype=values.dtype,
        crs="EPSG:32632",
        transform=rasterio.Affine(1, 0, 400_000, 0, -1, 5_000_000),
        **profile,
    ) as dataset:
        dataset.write(values, 1)
    return path


def naive_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    union = (prediction | truth).sum()
    return float((prediction & truth).sum() / union) if union else 1.0


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    distance=st.integers(1, 6),
    metric=st.sampled_from(["chessboard", "cityblock"]),
    holes=st.booleans(),
)
def test_a_sweep_counts_as_19_cuts_do(
    seed: int, height: int, width: int, distance: int, metric: Any, holes: bool
) -> None:
    rng = np.random.default_rng(seed)
    levels, truth = scene(seed, height, width)
    confidence = np.where(rng.random((height, width)) < 0.2, 0.5, levels / 255).astype(np.float32)
    valid = rng.random((height, width)) < 0.9 if holes else None
    ours = sweep(confidence, truth, distance=distance, metric=metric, valid=valid)
    for k, threshold in enumerate(THRESHOLDS):
        arrays: dict[str, Any] = {
            "prediction": confidence >= threshold,
            "target": truth,
            "valid": valid,
        }
        assert ours.counts[k] == Counts.of(**arrays)
        assert ours.boundary[k] == boundary_counts(**arrays, distance=distance, metric=metric)


def test_the_rows_equal_their_naive_twins() -> None:
    samples = [sample(seed) for seed in range(4)]
    tally = Tally(patch=16)
    for s in samples:
        tally.add(replace(s, refined=np.maximum(s.confidence - np.float32(0.2), 0)))
    report = tally.report("net")

    ious = np.array([[naive_iou(s.confidence >= t, s.truth) for t in THRESHOLDS] for s in samples])
    assert report.row("cut").summary.miou == pytest.approx(ious[:, 9].mean())
    assert report.row("single").summary.miou == pytest.approx(ious.mean(axis=0).max())
    assert report.row("single").threshold == pytest.approx(THRESHOLDS[ious.mean(axis=0).argmax()])
    assert report.row("per_map").summary.miou == pytest.approx(ious.max(axis=1).mean())
    after = [naive_iou(s.confidence - np.float32(0.2) >= 0.5, s.truth) for s in samples]
    assert report.row("refined").summary.miou == pytest.approx(np.mean(after))
    pooled = naive_iou(
        np.stack([s.confidence >= 0.5 for s in samples]), np.stack([s.truth for s in samples])
    )
    assert report.row("cut").summary.iou_pooled == pytest.approx(pooled)
    mae = np.mean([np.abs(s.confidence - s.truth).mean() for s in samples])
    assert report.row("cut").summary.mae == pytest.approx(mae, abs=1e-6)
    assert report.row("single").summary.mae is None

    boundary = report.row("single_boundary").summary.boundary_iou
    assert boundary >= report.row("single").summary.boundary_iou
    assert report.row("regions").summary.miou > report.row("per_map").summary.miou
    assert report.changes["iou"] == Changes.of([s.id for s in samples], ious[:, 9], after)
    assert [line["id"] for line in report.maps] == [s.id for s in samples]
    assert report.maps[2]["refined"]["iou"] == pytest.approx(after[2])


def best_cut(confidence: np.ndarray) -> float:
    """The lowest of the thresholds that clears a map, or else the highest."""
    return next((float(t) for t in THRESHOLDS if not (confidence >= t).any()), 0.95)


@pytest.mark.parametrize("highest", [0.3, 0.97, 1.0])
def test_a_map_without_foreground_is_cut_where_least_is_falsely_found(highest: float) -> None:
    """Every cut that leaves anything is worth 0: the first of equals would leave the most."""
    noise = np.random.default_rng(0).random((30, 30)).astype(np.float32) * np.float32(0.2)
    noise[3:9, 3:9] = 0.7 if highest > 0.7 else 0.2
    noise[20, 20] = highest
    nothing = np.zeros((30, 30), np.bool_)
    tally = Tally(patch=30)
    tally.add(Sample(id="empty", confidence=noise, truth=nothing))
    report = tally.report("net")
    falsely = int((noise >= best_cut(noise)).sum())
    for key in ("per_map", "single", "single_boundary", "regions"):
        summary = report.row(key).summary
        assert (summary.miou, summary.boundary_iou) == ((1.0, 1.0) if not falsely else (0.0, 0.0))
        assert summary.miou_two_class == pytest.approx((summary.miou + 1 - falsely / 900) / 2)
    assert report.row("single").threshold == pytest.approx(
        float(THRESHOLDS[np.argmin([(noise >= t).sum() for t in THRESHOLDS])])
    )
    # Beside a map with foreground, its false positives count among all pixels.
    other = sample(3, size=30)
    tally.add(other)
    pooled = tally.report("net").row("per_map").summary
    ious = [naive_iou(other.confidence >= t, other.truth) for t in THRESHOLDS]
    counts = Counts.of(
        prediction=other.confidence >= THRESHOLDS[int(np.argmax(ious))], target=other.truth
    )
    assert pooled.iou_pooled == counts.tp / (counts.tp + counts.fp + counts.fn + falsely)


def test_changes_count_gains_and_losses() -> None:
    changes = Changes.of(list("abcd"), [0.5, 0.5, 0.5, 0.5], [0.7, 0.495, 0.45, 0.5])
    assert (changes.n_better, changes.n_worse, changes.n_worse_by_a_point) == (1, 2, 1)
    assert changes.mean_gain == pytest.approx(0.2)
    assert changes.mean_loss == pytest.approx(0.0275)
    assert (changes.worst_id, changes.worst_loss) == ("c", pytest.approx(0.05))
    assert Changes.of(["a"], [0.5], [0.5]).as_dict()["worst_id"] is None


def test_the_share_of_maps_that_lost_is_told() -> None:
    """Two of four maps lose a quarter of their IoU, and one a hair of it."""
    truth = np.zeros((40, 40), np.bool_)
    truth[10:14, :] = True
    tally = Tally(patch=8)
    for name, lost in (("a", 40), ("b", 40), ("c", 1), ("d", 0)):
        refined = truth.astype(np.float32)
        refined[13, :lost] = 0
        confidence = truth.astype(np.float32)
        tally.add(Sample(id=name, confidence=confidence, truth=truth, refined=refined))
    report = tally.report("net")
    told = report.as_dict()["changes"]["iou"]
    assert (told["n"], told["n_better"], told["n_worse"]) == (4, 0, 3)
    assert (told["share_worse"], told["share_worse_by_a_point"]) == (0.75, 0.5)
    assert told["mean_loss"] == pytest.approx((40 + 40 + 1) / 160 / 3)
    assert (told["worst_id"], told["worst_loss"]) == ("a", pytest.approx(0.25))
    text = " ".join(report.table().split())
    assert "2 of 4 maps (50 %) lose more than a point" in text
    assert "In IoU 0 maps gained, 3 lost, most of all a: 25.0 points." in text


def test_the_mean_change_comes_with_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(40), rng.random(40)
    changes = Changes.of([str(k) for k in range(40)], before.tolist(), after.tolist())
    assert changes.mean_difference == pytest.approx((after - before).mean())
    assert changes.standard_error == pytest.approx(stats.sem(after - before))
    assert Changes.of(["a"], [0.2], [0.5]).standard_error is None


def test_invalid_pixels_change_nothing() -> None:
    valid = np.random.default_rng(7).random((60, 60)) < 0.6
    one = sample(3, valid=valid)
    other = replace(one, confidence=np.where(valid, one.confidence, 0), truth=one.truth ^ (~valid))
    reports = []
    for s in (one, other):
        tally = Tally(patch=16)
        tally.add(replace(s, confidence=np.where(valid, s.confidence, 0), refined=s.confidence))
        reports.append(tally.report("net"))
    assert reports[0] == reports[1]
    assert sum(reports[0].maps[0]["cut"][k] for k in ("tp", "fp", "fn", "tn")) == valid.sum()


def test_nothing_and_half_refined_maps_are_refused() -> None:
    tally = Tally(patch=16)
    with pytest.raises(InputError, match="0 maps"):
        tally.report("net")
    tally.add(sample(1))
    tally.add(sample(2, refined=np.zeros((60, 60), np.float32)))
    with pytest.raises(InputError, match="1 of 2 maps are refined"):
        tally.report("net")


def test_folders_are_refined_and_scored(tmp_path: Path) -> None:
    data, first = write_pairs(tmp_path, range(3))
    _, second = write_pairs(tmp_path, range(3), network="other")
    calls: list[tuple[int, int]] = []
    report = evaluate(
        data,
        model=SharperRefiner(patch=16),
        progress=lambda done, total: calls.append((done, total)),
        maps=Maps(confidence=[first, second]),
        tiling=Tiling(tile_size=64, overlap=16),
    )
    assert [s.name for s in report.sources] == ["net", "other"]
    assert (report.model, report.digest, report.patch) == ("sharper", "5ha", 16)
    assert calls == [(n, 6) for n in range(1, 7)]
    expected = []
    for seed in range(3):
        levels, truth = scene(seed, 70, 90)
        confidence = levels.astype(np.float32) / np.float32(255)
        expected.append(naive_iou(confidence - np.float32(0.2) >= 0.5, truth))
    # The blend of tiles may move a value by a rounding, and a pixel across the cut with it.
    assert report.sources[0].row("refined").summary.miou == pytest.approx(
        np.mean(expected), abs=2e-3
    )
    assert report.sources[1].row("refined") == report.sources[0].row("refined")


def test_identity_changes_no_map_of_8_bits(tmp_path: Path) -> None:
    data, confidence = write_pairs(tmp_path, range(2))
    report = evaluate(
        data,
        model=IdentityRefiner(patch=16),
        maps=Maps(confidence=[confidence]),
        scoring=Scoring(boundary_metric="cityblock"),
        tiling=Tiling(tile_size=64, overlap=16),
    )
    source = report.sources[0]
    assert source.metric == "cityblock"
    before, after = source.row("cut").summary, source.row("refined").summary
    assert after.miou == before.miou
    assert after.boundary_iou == before.boundary_iou
    assert source.changes["iou"].n_worse == source.changes["iou"].n_better == 0
    assert "Refining neither gains nor loses IoU (s.e. 0.0)" in report.table()


def test_a_raster_is_scored_in_cells_that_add_up_to_the_whole(tmp_path: Path) -> None:
    levels, truth = scene(5, 600, 1100)
    levels[:60, :90] = 255
    labels = truth.astype(np.uint8)
    labels[300:340] = 255
    valid = (levels != 255) & (labels != 255)
    raster = write_tif(tmp_path / "scene.tif", levels, nodata=255)
    mask = write_tif(tmp_path / "labels.tif", labels, nodata=255)
    plain = evaluate(raster, mask=mask, model=None, reading=Reading(scale=255.0))
    refined = evaluate(
        raster,
        mask=mask,
        model=IdentityRefiner(patch=64),
        reading=Reading(scale=255.0),
        tiling=Tiling(overlap=64),
    )

    source = plain.sources[0]
    assert (source.name, source.unit, source.distances) == ("scene", "cell", (15, 15))
    assert source.row("cut").summary.n == 6
    prediction = levels >= 128
    whole = Counts.of(prediction=prediction, target=truth, valid=valid)
    assert source.row("cut").summary.iou_pooled == whole.iou()
    counted = sum(line["cut"][k] for line in source.maps for k in ("tp", "fp", "fn", "tn"))
    assert counted == valid.sum()
    cell = np.s_[:512, 512:1024]
    assert source.maps[1]["id"] == "row0_col512"
    assert (
        source.maps[1]["cut"]["iou"]
        == Counts.of(prediction=prediction[cell], target=truth[cell], valid=valid[cell]).iou()
    )
    again = refined.sources[0]
    assert again.row("cut") == source.row("cut")
    assert again.row("refined").summary.iou_pooled == source.row("cut").summary.iou_pooled


def test_a_nodata_value_of_0_hides_no_background(tmp_path: Path) -> None:
    levels, truth = scene(5, 40, 50)
    raster = write_tif(tmp_path / "scene.tif", levels)
    masks = [
        write_tif(tmp_path / f"labels{nodata}.tif", truth.astype(np.uint8), nodata=nodata)
        for nodata in (None, 0)
    ]
    plain, tagged = (
        evaluate(raster, mask=mask, model=None, reading=Reading(scale=255.0)) for mask in masks
    )
    assert plain.sources == tagged.sources
    assert plain.sources[0].maps[0]["cut"]["tn"] > 0


def test_a_raster_unlike_the_models_data_is_warned_of(tmp_path: Path) -> None:
    levels, truth = scene(5, 64, 64)
    raster = write_raster(tmp_path / "scene.tif", levels, transform=Affine.scale(0.02, -0.02))
    mask = write_raster(
        tmp_path / "labels.tif", truth.astype(np.uint8), transform=Affine.scale(0.02, -0.02)
    )
    with pytest.warns(GeothreshWarning, match=r"\d+ times smaller"):
        evaluate(
            raster,
            mask=mask,
            refining=Refining(resolution="native"),
            reading=Reading(scale=255.0),
            tiling=Tiling(tile_size=64, overlap=0),
            compute=Compute(device="cpu"),
        )


def test_labels_off_the_raster_are_refused(tmp_path: Path) -> None:
    levels, truth = scene(5, 40, 50)
    raster = write_tif(tmp_path / "scene.tif", levels)
    small = write_tif(tmp_path / "small.tif", truth[:30].astype(np.uint8))
    with pytest.raises(InputError, match="50 x 30 pixels.*50 x 40"):
        evaluate(raster, mask=small, model=None, reading=Reading(scale=255.0))
    moved = write_tif(tmp_path / "moved.tif", truth.astype(np.uint8))
    with rasterio.open(moved, "r+") as dataset:
        dataset.transform = dataset.transform @ rasterio.Affine.translation(0.5, 0)
    with pytest.raises(InputError, match="0.5 pixels off"):
        evaluate(raster, mask=moved, model=None, reading=Reading(scale=255.0))


def test_ids_choose_among_the_maps(tmp_path: Path) -> None:
    data, confidence = write_pairs(tmp_path, range(4))
    manifest = tmp_path / "split.json"
    manifest.write_text(json.dumps({"train": ["place0"], "validation": ["place2", "place3"]}))
    lines = tmp_path / "ids.txt"
    lines.write_text("place1\n\nelsewhere\n")

    def chosen(path: Path, **options: Any) -> list[str]:
        report = evaluate(data, model=None, maps=Maps(confidence=[confidence], ids=path, **options))
        return [line["id"] for line in report.sources[0].maps]

    assert chosen(manifest) == ["place2", "place3"]
    assert chosen(manifest, split="train") == ["place0"]
    with pytest.warns(GeothreshWarning) as caught:
        assert chosen(lines) == ["place1"]
    (text,) = [str(one.message) for one in caught]
    assert text.startswith(f"{lines}: 1 of its 2 ids (elsewhere) are not among the 4 of the data")
    lines.write_text("place1\na\nb\nc\n")
    with pytest.warns(GeothreshWarning, match=r"3 of its 4 ids \(a, b and 1 more\)"):
        chosen(lines)
    # A manifest may cover other data too.
    manifest.write_text(json.dumps({"train": [], "validation": ["place2", "elsewhere"]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen(manifest) == ["place2"]
    lines.write_text("nowhere\n")
    with pytest.raises(InputError, match="none of its 1 ids .nowhere."):
        chosen(lines)


@pytest.mark.parametrize(
    "text", ["", "{", '{"train": []}', '{"validation": 3}', '{"validation": "abc"}']
)
def test_a_file_without_ids_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text)
    with pytest.raises(InputError, match="ids"):
        read_ids(path)


def test_figures_and_report_are_written_where_nothing_is_in_the_way(tmp_path: Path) -> None:
    data, confidence = write_pairs(tmp_path, range(2))
    figures, output = tmp_path / "figures", tmp_path / "report.json"
    scoring, maps = Scoring(figures=figures, output=output), Maps(confidence=[confidence])
    report = evaluate(data, model=None, maps=maps, scoring=scoring)
    assert sorted(p.name for p in (figures / "net").iterdir()) == ["place0.png", "place1.png"]
    assert json.loads(output.read_text()) == json.loads(json.dumps(report.as_dict()))
    with pytest.raises(OutputError, match="report.json: exists"):
        evaluate(data, model=None, maps=maps, scoring=scoring)
    with pytest.raises(OutputError, match="figures: holds files"):
        evaluate(data, model=None, maps=maps, scoring=Scoring(figures=figures))
    again = evaluate(data, model=None, maps=maps, scoring=replace(scoring, overwrite=True))
    assert isinstance(again, Report)


def test_errors_have_their_colours() -> None:
    prediction = np.array([[1, 1, 0, 0]], dtype=bool)
    truth = np.array([[1, 0, 1, 1]], dtype=bool)
    valid = np.array([[1, 1, 1, 0]], dtype=bool)
    picture = error_picture(prediction, truth, valid)
    assert [tuple(p) for p in picture[0].tolist()] == [
        FOREGROUND,
        REMOVED,
        ADDED,
        NO_DATA,
    ]
    assert ADDED[2] == max(ADDED), "what is missed is blue"
    assert REMOVED[0] == max(REMOVED), "what is falsely found is red"


def test_a_figure_shows_both_masks_and_their_errors() -> None:
    plain = sample(1)
    narrow = figure(plain, threshold=0.5, source="net")
    wide = figure(replace(plain, refined=plain.confidence), threshold=0.5, source="net")
    assert narrow.dtype == np.uint8
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] > narrow.shape[1]


def test_a_figure_shows_the_mask_that_is_scored() -> None:
    """Foreground of the input that the keep threshold leaves looks as if it had stayed."""
    plain = sample(1)
    foreground = plain.confidence >= 0.5
    gone = replace(plain, refined=np.where(foreground, np.float32(0.3), np.float32(0)))
    stays = replace(plain, refined=np.where(foreground, np.float32(0.9), np.float32(0)))
    cut, kept = (figure(gone, threshold=0.5, source="net", keep=keep) for keep in (None, 0.2))
    assert (cut != kept).any()
    np.testing.assert_array_equal(kept, figure(stays, threshold=0.5, source="net"))


RASTER = {"data": "{file}", "mask": "{file}"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": []}, "no data"),
        ({"data": "{data}", "mask": "{data}"}, "of scenes and of their truth"),
        ({"data": "{data}", "mask": "{file}"}, "is a folder or a list"),
        ({"data": ["{file}", "{file}"], "mask": "{file}"}, "2 rasters and 1 masks"),
        ({"data": ["{file}"] * 2, "mask": ["{file}"] * 2}, "have one name"),
        ({"data": "{file}"}, "`mask`"),
        ({**RASTER, "maps": Maps(confidence=["x"])}, "`confidence` is for folders"),
        ({**RASTER, "maps": Maps(ids="x")}, "`ids` is for folders"),
        ({**RASTER, "maps": Maps(split="train")}, "`split` is for folders"),
        ({**RASTER, "maps": Maps(skip_unpaired=True)}, "`skip_unpaired` is for"),
        ({**RASTER, "reading": Reading(aoi="x")}, "`aoi` is for `geothresh refine`"),
        ({"reading": Reading(scale=255)}, "`scale` is for a raster, with `mask`; leave it out"),
        ({"reading": Reading(nodata=0.0)}, "`nodata` is for a raster"),
        ({"reading": Reading(bidx=1)}, "`bidx` is for a raster"),
        ({"maps": Maps(split="train")}, "name that with `ids`"),
        ({"refining": Refining(tta="d4")}, "`tta` is for refining, and there is no model"),
        ({"refining": Refining(resolution="native")}, "`resolution` is for refining"),
        ({"compute": Compute(workers=2)}, "`workers` is for `geothresh refine`"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    file = tmp_path / "scene.tif"
    file.write_bytes(b"II")

    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(v) for v in value]
        return value.format(data=tmp_path, file=file) if isinstance(value, str) else value

    with pytest.raises(UsageError, match=message):
        evaluate(**{"data": tmp_path, **{k: fill(v) for k, v in arguments.items()}}, model=None)
