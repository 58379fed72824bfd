"""``geothresh train`` on scenes: the command, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import shapely

from geothresh.cli import main
from geothresh.errors import GeothreshError, GeothreshWarning, InputError, UsageError
from geothresh.nn.modelfile import read_card
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster
from tests.support.scenes import HEIGHT, QUICK, WIDTH, box, write_layer, write_scene
from tests.support.trainings import train_flat

pytestmark = pytest.mark.usefixtures("tiny_preset")


def arguments(place: Path, output: Path, *more: object) -> list[str]:  # noqa: F811
    start = ["train", place / "scene.tif", "--labels", place / "roads.gpkg", "--buffer", 8]
    start += ["-o", output, "--epochs", 1, "--chips-per-epoch", 4, "--chip-size", 64, "--zoom", 1]
    return [str(a) for a in [*start, "--device", "cpu", "--precision", "fp32", *more]]


def test_the_command_trains_resumes_and_starts_from_a_packaged_model(
    site: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    output = tmp_path / "m.safetensors"
    result = runner().invoke(main, arguments(site, output, "--patch", 32))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(output)
    assert "blocks" in result.stderr and "validation tiles" in result.stderr
    card = read_card(output)
    assert card.config.patch == 32
    assert card.training["ground_sample_distance"] == pytest.approx([2.0, 2.0], rel=1e-3)
    assert card.training["data"]["labels"]["buffer"] == 8.0
    assert list(card.training["data"]["validation_maps"]) == ["roads/scene"]
    manifest = json.loads((tmp_path / "m.split.json").read_text())
    assert manifest["train"] and manifest["validation"]

    again = runner().invoke(main, arguments(site, output, "--patch", 32, "--resume"))
    assert again.exit_code == 0, again.stderr
    changed = runner().invoke(
        main, arguments(site, output, "--patch", 32, "--resume", "--buffer", 4)
    )
    assert changed.exit_code == 5 and "another data" in changed.stderr

    tuned = tmp_path / "tuned.safetensors"
    more = ["--init", "roads", "--split", tmp_path / "m.split.json", "--seed", 5]
    result = runner().invoke(main, arguments(site, tuned, *more))
    assert result.exit_code == 0, result.stderr
    assert read_card(tuned).config == read_card_of_roads().config
    training = read_card(tuned).training
    # Where no epoch is better than the start, the start is kept, and says what was tried.
    assert training.get("tried", training)["init"]["name"] == "roads"
    followed = json.loads((tmp_path / "tuned.split.json").read_text())
    assert followed == manifest
    for option, value in (("--patch", 32), ("--preset", "full"), ("--head", "confidence")):
        if getattr(read_card_of_roads().config, option[2:], None) == value:
            continue
        refused = runner().invoke(
            main,
            arguments(site, tmp_path / "no.safetensors", "--init", "roads", option, value),
        )
        assert refused.exit_code == 2 and f"leave {option} out" in refused.stderr


def read_card_of_roads():
    from geothresh.nn.packaged import find_model

    return read_card(find_model("roads"))


def test_the_command_tells_the_blocks_beside_the_area_to_validate_on(
    site: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    area = write_layer(tmp_path / "area.gpkg", [box(256, 0, 512, 256)])
    output = tmp_path / "m.safetensors"
    result = runner().invoke(
        main, arguments(site, output, "--patch", 32, "--validation-aoi", area, "--json")
    )
    assert result.exit_code == 0, result.stderr
    blocks = json.loads((tmp_path / "m.split.json").read_text())["train"]
    assert blocks and json.loads(result.stdout)["train_maps"] == len(blocks)
    assert read_card(output).training["data"]["train_maps"] == {"roads/scene": len(blocks)}
    again = tmp_path / "again.safetensors"
    more = ["--patch", 32, "--split", tmp_path / "m.split.json"]
    result = runner().invoke(main, arguments(site, again, *more))
    assert result.exit_code == 0 and f"on {len(blocks)} blocks" in result.stderr, result.stderr


def test_bad_input_is_one_line_before_the_first_epoch(site: Path, tmp_path: Path) -> None:  # noqa: F811
    far = write_layer(tmp_path / "far.gpkg", [shapely.box(0, 0, 9, 9)])
    corner = write_layer(tmp_path / "corner.gpkg", [box(690, 390, 699, 399)])
    between = write_layer(tmp_path / "between.gpkg", [box(101, 101, 104, 104)])
    bare = write_raster(
        tmp_path / "bare.tif", np.full((90, 90), 9, np.uint8), crs=None, transform=None
    )
    small = write_raster(tmp_path / "small.tif", np.zeros((90, 90), np.uint8))
    empty = write_raster(tmp_path / "empty.tif", np.zeros((HEIGHT, WIDTH), np.uint8))
    shapeless = write_layer(tmp_path / "shapeless.geojson", [None, None])
    shares = write_raster(tmp_path / "shares.tif", np.full((HEIGHT, WIDTH), 0.5, np.float32))
    levels = write_raster(tmp_path / "levels.tif", np.full((HEIGHT, WIDTH), 99, np.uint8))
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.gpkg").write_text("no database")
    (tmp_path / "split.json").write_text('{"train": ["a"], "validation": ["b"]}')
    twin = tmp_path / "twin"
    twin.mkdir()
    write_scene(twin / "scene.tif")
    scene, roads, mask = (
        site / "scene.tif",
        site / "roads.gpkg",
        site / "mask.tif",
    )
    wide = {"labels": roads, "buffer": 8.0}
    cases: list[tuple[list[Path], dict, type[GeothreshError], str]] = [
        ([scene], {}, UsageError, "name its labels with `labels"),
        ([scene], {"labels": roads}, UsageError, "give `buffer=METRES`"),
        ([scene], {"labels": far}, InputError, "none of its 1 features touches"),
        ([scene], {**wide, "aoi": far}, InputError, "give the area of interest of this place"),
        ([scene], {**wide, "aoi": roads}, UsageError, "the area of interest must be polygons"),
        ([scene], {**wide, "aoi": corner}, InputError, "no pixel of the area of interest"),
        ([scene], {"labels": tmp_path / "broken.gpkg"}, InputError, "convert it with ogr2ogr"),
        ([scene], {"labels": tmp_path / "none.gpkg"}, InputError, "no such file"),
        ([scene], {"labels": small}, InputError, "cut or warp one to the grid of the other"),
        ([scene], {"labels": empty}, InputError, "nothing to learn"),
        ([scene], {"labels": shares}, InputError, "to whole numbers: 1 foreground, 0 background,"),
        ([scene], {"labels": levels}, InputError, "the value 99 .* cut them at a threshold first"),
        ([scene], {"labels": shapeless}, InputError, "none of its 2 features has a geometry"),
        ([scene], {"labels": mask, "buffer": 3.0}, UsageError, "have no `buffer"),
        ([scene], {**wide, "layer": "rivers"}, UsageError, "there is no layer 'rivers'"),
        ([scene], {**wide, "block_size": 4000}, UsageError, "lower `block_size"),
        ([scene], {**wide, "block_size": 9}, UsageError, "at least 64"),
        ([scene], {**wide, "validation_aoi": far}, InputError, "anything to validate on"),
        ([scene], {**wide, "validation_aoi": between}, InputError, "has a foreground pixel"),
        ([scene], {**wide, "split": tmp_path / "split.json"}, InputError, "not the split of"),
        ([scene], {**wide, "split": "x", "validation_aoi": far}, UsageError, "one or the other"),
        ([scene], {**wide, "hold_out": ["a"]}, UsageError, "`hold_out` is for folders"),
        ([tmp_path / "folder"], {"block_size": 64}, UsageError, "`block_size` is for scenes"),
        ([scene, tmp_path / "folder"], wide, UsageError, "in runs of their own"),
        ([scene], {"labels": [roads] * 2, "buffer": 2.0}, UsageError, "2 sources of labels for 1"),
        ([scene, twin / "scene.tif"], wide, InputError, "stand for several scenes: scene"),
        ([bare], wide, InputError, "has no georeference"),
        ([roads], wide, InputError, "GeoPackage, not a TIFF"),
        ([scene], {**wide, "bidx": 2}, UsageError, "band 2 does not exist"),
    ]
    output = tmp_path / "m.safetensors"
    for data, options, kind, message in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GeothreshWarning)
            with pytest.raises(kind, match=message) as caught:
                train_flat(data, output, recipe=QUICK, device="cpu", patch=32, **options)
        assert "\n" not in str(caught.value), message
    large = dataclasses.replace(QUICK, chip_size=384)
    with pytest.raises(
        UsageError, match=r"scene: no chip of 384 pixels .* lower `chip_size` to 256"
    ):
        train_flat([scene], output, recipe=large, device="cpu", block_size=128, **wide)
    assert not list(tmp_path.glob("m.*"))


def test_a_scene_that_is_damaged_is_found_before_the_first_epoch(
    site: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = write_scene(
        tmp_path / "scene.tif", compress="deflate", tiled=True, blockxsize=128, blockysize=128
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    result = runner().invoke(main, arguments(site, tmp_path / "m.safetensors")[:1] + [str(path)]
                             + arguments(site, tmp_path / "m.safetensors")[2:])  # fmt: skip
    assert result.exit_code == 3, result.stderr
    assert "cannot be decoded" in result.stderr
    assert not list(tmp_path.glob("m.*"))
