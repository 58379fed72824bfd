"""Training on data of several resolutions brought to one, and scoring at the model's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geothresh import refine_array
from geothresh.api.evaluate import evaluate
from geothresh.cli import main
from geothresh.errors import UsageError
from geothresh.evaluation.options import Maps
from geothresh.metrics import MapScore
from geothresh.nn.modelfile import read_card
from geothresh.nn.wrappers import resize_map
from geothresh.options import Compute, Refining, Tiling
from geothresh.raster.pairs import find_pairs, read_confidence, read_mask
from geothresh.training.chips import ChipDataset
from geothresh.training.data import Pixels
from geothresh.training.folder_data import gather_folders, pair_sources
from geothresh.training.options import FolderData, Splitting
from geothresh.training.recipe import RECIPES
from tests.support.cli_runner import runner
from tests.support.flat import TILES, grouped
from tests.support.roads import make_roads

pytestmark = pytest.mark.usefixtures("tiny_preset")

PLAIN = dataclasses.replace(RECIPES["paper"], chip_size=96, chips_per_epoch=6, batch_size=2)
TINY = ["--recipe", "paper", "--epochs", "1", "--chip-size", "64", "--chips-per-epoch", "4",
        "--device", "cpu"]  # fmt: skip


@pytest.mark.parametrize("factor", [0.5, 0.4, 2.0])
def test_a_chip_shows_the_map_at_the_resolution_of_the_network(
    tmp_path: Path, factor: float
) -> None:
    """One pixel of the network covers 1 / factor of the map's: the share of roads stays."""
    folder, networks = make_roads(tmp_path)
    pairs = find_pairs(folder, networks[:1])
    size = 32 if factor < 1 else 192
    recipe = dataclasses.replace(PLAIN, chip_size=size)
    sources = pair_sources(pairs, {"roads": factor})
    chips = ChipDataset(sources, recipe, patch=16)
    for k in range(6):
        chip = chips[k]
        assert chip.truth.shape == (1, size, size)
        assert 0.5 * 6 / 96 < chip.truth.mean() < 6 * 6 / 96
    # Everything of the map is in the chip that holds it all.
    whole = round(96 * factor)
    chips = ChipDataset(
        sources, dataclasses.replace(recipe, chip_size=-(-whole // 16) * 16), patch=16
    )
    number = chips._draw(0, np.random.default_rng([recipe.seed, 0, 0]))
    expected = resize_map(read_confidence(pairs[number].confidence), whole, whole)
    found = chips[0].confidence[0]
    turned = [np.rot90(expected, k)[:, ::flip] for k in range(4) for flip in (1, -1)]
    if found.shape == expected.shape:
        assert min(np.abs(found - one).max() for one in turned) < 1e-6
    else:
        assert found.shape[0] > whole


def test_each_data_set_is_brought_to_one_resolution(tmp_path: Path) -> None:
    fine, networks = make_roads(tmp_path)
    coarse = tmp_path / "coarse"
    fine.rename(coarse)
    fine, _ = make_roads(tmp_path)
    for mask in coarse.glob("*_mask.png"):
        mask.rename(mask.with_name("c" + mask.name))
    other = tmp_path / "other"
    other.mkdir()
    for path in networks[0].glob("*.png"):
        (other / ("c" + path.name)).write_bytes(path.read_bytes())
    output = tmp_path / "m.safetensors"
    result = runner().invoke(
        main,
        ["train", str(fine), str(coarse), "--confidence", str(networks[0]), "--confidence",
         str(other), "--skip-unpaired", "-o", str(output), "--gsd", "0.3,0.5", "--gsd", "1",
         "--resolution", "1", *TINY],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    training = read_card(output).training
    assert training["ground_sample_distance"] == [1.0, 1.0]
    assert training["data"]["pixels"] == {"roads": [0.3, 0.5], "coarse": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--resolution", "1"], "--ground-sample-distance"),
        (["--resolution", "1", "--gsd", "0.1"], "at most 8 times"),
        (["--gsd", "1", "--gsd", "2"], "one for each"),
        (["--resolution", "0"], "--resolution"),
    ],
)
def test_pixels_that_make_no_sense_are_refused(
    tmp_path: Path, options: list[str], hint: str
) -> None:
    folder, networks = make_roads(tmp_path)
    result = runner().invoke(
        main,
        ["train", str(folder), "--confidence", str(networks[0]),
         "-o", str(tmp_path / "m.safetensors"), *options, *TINY],
    )  # fmt: skip
    assert result.exit_code == 2 and hint in result.stderr, result.stderr
    assert not list(tmp_path.glob("m.*"))


def test_the_working_directory_has_its_name_among_the_pixel_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a run can be resumed from another directory."""
    folder, networks = make_roads(tmp_path)
    monkeypatch.chdir(folder)
    described = []
    for named in (".", folder):
        data = FolderData(folders=[named], confidence=[path.absolute() for path in networks])
        pixels = Pixels.of([0.5], 1.0)
        gathered = gather_folders(data, Splitting(), pixels, seed=0, progress=None)
        described.append(gathered.described)
    assert described[0]["pixels"] == {folder.name: [0.5, 0.5]}
    assert described[0] == described[1]


def test_folders_of_one_name_cannot_have_pixels_of_two_sizes(tmp_path: Path) -> None:
    """Pairs carry the name of their folder: one of the sizes would be taken for both."""
    one, _ = make_roads(tmp_path / "one")
    other, _ = make_roads(tmp_path / "other")
    for options in (["train", "-o", str(tmp_path / "m.safetensors"), "--resolution", "1"],
                    ["evaluate"]):  # fmt: skip
        result = runner().invoke(
            main, [*options, str(one), str(other), "--gsd", "1", "--gsd", "0.5"]
        )
        assert result.exit_code == 2 and "another size" in result.stderr, result.stderr


def test_the_middle_of_a_range_is_what_counts() -> None:
    pixels = Pixels.of([(0.25, 1.0), (1.0, 1.0)], 1.0)
    data = [Path("a"), Path("b")]
    assert pixels.factors(data, pixels.sizes(data)) == [0.5, 1.0]


def test_maps_are_scored_at_the_resolution_of_the_model(tmp_path: Path, half_model: Path) -> None:  # noqa: F811
    """As `refine_array` refines them, map by map; and the report says so."""
    folder, networks = make_roads(tmp_path)
    arguments = [
        "evaluate",
        str(folder),
        "--confidence",
        str(networks[0]),
        "-m",
        str(half_model),
    ]
    given = ["--match-resolution", "--gsd", "0.125,0.5", *TILES]
    result = runner().invoke(main, [*arguments, *given, "--json"])
    assert result.exit_code == 0, result.stderr
    (source,) = json.loads(result.stdout)["sources"]
    assert source["resampling"] == 0.5
    options: dict[str, Any] = {
        "tile_size": 64, "overlap": 16, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    scores = {}
    for pair in find_pairs(folder, networks[:1]):
        refined = refine_array(
            read_confidence(pair.confidence),
            model=half_model,
            ground_sample_distance=0.25,
            **grouped(**options),
        )
        score = MapScore.of(prediction=refined >= 0.5, target=read_mask(pair.mask))
        scores[pair.id] = score.counts.iou()
    assert {m["id"]: m["refined"]["iou"] for m in source["maps"]} == pytest.approx(scores)
    table = runner().invoke(main, [*arguments, *given])
    assert "read at 0.5 of size" in table.stdout


def test_a_size_out_of_reach_is_found_before_the_first_map(
    tmp_path: Path, half_model: Path
) -> None:  # noqa: F811
    one, _ = make_roads(tmp_path)
    other, _ = make_roads(tmp_path / "other")
    for k in range(6):
        (other / f"p{k}_mask.png").rename(other / f"q{k}_mask.png")
    other = other.rename(tmp_path / "coarse")
    maps = tmp_path / "other" / "net1"
    for k in range(6):
        (maps / f"p{k}.png").rename(maps / f"q{k}.png")
    done: list[int] = []
    with pytest.raises(UsageError, match="at most 8 times"):
        evaluate(
            [one, other],
            model=half_model,
            progress=lambda n, _: done.append(n),
            maps=Maps(confidence=[tmp_path / "net1", maps], ground_sample_distance=[50.0, 0.5]),
            refining=Refining(resolution=1.0),
            tiling=Tiling(tile_size=64, overlap=16),
            compute=Compute(device="cpu"),
        )
    assert not done


def test_what_evaluate_must_know_of_pixels_is_asked_for(tmp_path: Path) -> None:
    folder, networks = make_roads(tmp_path)
    with pytest.raises(UsageError, match="`resolution` 1: .* not known"):
        evaluate(folder, maps=Maps(confidence=networks), refining=Refining(resolution=1.0))
    with pytest.raises(UsageError, match="one for each"):
        evaluate(
            folder,
            maps=Maps(confidence=networks, ground_sample_distance=[1.0, 2.0]),
        )


@pytest.mark.parametrize("name", ["m.safetensors", "m.last.safetensors"])
def test_training_does_not_replace_the_model_it_starts_from(
    tmp_path: Path,
    half_model: Path,  # noqa: F811
    name: str,
) -> None:
    folder, networks = make_roads(tmp_path)
    start = tmp_path / name
    start.write_bytes(half_model.read_bytes())
    result = runner().invoke(
        main,
        ["train", str(folder), "--confidence", str(networks[0]), "--init", str(start),
         "-o", str(tmp_path / "m.safetensors"), "--overwrite", *TINY],
    )  # fmt: skip
    assert result.exit_code == 2 and "is the input" in result.stderr, result.stderr
    assert start.read_bytes() == half_model.read_bytes()
