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
from rasterio.transform import Affine

from geothresh.api.evaluate import evaluate
from geothresh.errors import GeothreshWarning, InputError, OutputError, UsageError
from geothresh.evaluation.options import Maps, Scoring
from geothresh.evaluation.report import Report
from geothresh.evaluation.samples import read_ids
from geothresh.metrics import Counts
from geothresh.options import Compute, Reading, Refining, Tiling
from tests.support.blobs import scene, write_pairs
from tests.support.fakes import IdentityRefiner
from tests.support.rasters import write_raster
from tests.support.samples import SharperRefiner, naive_iou


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
    raster = write_raster(tmp_path / "scene.tif", levels, nodata=255)
    mask = write_raster(tmp_path / "labels.tif", labels, nodata=255)
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
    raster = write_raster(tmp_path / "scene.tif", levels)
    masks = [
        write_raster(tmp_path / f"labels{nodata}.tif", truth.astype(np.uint8), nodata=nodata)
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
    raster = write_raster(tmp_path / "scene.tif", levels)
    small = write_raster(tmp_path / "small.tif", truth[:30].astype(np.uint8))
    with pytest.raises(InputError, match="50 x 30 pixels.*50 x 40"):
        evaluate(raster, mask=small, model=None, reading=Reading(scale=255.0))
    moved = write_raster(tmp_path / "moved.tif", truth.astype(np.uint8))
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
    with pytest.raises(InputError, match="none of its 1 id .nowhere."):
        chosen(lines)


@pytest.mark.parametrize(
    "text", ["", "{", '{"train": []}', '{"validation": 3}', '{"validation": "abc"}']
)
def test_a_file_without_ids_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ids"
    path.write_text(text)
    with pytest.raises(InputError, match="ids"):
        read_ids(path)


def test_a_manifest_whose_list_is_empty_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["a"], "validation": []}))
    with pytest.raises(InputError, match="its list validation is empty$"):
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
    page = tmp_path / "page.html"
    with pytest.raises(UsageError, match="page.html: is `output` and `report` at once"):
        evaluate(data, model=None, maps=maps, scoring=Scoring(output=page, report=page))
    ids = tmp_path / "ids.txt"
    ids.write_text("place0\n")
    (tmp_path / "calibration.json").write_text("{}")
    for path in (ids, tmp_path / "calibration.json"):
        with pytest.raises(UsageError, match="the output is the input"):
            evaluate(
                data, maps=replace(maps, ids=ids),
                refining=Refining(calibration=tmp_path / "calibration.json"),
                scoring=Scoring(output=path, overwrite=True),
            )  # fmt: skip
    assert ids.read_text() == "place0\n"
    assert isinstance(again, Report)


def test_no_figure_or_report_replaces_a_map_or_a_mask(tmp_path: Path) -> None:
    data, confidence = write_pairs(tmp_path, range(2))
    one = confidence / "place1.png"
    before, mask = one.read_bytes(), next(Path(data).rglob("place0_mask.png"))
    (tmp_path / "link").symlink_to(confidence.parent)
    maps = Maps(confidence=[confidence])
    for scoring in (
        Scoring(figures=confidence.parent, overwrite=True),
        Scoring(figures=tmp_path / "link", overwrite=True),
        Scoring(output=one, overwrite=True),
        Scoring(output=mask, figures=tmp_path / "new", overwrite=True),
    ):
        with pytest.raises(UsageError, match="the output is the input .*place"):
            evaluate(data, model=None, maps=maps, scoring=scoring)
    assert one.read_bytes() == before and not (tmp_path / "new").exists()


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
