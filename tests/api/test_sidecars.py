"""What lies beside rasters: that of an old one goes with it, ours comes, the user's stays."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from geothresh import refine
from geothresh.errors import GeothreshWarning, OutputError
from geothresh.files import create_beside, file_digest, publish
from geothresh.options import Compute, Outputs, Tiling, Writing
from geothresh.raster.creation import CHANGES, CONFIDENCE, mask_band
from geothresh.raster.scene import open_scene
from geothresh.raster.styles import raster_style
from geothresh.sidecars import is_ours
from tests.support.fakes import IdentityRefiner, Recognisable
from tests.support.rasters import write_raster

TILING = Tiling(tile_size=64, overlap=16)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.zeros((130, 1100), np.float32)
    values[60:63] = 0.9
    values[:20, :30] = np.nan
    return write_raster(tmp_path / "x.tif", values)


def run(scene: Path, outputs: Outputs = Outputs(), **writing: Any) -> Path:
    made = refine(
        scene, model=IdentityRefiner(16), tiling=TILING, outputs=outputs, writing=Writing(**writing)
    )
    return Path(made.mask)


def test_what_described_an_old_raster_goes_with_it(scene: Path) -> None:
    mask = run(scene)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(mask, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    assert mask.with_name("x_mask.tif.ovr").exists()
    mask.with_name("x_mask.tif.msk").write_bytes(b"")
    mask.with_name("x_mask.tif.aux.xml").write_text("<PAMDataset><Old/></PAMDataset>")
    scene.unlink()
    write_raster(scene, np.ones((130, 1100), np.float32))
    run(scene, overwrite=True)
    assert sorted(os.listdir(scene.parent)) == [
        "x.tif", "x_mask.qml", "x_mask.tif", "x_mask.tif.aux.xml",
    ]  # fmt: skip
    with rasterio.open(mask) as dataset:
        assert dataset.overviews(1) == [] and dataset.read(1, out_shape=(65, 550)).min() == 1
    assert "Old" not in mask.with_name("x_mask.tif.aux.xml").read_text()


def test_where_the_old_raster_stays_so_does_what_describes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, side = tmp_path / "m.tif", tmp_path / "m.tif.ovr"
    target.write_text("old")
    side.write_text("its overviews")
    replace = Path.replace

    def failing(source: Path, place: Path) -> Path:
        if place == target:
            assert not side.exists()  # gone before the raster changes, never after
            raise PermissionError(13, "Permission denied")
        return replace(source, place)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OutputError, match="cannot be put in place"):
        publish(create_beside(target), target, replaced=[side])
    assert side.read_text() == "its overviews" and target.read_text() == "old"


def test_a_style_that_somebody_changed_is_theirs(scene: Path) -> None:
    mask = run(scene)
    style = mask.with_suffix(".qml")
    assert is_ours(style.read_text(), "raster")
    style.write_text(style.read_text().replace("#ffb000", "#00ff00"))
    run(scene, overwrite=True)
    assert "#00ff00" in style.read_text()
    run(scene, overwrite=True, style=False)
    assert "#00ff00" in style.read_text()
    style.unlink()
    run(scene, overwrite=True)
    assert is_ours(style.read_text(), "raster")


def test_a_manifest_does_not_outlive_its_mask(scene: Path) -> None:
    confidence, manifest = scene.with_name("c.tif"), scene.with_name("x_mask.manifest.json")
    outputs = Outputs(confidence=confidence)
    mask = run(scene, outputs)
    assert set(json.loads(manifest.read_text())["sha256"]) == {"x_mask.tif", "c.tif"}
    run(scene, overwrite=True)
    assert not manifest.exists() and confidence.exists()
    run(scene, outputs, overwrite=True)
    digests = json.loads(manifest.read_text())["sha256"]
    assert all(digests[file.name] == file_digest(file) for file in (mask, confidence))
    mask.unlink()
    with pytest.raises(OutputError, match=r"c\.tif: exists already"):
        run(scene, outputs)
    confidence.unlink()
    assert manifest.exists()
    run(scene, outputs)  # nothing that it names is in the way
    assert json.loads(manifest.read_text())["sha256"] == digests


@pytest.mark.parametrize(
    "text",
    ["", "[]", "[" * 9999, '{"geothresh": "1"}', '{"geothresh": "1", "sha256": {"x_mask.tif": 3}}'],
)
def test_a_manifest_of_somebody_else_is_theirs(scene: Path, text: str) -> None:
    manifest = scene.with_name("x_mask.manifest.json")
    manifest.write_text(text)
    run(scene)
    run(scene, overwrite=True)
    assert manifest.read_text() == text
    scene.with_name("x_mask.tif").unlink()
    with pytest.raises(OutputError, match="manifest.json: exists already"):
        run(scene, Outputs(confidence=scene.with_name("c.tif")))


def test_no_false_manifest_lies_beside_a_new_mask_at_any_time(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = run(scene, Outputs(confidence=scene.with_name("c.tif")))
    manifest, replace, seen = scene.with_name("x_mask.manifest.json"), Path.replace, []

    def watched(source: Path, place: Path) -> Path:
        if place == mask:
            seen.append(manifest.exists())
        return replace(source, place)

    monkeypatch.setattr(Path, "replace", watched)
    run(scene, Outputs(confidence=scene.with_name("c.tif")), overwrite=True)
    assert seen == [False] and manifest.exists()


def test_without_styles(scene: Path) -> None:
    mask = run(scene)
    run(scene, overwrite=True, style=False)
    assert sorted(os.listdir(scene.parent)) == ["x.tif", mask.name]


def test_a_description_of_nothing_is_not_inherited(scene: Path) -> None:
    mask = run(scene)
    mask.unlink()
    run(scene)  # ours say nothing of others
    mask.unlink()
    mask.with_name("x_mask.tif.ovr").write_bytes(b"of a file that is gone")
    with pytest.raises(OutputError, match=r"x_mask\.tif\.ovr is left of another file"):
        run(scene)
    run(scene, overwrite=True)
    assert not mask.with_name("x_mask.tif.ovr").exists()


def test_every_raster_has_its_own(scene: Path, tmp_path: Path) -> None:
    outputs = {name: tmp_path / f"{name}.tif" for name in ("confidence", "changes", "thresholds")}
    run(scene, Outputs(**outputs))
    for name, band in (("x_mask", mask_band()), ("confidence", CONFIDENCE), ("changes", CHANGES)):
        assert (tmp_path / f"{name}.qml").read_text() == raster_style(band)
    sides = {name for name in os.listdir(tmp_path) if name.endswith(".aux.xml")}
    assert sides == {"x_mask.tif.aux.xml", "changes.tif.aux.xml"}
    for name, path in outputs.items():
        with rasterio.open(path) as dataset:
            found = dataset.tags(1)
            values = dataset.read(1, masked=True)
        assert float(found["STATISTICS_MEAN"]) == pytest.approx(values.mean()), name
        assert float(found["STATISTICS_MAXIMUM"]) == values.max()


def test_overviews_keep_thin_foreground_and_are_in_the_file(scene: Path, tmp_path: Path) -> None:
    confidence = tmp_path / "c.tif"
    mask = run(scene, Outputs(confidence=confidence), overviews=True)
    for path in (mask, confidence):
        with rasterio.open(path) as dataset:
            full = dataset.read(1)
            assert dataset.overviews(1) == [2, 4]
        with rasterio.open(path, overview_level=0) as half:
            values = half.read(1)
        assert values.shape == (65, 550)
        if path == mask:
            assert set(np.unique(values)) == set(np.unique(full))


def test_an_overview_that_is_cut_off_is_noticed(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geothresh.raster.writing import RasterWriter

    add = RasterWriter._add_overviews

    def cut(self: RasterWriter) -> None:
        add(self)
        os.truncate(self._temporary, self._temporary.stat().st_size - 300)

    monkeypatch.setattr(RasterWriter, "_add_overviews", cut)
    with pytest.raises(OutputError, match="could not be written"):
        run(scene, overviews=True)
    assert os.listdir(scene.parent) == ["x.tif"]


@pytest.mark.parametrize("cog", [False, True])
def test_confidences_as_floats(scene: Path, tmp_path: Path, cog: bool) -> None:
    confidence = tmp_path / "c.tif"
    outputs = Outputs(confidence=confidence)
    mask = run(scene, outputs, confidence_dtype="float32", cog=cog)
    with rasterio.open(confidence) as dataset, rasterio.open(scene) as source:
        assert dataset.dtypes == ("float32",) and np.isnan(dataset.nodata)
        assert dataset.scales == (1.0,)
        np.testing.assert_allclose(dataset.read(1), source.read(1), atol=1e-6)  # blended
    with open_scene(confidence) as opened:  # it can be refined, or measured, again
        values, valid = opened.read(opened.size.window())
    assert not valid[:20, :30].any() and valid.sum() == 130 * 1100 - 600
    assert values.max() == pytest.approx(0.9)
    with rasterio.open(mask) as dataset:
        assert dataset.dtypes == ("uint8",) and (dataset.read(1) == 1).sum() == 3 * 1100


def test_floats_go_on_after_an_interruption(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((1700, 70)).astype(np.float32)
    values[500:1100] = np.nan  # a strip of one value
    scene = write_raster(tmp_path / "x.tif", values)

    def go(name: str, refiner: Recognisable) -> bytes:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        refine(
            scene, folder / "m.tif", model=refiner, tiling=TILING,
            outputs=Outputs(confidence=folder / "c.tif"), compute=Compute(batch_size=1),
            writing=Writing(creation_options={"BLOCKYSIZE": "64"}, confidence_dtype="float32"),
        )  # fmt: skip
        return (folder / "c.tif").read_bytes()

    whole = go("whole", Recognisable())
    with pytest.raises(KeyboardInterrupt):
        go("again", Recognisable(35))
    assert go("again", Recognisable()) == whole


@pytest.mark.parametrize("ending", [".gpkg", ".fgb"])
def test_styles_of_vectors_that_the_user_saved_stay(
    scene: Path, tmp_path: Path, ending: str
) -> None:
    vector = tmp_path / f"v{ending}"
    run(scene, Outputs(vector=vector))
    if ending == ".gpkg":
        assert not vector.with_suffix(".qml").exists()
        with closing(sqlite3.connect(vector)) as file:
            file.execute("UPDATE layer_styles SET styleQML = 'mine', styleName = 'my style'")
            file.commit()
    else:
        assert is_ours(vector.with_suffix(".qml").read_text(), "vector")
        vector.with_suffix(".qml").write_text("mine")
    run(scene, Outputs(vector=vector), overwrite=True)
    if ending == ".gpkg":
        with closing(sqlite3.connect(vector)) as file:
            rows = file.execute(
                "SELECT styleName, styleQML = 'mine', useAsDefault FROM layer_styles ORDER BY id"
            ).fetchall()
        assert rows == [("v", 0, 0), ("my style", 1, 1)]
    else:
        assert vector.with_suffix(".qml").read_text() == "mine"


def test_a_raster_and_a_vector_of_one_name_do_not_take_each_others_style(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "x.tif", np.full((70, 70), 0.9, np.float32))
    outputs = Outputs(vector=tmp_path / "x_mask.fgb")
    run(scene, outputs)
    assert is_ours((tmp_path / "x_mask.qml").read_text(), "raster")


def test_two_rasters_of_one_style_are_told(scene: Path, tmp_path: Path) -> None:
    more = Outputs(confidence=tmp_path / "m.tiff")
    with pytest.warns(GeothreshWarning, match="m.tiff: has no style, as m.qml is that of m.tif"):
        refine(scene, tmp_path / "m.tif", model=IdentityRefiner(), outputs=more, tiling=TILING)
    assert 'type="paletted"' in (tmp_path / "m.qml").read_text()
