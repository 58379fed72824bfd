"""Inputs of a run over many files that are refused or left out, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geothresh import Many, Tiling, info, refine, vectorize
from geothresh.errors import InputError, OutputError, UsageError
from geothresh.files import require_file
from tests.support.fakes import IdentityRefiner, Recognisable
from tests.support.many import VALUES, WINDOWS, read, run, write_part, write_tiles
from tests.support.objects import object_store
from tests.support.rasters import write_raster


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


def test_the_output_directory_is_no_input(tiles: Path) -> None:
    with pytest.raises(UsageError, match="the output directory is the input .*tiles; name another"):
        run([tiles], tiles)


def test_no_output_is_an_input(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    one = write_part(out / "p00_mask.tif", VALUES, WINDOWS["p00"])
    with pytest.raises(UsageError, match="p00_mask.tif: is an input and would be an output"):
        run([tiles / "p00.tif", one], out)


@pytest.mark.parametrize("how", ["..", "link", "linked input"])
def test_no_output_is_an_input_by_another_way(tiles: Path, tmp_path: Path, how: str) -> None:
    out, named = tmp_path / "out", tmp_path / "out"
    out.mkdir()
    one = write_part(out / "p00_mask.tif", VALUES, WINDOWS["p12"])
    if how == "..":
        named = tmp_path / "out/../out"
    elif how == "link":
        named = tmp_path / "link"
        named.symlink_to(out)
    else:
        link = tmp_path / "other.tif"
        link.symlink_to(one)
        one = link
    before = (out / "p00_mask.tif").read_bytes()
    with pytest.raises(UsageError, match="p00_mask.tif: is an input and would be an output"):
        run([tiles / "p00.tif", one], named, overwrite=True)
    assert (out / "p00_mask.tif").read_bytes() == before


def test_two_inputs_of_one_name_are_refused(tiles: Path, tmp_path: Path) -> None:
    other = write_part(tmp_path / "p00.tif", VALUES, WINDOWS["p01"])
    with pytest.raises(UsageError, match="p00.tif and .*p00.tif: the outputs of both would be"):
        run([tiles, other], tmp_path / "out")
    with pytest.raises(UsageError, match="p00.tif: is given twice"):
        run([tiles, tiles / "p00.tif"], tmp_path / "out")


def test_a_list_with_a_missing_file_names_it(tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("tiles/p00.tif\ntiles/gone.tif\n")
    with pytest.raises(InputError, match=r"gone.tif: no such file.*\(line 2 of .*list.txt\)"):
        run([f"@{tmp_path}/list.txt"], tmp_path / "out")
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="the list names no file"):
        run([f"@{tmp_path}/list.txt"], tmp_path / "out")
    for none in ("none.txt", "a\0b"):
        with pytest.raises(InputError, match="the list cannot be read"):
            run([f"@{tmp_path}/{none}"], tmp_path / "out")
    with pytest.raises(UsageError, match="is not the name of a directory"):
        run([tiles], "a\0b")
    with pytest.raises(OutputError, match="the directory cannot be made"):
        run([tiles], tmp_path / ("n" * 300))


def test_a_list_of_an_editor_on_windows_is_read(tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbftiles/p00.tif\r\ntiles/p01.tif\r\n")
    result = run([f"@{tmp_path}/list.txt"], tmp_path / "out")
    assert [part.name for part in result.parts] == ["p00", "p01"]


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".tif", "n" * 300 + ".gti.gpkg"])
def test_a_name_that_is_too_long_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="too long for the file system"):
        run([tmp_path / name], tmp_path / "out")
    with pytest.raises(InputError, match="too long for the file system"):
        vectorize(tmp_path / name, tmp_path / "out.gpkg")


@pytest.mark.parametrize("name", ["s3://bucket/list.txt", "https://example.com/a.gpkg"])
def test_a_file_that_must_be_local_is_told_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="if it is a URL, give it as a text with both slashes"):
        require_file(name, Path(name))


def test_an_index_on_a_server_is_refused_as_an_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x.gti.gpkg: an index is read from a local file, s3://"):
        run(["https://example.com/x.gti.gpkg"], tmp_path / "out")


def test_the_query_of_an_address_is_in_no_name(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store() as store:
        store.use(monkeypatch)
        store.objects["bucket/p00.tif"] = (tiles / "p00.tif").read_bytes()
        result = run([f"{store.url}/bucket/p00.tif?X-Amz-Signature=1"], tmp_path / "out")
    assert result.parts[0].outputs["mask"] == tmp_path / "out/p00_mask.tif"


def test_a_name_that_begins_with_a_space_is_in_the_index(tiles: Path, tmp_path: Path) -> None:
    (tiles / "p00.tif").rename(tmp_path / " p00.tif")
    out = Path(run([tmp_path / " p00.tif"], tmp_path / "out").output_dir)
    assert np.array_equal(read(out / "mask.vrt"), read(out / " p00_mask.tif"))


def test_outputs_whose_names_are_not_utf_8_are_refused(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"\xff")
    out.mkdir()
    with pytest.raises(UsageError, match=r"udcff/p00_mask.tif': is a path that is not UTF-8"):
        run([tiles / "p00.tif"], out)
    with pytest.raises(UsageError, match="is a path that is not UTF-8"):
        refine(tiles / "p00.tif", out / "m.tif", model=IdentityRefiner(), tiling=Tiling())


def test_numbers_of_numpy_are_recorded(tiles: Path, tmp_path: Path) -> None:
    numbers = {"tile_size": np.int64(64), "overlap": np.int64(32), "threshold": np.float32(0.5)}
    made = run([tiles], tmp_path / "out", **numbers)
    again = run([tiles], tmp_path / "out", threshold=0.5)
    assert made.kept == 0 and again.kept == len(WINDOWS)


def test_inputs_without_georeference_have_no_place(tiles: Path, tmp_path: Path) -> None:
    write_raster(tiles / "bare.tif", VALUES, crs=None, transform=None)
    with pytest.raises(InputError, match="bare.tif: has no georeference, so that it has no place"):
        run([tiles], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(run([tiles], tmp_path / "out", many=Many(separately=True)).parts) == 7


def test_polygons_without_georeference_are_refused_before_any_work(tmp_path: Path) -> None:
    bare = write_raster(tmp_path / "bare.tif", VALUES, crs=None, transform=None)
    model = Recognisable()
    many = Many(vector=tmp_path / "v.gpkg")
    with pytest.raises(InputError, match="bare.tif: has no georeference.*leave out the vector"):
        run([bare], tmp_path / "out", model=model, many=many)
    assert not model.tiles and not (tmp_path / "out").exists()


def test_the_directory_of_the_polygons_is_made_or_missed_at_once(
    tiles: Path, tmp_path: Path
) -> None:
    vector, out = tmp_path / "new" / "v.gpkg", tmp_path / "deep" / "out"
    many = Many(vector=vector)
    with pytest.raises(OutputError, match="the directory .*new does not exist; create it first"):
        run([tiles], tmp_path / "out", many=many)
    assert not (tmp_path / "out").exists()
    damaged = Recognisable(2)  # raises KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        run([tiles], out, many=many, model=damaged, parents=True)
    assert out.exists() and not vector.parent.exists()
    assert run([tiles], out, many=many, parents=True).vector == vector and vector.exists()


def test_an_empty_directory_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no .tif file"):
        run([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UsageError, match="no scene is named"):
        run([], tmp_path / "out")


def test_a_bad_file_is_told_before_any_work(tiles: Path, tmp_path: Path) -> None:
    content = (tiles / "p11.tif").read_bytes()
    (tiles / "p11.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="p11.tif: "):
        run([tiles], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = run([tiles], tmp_path / "out", many=Many(skip_bad=True))
    assert [bad.name for bad in result.bad] == [str(tiles / "p11.tif")]
    assert [part.name for part in result.parts] == sorted(WINDOWS.keys() - {"p11"})


def test_a_file_that_is_damaged_in_the_middle_leaves_the_others(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads the damaged block is left out: the file itself, and neighbours that see it."""
    for name, window in WINDOWS.items():
        write_part(tiles / f"{name}.tif", VALUES, window, compress="deflate", blockysize=8)
    bad = tiles / "p10.tif"
    with rasterio.open(bad) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_0_6", "TIFF", 1))
    with bad.open("r+b") as file:
        file.seek(start + 8)
        file.write(b"\0" * 60)
    with pytest.raises(InputError, match=r"p10.tif: block \(6, 0\)"):
        run([tiles], tmp_path / "all")
    assert not (tmp_path / "all").exists(), "the sample has met it"
    skip = Many(skip_bad=True)
    assert len(run([tiles], tmp_path / "found", many=skip).parts) == 5
    monkeypatch.setattr("geothresh.raster.surface.SAMPLE_PIXELS", 1)
    with pytest.raises(InputError, match=r"p10.tif: block \(6, 0\)") as stopped:
        run([tiles], tmp_path / "out")
    assert any("1 of 6 outputs are finished" in n for n in getattr(stopped.value, "__notes__", []))
    result = run([tiles], tmp_path / "out", many=skip)
    assert {one.name for one in result.bad} == {str(tiles / f"{n}.tif") for n in ("p10", "p11")}
    assert all("p10.tif: block (6, 0)" in one.reason for one in result.bad)
    assert [part.name for part in result.parts] == ["p00", "p01", "p02", "p12"]


