"""Pairs of maps and masks: what belongs together, and what is found broken before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geothresh.errors import InputError, UsageError
from geothresh.raster.image_pairs import find_images, find_pictures
from geothresh.raster.pairs import (
    MaskFacts,
    Pair,
    by_dataset,
    check_pairs,
    find_pairs,
    read_confidence,
    read_mask,
)
from geothresh.splitting import Split, split_ids
from tests.support.pictures import deepglobe, maps, write


def test_several_networks_and_data_sets_are_told_apart(tmp_path: Path) -> None:
    data = [deepglobe(tmp_path / "roads", ["a", "b"]), deepglobe(tmp_path / "more", ["c"])]
    confidence = [
        maps(tmp_path / "1" / "unet", ["a", "b"]),
        maps(tmp_path / "1" / "fcn", ["b", "a"]),
        maps(tmp_path / "2" / "unet", ["c"]),
    ]
    pairs = find_pairs(data, confidence)
    assert [(p.dataset, p.source, p.id) for p in pairs] == [
        ("more", "unet", "c"),
        ("roads", "fcn", "a"),
        ("roads", "fcn", "b"),
        ("roads", "unet", "a"),
        ("roads", "unet", "b"),
    ]
    assert pairs[0].mask == tmp_path / "more" / "c_mask.png"
    assert pairs[0].confidence == tmp_path / "2" / "unet" / "c.png"
    assert set(check_pairs(pairs)) == {"a", "b", "c"}


def test_a_data_folder_named_by_a_dot_has_the_name_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiles"
    for name in ("mask", "confidence"):
        write(folder / name / "a.png", np.full((8, 8), 255, np.uint8))
    monkeypatch.chdir(folder)
    assert [pair.dataset for pair in find_pairs(".")] == ["tiles"]
    assert by_dataset([Path()], [1.0]) == {"tiles": 1.0}


def test_a_folder_of_maps_named_by_a_dot_has_the_name_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deepglobe(tmp_path / "roads", ["a"])
    monkeypatch.chdir(maps(tmp_path / "unet", ["a", "b"]))
    (pair,) = find_pairs("../roads", ["."], skip_unpaired=True)
    assert pair.source == "unet"
    with pytest.raises(InputError, match=r"1 map without a mask \(unet/b\)"):
        find_pairs("../roads", ["."])


def test_a_link_has_one_name_for_maps_and_for_images(tmp_path: Path) -> None:
    deepglobe(tmp_path / "v3", ["a"])
    link = tmp_path / "current"
    link.symlink_to("v3")
    (pair,) = find_pairs(link, [maps(tmp_path / "unet", ["a"])])
    (image,) = find_images(link)
    assert pair.dataset == image.dataset == "current"


def test_images_in_several_formats_are_nobodys_business(tmp_path: Path) -> None:
    data = deepglobe(tmp_path / "data", ["a"])
    (data / "a_sat.png").write_bytes(b"not looked at either")
    (pair,) = find_pairs(data, [maps(tmp_path / "net", ["a"])])
    assert pair.mask == data / "a_mask.png"
    write(data / "a_mask.tif", np.zeros((40, 40), np.uint8))
    with pytest.raises(InputError, match="both a_mask.png and a_mask.tif"):
        find_pairs(data, [tmp_path / "net"])


def test_the_plain_layout_needs_no_further_folder(tmp_path: Path) -> None:
    write(tmp_path / "mask" / "a.png", np.eye(5, dtype=np.uint8))
    maps(tmp_path / "confidence", ["a"], side=5)
    (pair,) = find_pairs(tmp_path)
    assert (pair.id, pair.source) == ("a", "confidence")


def test_masks_of_0_and_1_equal_masks_of_0_and_255(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).random((9, 9)) < 0.5
    one = write(tmp_path / "1.png", truth.astype(np.uint8))
    other = write(tmp_path / "255.png", truth.astype(np.uint8) * 255)
    np.testing.assert_array_equal(read_mask(one), truth)
    np.testing.assert_array_equal(read_mask(other), truth)


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_masks_may_be_stored_in_16_bits(tmp_path: Path, white: int, ending: str) -> None:
    truth = np.random.default_rng(0).random((9, 9)) < 0.5
    path = write(tmp_path / f"m.{ending}", truth.astype(np.uint16) * np.uint16(white))
    np.testing.assert_array_equal(read_mask(path), truth)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.array([[0, 300]], np.uint16), "beside 0 it holds the value 300, and expected is one"),
        (np.array([[0, 7]], np.uint8), "beside 0 it holds the value 7, and"),
        (np.array([[0, 1, 65535]], np.uint16), "beside 0 it holds 2 values, 1, 65535, and"),
        (np.arange(9, dtype=np.uint8).reshape(3, 3), "beside 0 it holds 8 values, 1, 2, 3, 4 ..."),
    ],
)
def test_a_mask_of_other_values_is_told_those_that_it_stores(
    tmp_path: Path, pixels: np.ndarray, said: str
) -> None:
    path = write(tmp_path / "m.png", pixels)
    with pytest.raises(InputError) as caught:
        read_mask(path)
    assert str(caught.value).startswith(f"{path}: not a two-valued mask: {said}")
    assert str(caught.value).endswith("write 0 and 255, or 0 and 1")


def test_maps_of_16_bits_are_shares_of_the_most(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", np.array([[0, 13107, 65535]], np.uint16))
    np.testing.assert_allclose(read_confidence(path), [[0, 0.2, 1]], atol=1e-7)


def test_a_map_with_nan_is_told_so(tmp_path: Path) -> None:
    values = np.full((4, 5), 0.5, np.float32)
    values[1, 2:4] = np.nan
    path = write(tmp_path / "m.tif", values)
    with pytest.raises(InputError, match=r"m\.tif: 2 pixels are NaN; cut the map"):
        read_confidence(path)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    """macOS leaves ._NAME beside every file on the disks of others."""
    data, confidence = deepglobe(tmp_path / "data", ["a"]), maps(tmp_path / "net", ["a"])
    for path in (data / "._a_mask.png", data / "._a_sat.jpg", confidence / "._a.png"):
        path.write_bytes(b"\0\5\x16\7 of the Finder")
    (pair,) = find_pairs(data, [confidence])
    assert pair.id == "a"
    (image,) = find_images(data)
    assert image.image == data / "a_sat.jpg"
    assert list(find_pictures(data)) == ["a"]


def test_what_has_no_partner_is_named_up_to_ten(tmp_path: Path) -> None:
    ids = [f"id{k:02}" for k in range(14)]
    data = deepglobe(tmp_path / "data", ids[:2])
    confidence = maps(tmp_path / "net", ids[1:])
    with pytest.raises(InputError) as caught:
        find_pairs(data, [confidence])
    message = str(caught.value)
    assert "12 maps without a mask" in message and "1 mask without a map (id00)" in message
    assert "id11" in message and "id12" not in message and "and 2 more" in message
    assert "`skip_unpaired=True`" in message
    assert [p.id for p in find_pairs(data, [confidence], skip_unpaired=True)] == ["id01"]


def test_no_pairs_at_all_shows_how_both_sides_are_named(tmp_path: Path) -> None:
    data = deepglobe(tmp_path / "data", ["a"])
    with pytest.raises(InputError, match="named like net/b, masks like a"):
        find_pairs(data, [maps(tmp_path / "net", ["b"])])


def test_empty_or_missing_folders(tmp_path: Path) -> None:
    data = deepglobe(tmp_path / "data", ["a"])
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "no confidence maps"), ("missing", "cannot be listed")):
        with pytest.raises(InputError, match=message):
            find_pairs(data, [tmp_path / folder])
    with pytest.raises(InputError, match="no masks"):
        find_pairs(tmp_path / "empty", [maps(tmp_path / "net", ["a"])])


def test_ids_in_two_data_folders_are_ambiguous(tmp_path: Path) -> None:
    data = [deepglobe(tmp_path / "x", ["a"]), deepglobe(tmp_path / "y", ["a"])]
    with pytest.raises(InputError, match="1 id in several data folders: a"):
        find_pairs(data, [maps(tmp_path / "net", ["a"])])


def test_base_networks_whose_folders_have_one_name_are_ambiguous(tmp_path: Path) -> None:
    data = deepglobe(tmp_path / "data", ["a", "b", "c"])
    one, other = (maps(tmp_path / net / "oof", ["a", "b"]) for net in ("unet", "fcn"))
    with pytest.raises(InputError, match=r"2 maps in several .* \(oof/a, oof/b\)"):
        find_pairs(data, [one, other], skip_unpaired=True)
    # The parts of one network's maps may lie apart.
    rest = maps(tmp_path / "more" / "oof", ["c"])
    assert [p.id for p in find_pairs(data, [one, rest])] == ["a", "b", "c"]


def test_every_kind_of_broken_file_is_found_and_named(tmp_path: Path) -> None:
    ids = ["cut", "grey", "good", "size", "text"]
    data = deepglobe(tmp_path / "data", ids)
    confidence = maps(tmp_path / "net", ids)
    whole = (confidence / "cut.png").read_bytes()
    (confidence / "cut.png").write_bytes(whole[: len(whole) // 2])
    write(data / "grey_mask.png", np.arange(1600, dtype=np.uint8).reshape(40, 40))
    write(confidence / "size.png", np.zeros((40, 41), np.uint8))
    (data / "text_mask.png").write_text("a mask")
    with pytest.raises(InputError) as caught:
        check_pairs(find_pairs(data, [confidence]))
    message = str(caught.value)
    assert message.startswith("4 unusable files")
    for part in ("cut.png", "grey_mask.png", "size.png: 40 x 41", "text_mask.png"):
        assert part in message
    assert "good" not in message and "\n" not in message


def test_a_mask_in_colour_is_refused(tmp_path: Path) -> None:
    data = deepglobe(tmp_path / "data", ["a"])
    colours = np.zeros((40, 40, 3), np.uint8)
    colours[5:9, 5:9] = (255, 0, 0)
    write(data / "a_mask.png", colours)
    with pytest.raises(InputError, match="a_mask.png"):
        check_pairs(find_pairs(data, [maps(tmp_path / "net", ["a"])]))


def test_masks_without_any_foreground_teach_nothing(tmp_path: Path) -> None:
    data = deepglobe(tmp_path / "data", ["a"])
    write(data / "a_mask.png", np.zeros((40, 40), np.uint8))
    with pytest.raises(InputError, match="none of the 1 masks has a foreground"):
        check_pairs(find_pairs(data, [maps(tmp_path / "net", ["a"])]))


def scenes(tmp_path: Path, n: int = 40) -> tuple[list[Pair], dict]:
    ids = [f"{'test' if k % 5 == 0 else 'train'}_{k // 4:02}_{k}" for k in range(n)]
    data = deepglobe(tmp_path / "data", ids)
    empty, twin = write(data / f"{ids[1]}_mask.png", np.zeros((40, 40), np.uint8)), ids[2]
    (data / f"{ids[6]}_mask.png").write_bytes(empty.read_bytes())
    (data / f"{ids[-1]}_mask.png").write_bytes((data / f"{twin}_mask.png").read_bytes())
    pairs = find_pairs(data, [maps(tmp_path / net, ids) for net in ("unet", "fcn")])
    return pairs, check_pairs(pairs)


def split_pairs(pairs: list[Pair], facts: dict[str, MaskFacts], **how: Any) -> Split:
    """The split of the ids, as a training draws it."""
    marks = {i: one.marks for i, one in facts.items()}
    return split_ids({pair.id: pair.dataset for pair in pairs}, marks, **how)


def test_a_split_covers_all_ids_once_and_keeps_networks_together(tmp_path: Path) -> None:
    pairs, facts = scenes(tmp_path)
    split = split_pairs(pairs, facts, fraction=0.25, seed=3)
    assert sorted(split.train + split.validation) == sorted({p.id for p in pairs})
    assert len(split.validation) in (9, 10, 11)
    assert split == split_pairs(pairs[::-1], facts, fraction=0.25, seed=3)
    assert split != split_pairs(pairs, facts, fraction=0.25, seed=4)


@pytest.mark.parametrize("seed", range(8))
def test_one_place_under_two_names_stays_on_one_side(tmp_path: Path, seed: int) -> None:
    pairs, facts = scenes(tmp_path)
    twins = {"train_00_2", "train_09_39"}
    split = split_pairs(
        pairs, facts, fraction=0.3, seed=seed, place_pattern=r"^(?:train|test)_(\d+)_"
    )
    validation = set(split.validation)
    assert len(twins & validation) in (0, 2)
    # The pattern joins ids of one number; the twins join their two places.
    for place in range(10):
        members = {i for i in split.train + split.validation if f"_{place:02}_" in i}
        assert members <= validation or not members & validation


def test_full_masks_are_not_one_place(tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    data = deepglobe(tmp_path / "data", ids)
    for i in ids[:2]:
        write(data / f"{i}_mask.png", np.full((40, 40), 255, np.uint8))
    facts = check_pairs(find_pairs(data, [maps(tmp_path / "net", ids)]))
    assert [bool(facts[i].marks) for i in ids] == [False, False, True]


def test_empty_masks_are_not_one_place(tmp_path: Path) -> None:
    pairs, facts = scenes(tmp_path)
    empty = {"train_00_1", "train_01_6"}
    assert facts["train_00_1"].digest == facts["train_01_6"].digest
    sides = [
        len(empty & set(split_pairs(pairs, facts, fraction=0.4, seed=s).validation))
        for s in range(12)
    ]
    assert 1 in sides


@pytest.mark.parametrize("seed", range(6))
def test_a_place_that_two_data_sets_show_stays_on_one_side(tmp_path: Path, seed: int) -> None:
    numbers = range(12)
    data, networks = [], []
    for number, name in enumerate(("narrow", "wide")):
        ids = [f"{name}_{k:02}" for k in numbers]
        data.append(deepglobe(tmp_path / name, ids, seed=number))
        networks.append(maps(tmp_path / "net" / name, ids))
    # The same label in both, where no pattern tells.
    (data[1] / "wide_11_mask.png").write_bytes((data[0] / "narrow_03_mask.png").read_bytes())
    pairs = find_pairs(data, networks)
    facts = check_pairs(pairs)
    for pattern in (None, r"_(\d+)$"):
        split = split_pairs(pairs, facts, fraction=0.3, seed=seed, place_pattern=pattern)
        validation = set(split.validation)
        assert len({"narrow_03", "wide_11"} & validation) in (0, 2)
        for k in numbers if pattern else ():
            assert len({f"narrow_{k:02}", f"wide_{k:02}"} & validation) in (0, 2)


def test_ids_held_out_by_name_are_all_that_is_held_out(tmp_path: Path) -> None:
    pairs, facts = scenes(tmp_path)
    split = split_pairs(pairs, facts, fraction=0.3, hold_out=["test_*"])
    assert set(split.validation) == {p.id for p in pairs if p.id.startswith("test_")}


def test_splits_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    pairs, facts = scenes(tmp_path)
    for options, message in (
        ({"fraction": 1.0}, "fraction"),
        ({"fraction": 0.0}, "`validation_fraction`"),
        ({"fraction": 0.2, "hold_out": ["*"]}, "leave some to train"),
        ({"fraction": 0.2, "hold_out": ["test_*", "tset_*"]}, "no id matches `hold_out` 'tset_"),
        ({"fraction": 0.2, "place_pattern": "("}, "regular expression"),
        ({"fraction": 0.2, "place_pattern": "a"}, "no group"),
    ):
        with pytest.raises(UsageError, match=message):
            split_pairs(pairs, facts, **options)


def test_a_manifest_comes_back_and_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    split = Split(train=("a", "b"), validation=("c",))
    split.save(path)
    assert Split.load(path) == split
    for text, message in (
        ('{"train": ["a"], "validation": ["a"]}', "1 id on both sides: a"),
        ('{"train": ["a"]}', "not a split manifest"),
        ('{"train": "ab", "validation": "c"}', "not a split manifest .*train is no list"),
        ("[]", "not a split manifest"),
        ("nonsense", "not a split manifest"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            Split.load(path)
    with pytest.raises(InputError, match="no such file"):
        Split.load(tmp_path / "none.json")
