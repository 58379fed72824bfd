"""On real maps, what calibrate advises on some places does no harm on others.

By the commands, as whoever has labelled tiles would: half of the places are calibrated on, and the
file is followed on the other half, both ways round. Of roads and objects there are maps of networks
that exist; for polyps and landslides small networks are trained here, each on the half that it does
not predict.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from geothresh.api.crossfit import crossfit
from geothresh.base.config import BasePlan, BaseRecipe, ImageData
from geothresh.cli import main
from geothresh.raster.pairs import find_pairs
from tests.support.cli_runner import runner

SHARED = Path(__file__).parents[3] / "shared" / "data"
# Maps of each set: enough for an advice, few enough for minutes.
MOST = 32

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real maps are not there: {SHARED}"),
]


def link(files: dict[str, Path], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, file in files.items():
        (folder / name).symlink_to(file.resolve())
    return folder


def some_of(data: Path, confidence: Path, folder: Path) -> tuple[Path, Path]:
    """Links to some of the pairs, evenly spread; each is its own place."""
    pairs = find_pairs(data, [confidence], skip_unpaired=True)
    pairs = pairs[:: math.ceil(len(pairs) / MOST)]
    masks = {f"{k}+{p.id}_mask.png": p.mask for k, p in enumerate(pairs)}
    maps = {f"{k}+{p.id}.png": p.confidence for k, p in enumerate(pairs)}
    return link(masks, folder / data.name), link(maps, folder / "maps")


def predicted(data: Path, folder: Path, *, frames: int, crop: int) -> tuple[Path, Path]:
    """Links to some images and masks, and maps of a small network that has not seen them.

    So many frames in a row are one place.
    """
    masks = sorted(data.glob("*_mask.png"))
    files = {}
    for k, mask in list(enumerate(masks))[:: math.ceil(len(masks) / MOST)]:
        name = f"{k // frames}+{mask.name}"
        files[name] = mask
        image = mask.with_name(mask.name.replace("_mask.png", "_sat.jpg"))
        files[name.replace("_mask.png", "_sat.jpg")] = image
    linked = link(files, folder / data.name)
    recipe = BaseRecipe(steps=40, crop_size=crop, batch_size=8, learning_rate=1e-3)
    done = crossfit(
        ImageData(folders=[linked], place_pattern=r"^(\d+)\+"), folder / "out",
        BasePlan(network="linknet", encoder="resnet18", encoder_weights="none", recipe=recipe),
        device="cpu",
    )  # fmt: skip
    ((maps,),) = done.maps.values()
    return linked, maps


def prepared(name: str, folder: Path) -> tuple[Path, Path]:
    match name:
        case "roads":
            maps = SHARED / "confidence" / "roads-cil" / "pspnet-resnet18"
            return some_of(SHARED / "roads-cil", maps, folder)
        case "objects":
            maps = SHARED / "confidence" / "objects-camouflage" / "isnet"
            return some_of(SHARED / "objects-camouflage", maps, folder)
        case "polyps":
            return predicted(SHARED / "polyps-clinicdb", folder, frames=25, crop=160)
    return predicted(SHARED / "landslides-hrgldd", folder, frames=1, crop=128)


def run(*arguments: object) -> str:
    result = runner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


@pytest.mark.parametrize("name", ["roads", "polyps", "landslides", "objects"])
def test_following_the_advice_is_not_worse_than_nothing_on_unseen_places(
    name: str, tmp_path: Path
) -> None:
    data, confidence = prepared(name, tmp_path)
    ids = sorted(path.stem for path in confidence.glob("*.png"))
    places = sorted({one.partition("+")[0] for one in ids}, key=int)
    gains: dict[str, list[float]] = {}
    for side in (0, 1):
        learned, unseen = tmp_path / f"learned{side}.txt", tmp_path / f"unseen{side}.txt"
        half = set(places[side::2])
        for file, inside in ((learned, True), (unseen, False)):
            lines = [i for i in ids if (i.partition("+")[0] in half) is inside]
            file.write_text("\n".join(lines))
        file = tmp_path / f"calibration{side}.json"
        common = (data, "--confidence", confidence, "--no-progress", "--skip-unpaired", "--ids")
        run("calibrate", *common, learned, "--place-pattern", r"^(\d+)\+", "-o", file)
        told = json.loads(run("evaluate", *common, unseen, "--calibration", file, "--json"))
        for line in told["sources"][0]["maps"]:
            gain = line["refined"]["iou"] - line["cut"]["iou"]
            gains.setdefault(line["id"].partition("+")[0], []).append(gain)
    assert set(gains) == set(places)
    by_place = np.array([np.mean(some) for some in gains.values()])
    error = by_place.std(ddof=1) / math.sqrt(len(by_place))
    assert by_place.mean() >= -2 * error, (by_place.mean(), error)
    if name == "roads":  # what roads was made for
        assert by_place.mean() > 2 * error
