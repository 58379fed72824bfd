"""Layouts of labelled images: recognised, named, half there; and pictures brought to one size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geothresh.api.evaluate import evaluate
from geothresh.cli import main
from geothresh.errors import InputError
from geothresh.evaluation.options import Maps
from geothresh.raster.image_pairs import check_images, find_images, find_pictures
from geothresh.raster.layouts import LAYOUTS
from geothresh.raster.pairs import check_pairs, find_pairs, read_mask
from geothresh.raster.pictures import resized
from geothresh.training.folder_data import pair_sources
from tests.support.cli_runner import runner
from tests.support.imagery import road_image
from tests.support.pictures import maps, write

SIDE = 48
HALVES = {"DUTS-TR/DUTS-TR-": ["r0", "r1"], "DUTS-TE/DUTS-TE-": ["r2"]}


def laid_out(folder: Path, layout: str) -> Path:
    """Three images of roads and their masks, in a layout."""
    for n in range(3):
        image, mask = road_image(n, SIDE)
        if layout == "duts":
            above = next(above for above, ids in HALVES.items() if f"r{n}" in ids)
            names = (f"{above}Image/r{n}.jpg", f"{above}Mask/r{n}.png")
        else:
            names = {
                "plain": (f"image/r{n}.png", f"mask/r{n}.png"),
                "kvasir": (f"images/r{n}.jpg", f"masks/r{n}.jpg"),
                "deepglobe": (f"r{n}_sat.jpg", f"r{n}_mask.png"),
            }[layout]
        for name, pixels in zip(names, (image, mask), strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name, quality=90)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("said", ["auto", "itself"])
def test_every_layout_is_recognised_and_may_be_named(
    tmp_path: Path, layout: str, said: str
) -> None:
    data = laid_out(tmp_path / "data", layout)
    how = layout if said == "itself" else "auto"
    pairs = find_images(data, layout=how)
    assert [pair.id for pair in pairs] == ["r0", "r1", "r2"]
    for n, pair in enumerate(pairs):
        assert (pair.read_truth() == (road_image(n, SIDE)[1] > 0)).all()
    check_images(pairs)
    of_maps = find_pairs(data, [maps(tmp_path / "net", ["r0", "r1", "r2"], side=SIDE)], layout=how)
    assert [pair.mask for pair in of_maps] == [pair.mask for pair in pairs]
    assert set(find_pictures(data)) == {"r0", "r1", "r2"}


@pytest.mark.parametrize("half", ["DUTS-TR", "DUTS-TE"])
def test_a_half_of_duts_stands_by_itself(tmp_path: Path, half: str) -> None:
    data = laid_out(tmp_path, "duts") / half
    assert [p.id for p in find_images(data)] == HALVES[f"{half}/{half}-"]


@pytest.mark.parametrize(
    ("layout", "gone", "said"),
    [
        ("kvasir", "masks", r"data: images/ is there, and masks/, which belongs to it, is not"),
        ("kvasir", "images", r"data: masks/ is there, and images/, which belongs to it, is not"),
        ("plain", "mask", r"data: image/ is there, and mask/, "),
        ("duts", "DUTS-TE/DUTS-TE-Mask", r"DUTS-TE-Image/ is there, and DUTS-TE/DUTS-TE-Mask/, "),
    ],
)
def test_a_layout_that_is_half_there_says_which_half(
    tmp_path: Path, layout: str, gone: str, said: str
) -> None:
    data = laid_out(tmp_path / "data", layout)
    (data / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=said):
        find_images(data)


def test_maps_need_no_images(tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", "kvasir")
    (data / "images").rename(tmp_path / "elsewhere")
    net = maps(tmp_path / "net", ["r0", "r1", "r2"], side=SIDE)
    assert len(find_pairs(data, [net])) == 3


def test_two_layouts_in_one_folder_are_asked_about(tmp_path: Path) -> None:
    data = laid_out(laid_out(tmp_path / "data", "kvasir"), "plain")
    with pytest.raises(InputError, match="both mask/ and masks/ are there; say which.*`layout`"):
        find_images(data)
    assert {p.mask.parent.name for p in find_images(data, layout="kvasir")} == {"masks"}


def test_another_layout_than_that_which_is_there_is_refused(tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", "kvasir")
    with pytest.raises(InputError, match="not laid out as duts: DUTS-TR/DUTS-TR-Image/ and "):
        find_images(data, layout="duts")
    with pytest.raises(InputError, match="no masks; expected <id>_mask.png"):
        find_images(data, layout="deepglobe")


def test_ids_of_both_halves_of_duts_are_told(tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", "duts")
    for kind, end in (("Image", "jpg"), ("Mask", "png")):
        file = data / f"DUTS-TR/DUTS-TR-{kind}/r0.{end}"
        (data / f"DUTS-TE/DUTS-TE-{kind}/r0.{end}").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="1 id in both halves of it: r0"):
        find_images(data)


def test_images_without_masks_and_sizes_that_differ_are_told(tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", "kvasir")
    write(data / "images" / "r3.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"1 image without a mask \(data/r3\)"):
        find_images(data)
    write(data / "masks" / "r3.png", np.eye(9, dtype=np.uint8))
    with pytest.raises(InputError, match=r"r3\.png: 8 x 8 pixels, its mask r3\.png has 9 x 9"):
        check_images(find_images(data))


def test_a_jpeg_of_greys_is_no_mask(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (64, 1))
    path = tmp_path / "m.jpg"
    Image.fromarray(grey).save(path, quality=95)
    with pytest.raises(InputError, match=r"5\d% of its pixels are between black and white"):
        read_mask(path)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_pictures_are_brought_to_a_side_within_their_range(
    height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random((height, width), np.float32)
    small = resized(values, 32)
    assert small.shape == (32, 32) and small.dtype == np.float32
    assert values.min() - 1e-6 <= small.min() and small.max() <= values.max() + 1e-6
    assert resized(values, None) is values
    truth = np.full((height, width), bool(seed % 2))
    assert (resized(truth, 32) == bool(seed % 2)).all() and resized(truth, 32).dtype == np.bool_
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    assert resized(picture, 32).shape == (32, 32, 3)


def test_a_mask_that_is_doubled_is_itself_in_squares(tmp_path: Path) -> None:
    truth = np.zeros((32, 32), bool)
    truth[8:24, 4:12] = True
    doubled = resized(truth, 64)
    np.testing.assert_array_equal(doubled, np.kron(truth, np.ones((2, 2), bool)))


def test_pairs_are_read_at_one_size(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for n, (height, width) in enumerate([(40, 60), (64, 48)]):
        mask = np.zeros((height, width), np.uint8)
        mask[: height // 2] = 255
        write(data / "masks" / f"a{n}.png", mask)
        write(data / "images" / f"a{n}.png", np.repeat(mask[..., None], 3, 2))
        # One map has the size of its mask, the other that which both are brought to.
        write(tmp_path / "net" / f"a{n}.png", mask if n else np.full((32, 32), 51, np.uint8))
    pairs = find_pairs(data, [tmp_path / "net"], resize=32)
    check_pairs(pairs)
    for pair in pairs:
        confidence, truth = pair.read()
        assert confidence.shape == truth.shape == (32, 32)
        assert truth[:16].all() and not truth[16:].any()
        assert (confidence == pair.read_map()).all()
    (cut, _) = (source.cut(32, np.random.default_rng(0), mix=0) for source in pair_sources(pairs))
    assert cut.truth[:16].all() and (cut.confidence == np.float32(0.2)).all()
    for image in find_images(data, resize=32):
        picture, truth = image.read()
        assert picture.shape == (32, 32, 3) and (truth[..., None] == (picture > 127)).all()
    native, small = (check_images(find_images(data, resize=side)) for side in (None, 32))
    assert native["a0"].digest != small["a0"].digest and native["a0"].marks == small["a0"].marks
    with pytest.raises(InputError, match=r"a0\.png: 32 x 32 pixels, its mask a0\.png has 40 x 60"):
        check_pairs(find_pairs(data, [tmp_path / "net"]))


def test_the_commands_take_layout_and_size(tmp_path: Path) -> None:
    data = laid_out(tmp_path / "data", "kvasir")
    work = tmp_path / "maps"
    result = runner().invoke(
        main,
        ["base", "crossfit", str(data), "-o", str(work), "--layout", "kvasir", "--resize", "64",
         "--network", "linknet", "--encoder", "mobilenet_v2", "--steps", "1", "--crop-size", "32",
         "--batch-size", "2", "--device", "cpu", "-q"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    name = "linknet-mobilenet_v2"
    with Image.open(work / name / "r0.png") as picture:
        assert picture.size == (64, 64)
    assert json.loads((work / f"{name}.json").read_text())["resize"] == 64
    maps_of = Maps(confidence=[work / name], resize=64)
    assert evaluate(data, model=None, maps=maps_of).sources[0].rows[0].summary.n == 3
    with pytest.raises(InputError, match=r"64 x 64 pixels, its mask r0\.jpg has 48 x 48"):
        evaluate(data, model=None, maps=Maps(confidence=[work / name]))
