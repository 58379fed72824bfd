"""107-116: training data that is of no use is found before the first epoch: exit code 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.catalogue.bench import Bench
from tests.support.pictures import deepglobe, maps, write
from tests.support.rasters import write_raster

DATA, NET = Path("data"), Path("net")
OUTPUT = "m.safetensors"
QUICK = (
    "--epochs", 1, "--chip-size", 64, "--recipe", "paper", "--device", "cpu", "--no-progress",
    "--preset", "small", "--patch", 32, "--batch-size", 2, "--chips-per-epoch", 2,
)  # fmt: skip


def pairs(ids: list[str], side: int = 40) -> None:
    deepglobe(DATA, ids, side=side)
    maps(NET, ids, side=side)


def refused(bench: Bench, text: str, *options: object) -> str:
    return bench.refused(3, text, "train", DATA, "--confidence", NET, "-o", OUTPUT, *options)


def trained(bench: Bench, *options: object) -> dict[str, torch.Tensor]:
    result = bench.run(
        "train", DATA, "--confidence", NET, "-o", OUTPUT, *QUICK, "--overwrite", *options
    )
    assert result.exit_code == 0, result.output
    return load_file(OUTPUT)


@pytest.mark.catalogue(107)
def test_maps_and_masks_without_a_partner(bench: Bench) -> None:
    pairs([f"p{k:02}" for k in range(14)])
    for k in range(12):
        (DATA / f"p{k:02}_mask.png").unlink()
    (NET / "p13.png").unlink()
    line = refused(bench, "12 maps without a mask")
    assert "1 mask without a map (p13)" in line and "--skip-unpaired" in line
    assert "p09" in line and "p10" not in line and "and 2 more" in line


@pytest.mark.catalogue(107)
def test_what_has_no_partner_can_be_left_out(bench: Bench) -> None:
    pairs(["a", "b", "c"])
    write(NET / "d.png", np.zeros((40, 40), np.uint8))
    assert trained(bench, "--skip-unpaired", "--hold-out", "a")


def broken(path: Path, pixels: np.ndarray) -> Callable[[], object]:
    return lambda: write(path, pixels)


def colours(red: int, green: int) -> np.ndarray:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[5:9, 5:9] = (red, green, green)
    return pixels


def half_of(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


MASK_B, MAP_B = DATA / "b_mask.png", NET / "b.png"
GREYS = np.arange(1600, dtype=np.uint8).reshape(40, 40)

# name: (what is done to three sound pairs a, b and c, part of the line)
BROKEN: dict[str, tuple[Callable[[], object], str, pytest.MarkDecorator]] = {
    "a map of another size": (
        broken(MAP_B, GREYS[:30]), "30 x 40 pixels, its mask b_mask.png has 40 x 40",
        pytest.mark.catalogue(108),
    ),
    "a mask of another size": (
        broken(MASK_B, np.eye(41, dtype=np.uint8)), "its mask b_mask.png has 41 x 41",
        pytest.mark.catalogue(108),
    ),
    "a mask of many values": (
        broken(MASK_B, GREYS), "b_mask.png: not a two-valued mask", pytest.mark.catalogue(109),
    ),
    "a mask of another value": (
        broken(MASK_B, np.eye(40, dtype=np.uint8) * 7), "b_mask.png: not a two-valued mask",
        pytest.mark.catalogue(109),
    ),
    "a mask in colour": (
        broken(MASK_B, colours(255, 0)), "b_mask.png: is in colour", pytest.mark.catalogue(110),
    ),
    "a mask cut short": (
        lambda: half_of(MASK_B), "b_mask.png: cannot be read", pytest.mark.catalogue(112),
    ),
    "a map cut short": (
        lambda: half_of(MAP_B), "b.png: cannot be read", pytest.mark.catalogue(112),
    ),
    "a mask of text": (
        lambda: MASK_B.write_text("a mask"), "b_mask.png: cannot be read",
        pytest.mark.catalogue(112),
    ),
    "an empty mask file": (
        lambda: MASK_B.write_bytes(b""), "b_mask.png: the file is empty",
        pytest.mark.catalogue(112),
    ),
    "a mask in two formats": (
        lambda: write_raster(DATA / "b_mask.tif", GREYS), "b_mask.png and b_mask.tif",
        pytest.mark.catalogue(113),
    ),
    "a map in two formats": (
        lambda: write_raster(NET / "b.tif", GREYS), "b.png and b.tif", pytest.mark.catalogue(113),
    ),
    "masks that differ by case alone": (
        broken(DATA / "B_mask.png", np.eye(40, dtype=np.uint8)), "B_mask.png and b_mask.png",
        pytest.mark.catalogue(113),
    ),
    "maps that differ by case alone": (
        broken(NET / "B.png", GREYS), "B.png and b.png", pytest.mark.catalogue(113),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=row[2], id=name) for name, row in BROKEN.items()]
)
def test_broken_data(bench: Bench, name: str) -> None:
    pairs(["a", "b", "c"])
    make, text, _ = BROKEN[name]
    make()
    refused(bench, text, "--hold-out", "a")


@pytest.mark.catalogue(113)
def test_ids_in_two_folders(bench: Bench) -> None:
    pairs(["a", "b"])
    deepglobe(Path("more"), ["b"])
    bench.refused(
        3, "1 id in several data folders: b", "train", DATA, "more", "--confidence", NET,
        "-o", OUTPUT,
    )  # fmt: skip


@pytest.mark.catalogue(114)
def test_nothing_to_train_on(bench: Bench) -> None:
    DATA.mkdir()
    NET.mkdir()
    refused(bench, "no masks")
    deepglobe(DATA, ["a"])
    refused(bench, "no confidence maps")


@pytest.mark.catalogue(114)
def test_one_pair_cannot_be_split(bench: Bench) -> None:
    pairs(["a"])
    refused(bench, "a: the only place there is; training needs two at least")


@pytest.mark.catalogue(115)
def test_masks_without_any_foreground(bench: Bench) -> None:
    pairs(["a", "b", "c"])
    for path in DATA.glob("*_mask.png"):
        write(path, np.zeros((40, 40), np.uint8))
    refused(bench, "none of the 3 masks has a foreground pixel", "--hold-out", "a")


@pytest.mark.catalogue(110, 111)
def test_0_and_1_or_255_in_grey_or_colour_are_the_same(bench: Bench) -> None:
    found = []
    for value, channels in ((255, 1), (1, 1), (255, 3)):
        pairs(["a", "b", "c"])
        for path in DATA.glob("*_mask.png"):
            truth = np.random.default_rng(ord(path.name[0])).random((40, 40)) < 0.3
            pixels = truth.astype(np.uint8) * value
            write(path, pixels if channels == 1 else np.repeat(pixels[..., None], 3, axis=2))
        found.append(trained(bench, "--hold-out", "a"))
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in found[0])


@pytest.mark.catalogue(116)
def test_pictures_of_several_sizes(bench: Bench) -> None:
    for k, side in enumerate((20, 64, 101, 150)):
        pairs([f"p{k}"], side=side)
    assert trained(bench, "--hold-out", "p2")