def test_a_single_name_is_a_sequence_of_one(tiles: Path, tmp_path: Path) -> None:
    for number, named in enumerate((tiles, str(tiles), tiles / "p00.tif", [str(tiles)])):
        result = run(named, tmp_path / f"out{number}")
        assert result.scenes == (1 if named == tiles / "p00.tif" else 6)
    with pytest.raises(UsageError, match="int is no scene; give paths"):
        run(3, tmp_path / "out")
    with pytest.raises(UsageError, match="int is not a raster"):
        run([3], tmp_path / "out")  # type: ignore[list-item]


def test_open_datasets_are_read_by_their_names(tiles: Path, tmp_path: Path) -> None:
    with rasterio.open(tiles / "p00.tif") as one, rasterio.open(tiles / "p01.tif") as other:
        assert run([one, other], tmp_path / "out").scenes == 2
        assert run(one, tmp_path / "single").scenes == 1
        assert len(info([one, other]).files) == 2
    masks = [tmp_path / "out" / f"{name}_mask.tif" for name in ("p00", "p01")]
    expected = vectorize(masks, tmp_path / "a.gpkg").features
    with rasterio.open(masks[0]) as one, rasterio.open(masks[1]) as other:
        assert vectorize([one, other], tmp_path / "b.gpkg").features == expected
