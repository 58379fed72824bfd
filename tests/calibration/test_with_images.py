"""DenseCRF in `calibrate`: scored on folds that it was not set by, compared and never advised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from geothresh import Calibrating, InputError, SceneData, UsageError, calibrate
from geothresh.calibration.counts import INPUT, MapCounter
from geothresh.calibration.with_images import DENSE_CRF, MapsWithImages, with_dense_crf
from geothresh.evaluation.scoring import Sample
from geothresh.metrics import Counts
from geothresh.raster.pairs import find_pairs
from geothresh.rivals.densecrf import DenseCRF, search
from tests.support.rasters import write_raster

SIDE = 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Maps of blobs with noise of single pixels, and images that show the blobs."""
    folder = tmp_path / "data"
    for part in ("image", "mask", "confidence"):
        (folder / part).mkdir(parents=True)
    for k in range(10):
        rng = np.random.default_rng(k)
        truth = ndimage.gaussian_filter(rng.normal(0, 9, (SIDE, SIDE)), 4) > 0.2
        image = np.repeat(np.where(truth, 190, 60)[..., None], 3, axis=2)
        confidence = np.where(rng.random(truth.shape) < 0.75, truth, ~truth) * 0.4 + 0.3
        Image.fromarray(image.astype(np.uint8)).save(folder / "image" / f"p{k}.png")
        Image.fromarray((truth * 255).astype(np.uint8)).save(folder / "mask" / f"p{k}.png")
        levels = np.rint(confidence * 255).astype(np.uint8)
        Image.fromarray(levels).save(folder / "confidence" / f"p{k}.png")
    return folder


def test_each_fold_is_refined_by_settings_of_the_others(data: Path) -> None:
    pairs = {pair.id: pair for pair in find_pairs(data)}
    maps = MapsWithImages.of(pairs, data)
    counter = MapCounter(1)
    for name in pairs:
        confidence, _, truth = maps.read(name)
        counter.add(Sample(id=name, confidence=confidence, truth=truth))
    plain = counter.counted({name: name for name in pairs}, {"": 0.0})
    folds = [sorted(pairs)[first::2] for first in (0, 1)]
    told: list[None] = []
    found = with_dense_crf(plain, maps, folds, lambda: told.append(None))
    assert len(told) == 10 and set(found.counts) == {INPUT, DENSE_CRF.source}
    seen = dict(zip(found.ids, DENSE_CRF.fit(found).iou(found), strict=True))
    for held, others in (folds, folds[::-1]):
        settings = search([maps.read(name) for name in others[:4]])
        for name in held:
            confidence, image, truth = maps.read(name)
            mask = DenseCRF(settings=settings)(confidence, image) >= 0.5
            assert seen[name] == pytest.approx(Counts.of(prediction=mask, target=truth).iou())


def test_it_stands_in_the_table_and_is_not_advised(data: Path, tmp_path: Path) -> None:
    output, told = tmp_path / "calibration.json", []
    report = calibrate(
        data, models=(), calibrating=Calibrating(images=data, output=output, folds=3),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told[-1] == (20, 20)
    table = report.table()
    assert "\nDenseCRF**  " in table and "**reads the image" in table
    assert report.choice.best.key != "densecrf" and not report.choice.fitted.source.model
    kept = json.loads(output.read_text())["figures"]
    assert kept["compared"]["densecrf"]["mean"] > 0.2, "the image shows the truth"
    assert kept["compared"]["densecrf"]["label"] == "DenseCRF"
    # Without the images all else is the same.
    bare = calibrate(data, models=(), calibrating=Calibrating(folds=3)).figures()
    assert bare["compared"] == {}
    for key, figures in bare["candidates"].items():
        for name in ("iou", "mean", "error", "chance", "ece"):
            assert kept["candidates"][key][name] == figures[name]


def test_images_that_do_not_fit_are_refused_at_once(data: Path, tmp_path: Path) -> None:
    def refused(images: Path) -> str:
        with pytest.raises(InputError) as caught:
            calibrate(data, models=(), calibrating=Calibrating(images=images))
        return str(caught.value)

    assert "no pictures in it" in refused(data.parent)
    assert "no such folder of images" in refused(data / "nowhere")
    Image.new("RGB", (9, 12)).save(data / "image" / "p3.png")
    assert "p3.png: 12 x 9 pixels, its mask p3.png has 40 x 40" in refused(data)
    (data / "image" / "p3.png").unlink()
    assert "1 of 10 tiles have no image in it (p3); complete it" in refused(data)
    write_raster(tmp_path / "scene.tif", np.zeros((64, 64), np.uint8))
    scene = SceneData(scenes=[tmp_path / "scene.tif"], labels=[tmp_path / "scene.tif"])
    with pytest.raises(UsageError, match="images.*is for folders of maps"):
        calibrate(scene, models=(), calibrating=Calibrating(images=data))
