"""Many scenes whose outputs go to an object store, one by one, whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from geothresh import Many, RefineManyResult, vectorize
from geothresh.cli import main
from geothresh.errors import InputError, OutputError, UsageError
from geothresh.raster.gdal import gdal_environment
from tests.support.cli_runner import runner
from tests.support.fakes import FakeSource, Recognisable
from tests.support.many import VALUES, WINDOWS, read, run, write_part, write_tiles
from tests.support.objects import Fault, ObjectStore

OUT = "s3://bucket/out"
RECORD = "bucket/out/.geothresh.jsonl"
INDEXES = {"bucket/out/mask.vrt", "bucket/out/mask.gti.gpkg"}
NAMES = sorted(f"bucket/out/{name}_mask.tif" for name in WINDOWS)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


def refine(tiles: Path, **options: Any) -> RefineManyResult:
    return run([tiles], OUT, **options)


def masks(store: ObjectStore) -> dict[str, bytes]:
    """What is in the store besides indexes and record."""
    others = {RECORD, *INDEXES}
    return {name: content for name, content in store.objects.items() if name not in others}


def here(tmp_path: Path) -> list[str]:
    """What is in the directory on this machine."""
    return sorted(path.name for path in (tmp_path / "work").rglob("*") if path.is_file())


def test_each_mask_arrives_as_it_would_be_written_here(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    run([tiles], tmp_path / "local")
    result = refine(tiles)
    assert result.output_dir == OUT
    assert {f"s3://{name}" for name in INDEXES} == set(result.indexes)
    assert sorted(masks(store)) == NAMES and RECORD in store.objects
    for key, content in masks(store).items():
        assert content == (tmp_path / "local" / Path(key).name).read_bytes()
    assert {part.outputs["mask"] for part in result.parts} == {f"s3://{name}" for name in NAMES}
    assert here(tmp_path) == [".geothresh.jsonl"]


def test_scenes_of_a_store_in_a_list_are_refined_too(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    for path in tiles.iterdir():
        store.objects[f"bucket/in/{path.name}"] = path.read_bytes()
    names = [f"s3://bucket/in/{name}.tif" for name in WINDOWS]
    (tmp_path / "list.txt").write_text("\n".join(names))
    result = run([f"@{tmp_path / 'list.txt'}"], "s3://bucket/out/", many=Many(layers="confidence"))
    assert result.scenes == 6 and set(NAMES) < set(store.objects)
    assert len([key for key in store.objects if key.endswith("_confidence.tif")]) == 6


def test_the_same_command_does_nothing_again(store: ObjectStore, tiles: Path) -> None:
    refine(tiles)
    store.asked.clear()
    again = Recognisable()
    result = refine(tiles, model=again)
    assert result.kept == 6 and not again.tiles
    puts = {path for method, path in store.asked if method != "GET"}
    assert puts <= {f"/{name}" for name in (RECORD, *INDEXES)}


@pytest.mark.parametrize("done_to", ["removed", "replaced"])
def test_what_somebody_did_to_an_object_is_seen(
    store: ObjectStore, tiles: Path, done_to: str
) -> None:
    refine(tiles)
    whole = masks(store)
    if done_to == "removed":
        del store.objects[NAMES[2]]
        assert refine(tiles).kept == 5 and masks(store) == whole
        return
    store.objects[NAMES[2]] = b"somebody's"
    with pytest.raises(OutputError, match=f"s3://{NAMES[2]}: exists already"):
        refine(tiles)
    assert store.objects[NAMES[2]] == b"somebody's"
    assert refine(tiles, overwrite=True).kept == 0 and masks(store) == whole


def test_a_store_that_fails_ends_the_run_which_goes_on(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    store.always.append((f"PUT /{NAMES[3]}", "busy"))
    with pytest.raises(OutputError, match="kept here as") as caught:
        refine(tiles)
    assert "same command" in " ".join(caught.value.__notes__)
    assert NAMES[3] not in store.objects and store.objects
    sent = dict(store.objects)
    store.always.clear()
    rest = Recognisable()
    result = refine(tiles, model=rest)
    assert result.kept == len(sent) and sorted(masks(store)) == NAMES
    assert here(tmp_path) == [".geothresh.jsonl"]
    # The one that was finished here was only sent.
    anew = Recognisable()
    refine(tiles, model=anew, overwrite=True)
    assert rest.tiles < anew.tiles * (6 - len(sent)) / 6


def test_another_machine_goes_on_from_the_record_in_the_store(
    store: ObjectStore, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geothresh.many.places._RECORD_SECONDS", 0.0)
    store.always.append((f"PUT /{NAMES[3]}", "busy"))
    with pytest.raises(OutputError, match="kept here as"):
        refine(tiles)
    done = len(masks(store))
    assert done and RECORD in store.objects
    store.always.clear()
    shutil.rmtree(tmp_path / "work")
    assert refine(tiles).kept == done and sorted(masks(store)) == NAMES
    with pytest.raises(UsageError, match="threshold"):
        refine(tiles, threshold=0.4)
    shutil.rmtree(tmp_path / "work")
    with pytest.raises(UsageError, match="threshold"):
        refine(tiles, threshold=0.4)


def test_without_a_record_it_replaces_only_what_is_of_the_same_run(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    refine(tiles)
    whole = masks(store)
    shutil.rmtree(tmp_path / "work"), store.objects.pop(RECORD)
    assert refine(tiles).kept == 0 and masks(store) == whole
    shutil.rmtree(tmp_path / "work"), store.objects.pop(RECORD)
    with pytest.raises(OutputError, match="exists already"):
        refine(tiles, threshold=0.4)
    assert masks(store) == whole


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut"])
def test_a_store_that_does_not_give_its_record_is_told_before_any_work(
    store: ObjectStore, tiles: Path, fault: Fault
) -> None:
    store.always.append((f"GET /{RECORD}", fault))
    model = Recognisable()
    with pytest.raises(OutputError, match="record|jsonl"):
        refine(tiles, model=model)
    assert not model.tiles and not store.objects


def test_outputs_of_scenes_that_are_gone_are_removed_on_update(
    store: ObjectStore, tiles: Path
) -> None:
    refine(tiles)
    (tiles / "p12.tif").unlink()
    with pytest.raises(UsageError, match="holds outputs of 1 other scene "):
        refine(tiles)
    result = refine(tiles, many=Many(update=True))
    assert result.removed == ("p12",)
    assert sorted(masks(store)) == [name for name in NAMES if "p12" not in name]


def test_an_input_is_never_an_output(store: ObjectStore, tiles: Path) -> None:
    store.objects["bucket/out/a.tif"] = (tiles / "p00.tif").read_bytes()
    store.objects["bucket/out/a_mask.tif"] = (tiles / "p01.tif").read_bytes()
    scenes = ["s3://bucket/out/a.tif", "/vsis3/bucket/out/a_mask.tif"]
    with pytest.raises(UsageError, match="is an input and would be an output"):
        run(scenes, OUT, overwrite=True)


def test_polygons_of_all_are_drawn_from_the_store(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    local = run([tiles], tmp_path / "local", many=Many(vector=tmp_path / "local.gpkg"))
    result = refine(tiles, many=Many(vector=tmp_path / "roads.gpkg"))
    assert result.features == local.features and (tmp_path / "roads.gpkg").is_file()


def in_store(store: ObjectStore, tiles: Path) -> str:
    """The same scenes, in a directory of the store with other things."""
    for path in tiles.iterdir():
        store.objects[f"bucket/in/{path.name}"] = path.read_bytes()
    store.objects |= {"bucket/in/notes.txt": b"x", "bucket/in/.p.tif": b"x"}
    store.objects["bucket/in/below/p99.tif"] = b"x"
    return "s3://bucket/in/"


@pytest.mark.parametrize("scheme", ["s3://", "/vsis3/", "gs://"])
def test_a_directory_of_a_store_is_an_input(
    store: ObjectStore, tiles: Path, tmp_path: Path, scheme: str
) -> None:
    run([tiles], tmp_path / "local")
    in_store(store, tiles)
    store.page = 4
    result = run([f"{scheme}bucket/in/"], f"{scheme}bucket/out")
    assert result.scenes == 6
    for path in (tmp_path / "local").glob("*_mask.tif"):
        found = store.objects[f"bucket/out/{path.name}"]
        assert read(fetched(found, tmp_path)).tolist() == read(path).tolist()
    told = runner().invoke(main, ["info", f"{scheme}bucket/in/", "--json"])
    assert told.exit_code == 0 and len(json.loads(told.stdout)["files"]) == 6


def fetched(content: bytes, folder: Path) -> Path:
    path = folder / "fetched.tif"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut"])
def test_a_directory_that_cannot_be_listed_is_told_at_once(
    store: ObjectStore, tiles: Path, fault: Fault
) -> None:
    named = in_store(store, tiles)
    store.page = 4
    store.always.append(("GET.*marker", fault))
    with pytest.raises(InputError, match=r"s3://bucket/in: cannot be listed"):
        run([named], OUT)


def test_odd_directories_of_a_store(store: ObjectStore, tiles: Path) -> None:
    named = in_store(store, tiles)
    with pytest.raises(UsageError, match="the output directory is the input"):
        run([named], "/vsis3/bucket/in")
    with pytest.raises(InputError, match="ends in a slash"):
        run(["s3://bucket/in"], OUT)
    with pytest.raises(InputError, match="holds no .tif object"):
        run(["s3://bucket/nothing/"], OUT)
    with pytest.raises(InputError, match="holds no .tif object"):
        run(["s3://bucket"], OUT)
    store.objects["bucket/in/p12.tif"] = store.objects["bucket/in/p12.tif"][:3000]
    with pytest.raises(InputError, match=r"s3://bucket/in/p12.tif"):
        run([named], OUT)
    result = run([named], OUT, many=Many(skip_bad=True))
    assert [one.name for one in result.bad] == ["s3://bucket/in/p12.tif"]
    assert len(result.parts) == 5


def test_indexes_of_a_store_open_as_one_raster(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    local = run([tiles], tmp_path / "local")
    refine(tiles)
    with rasterio.open(tmp_path / "local/mask.vrt") as whole:
        values, box = whole.read(1), whole.bounds
    for name in ("mask.vrt", "mask.gti.gpkg"):
        with gdal_environment(remote=True), rasterio.open(f"/vsis3/bucket/out/{name}") as found:
            assert np.array_equal(found.read(1), values) and found.bounds == box
    assert len(local.indexes) == 2


def test_the_index_of_a_store_is_an_input(store: ObjectStore, tiles: Path, tmp_path: Path) -> None:
    run([tiles], tmp_path / "local")
    refine(tiles)
    vectorize(tmp_path / "local/mask.gti.gpkg", tmp_path / "local.gpkg")
    vectorize(f"{OUT}/mask.gti.gpkg", tmp_path / "roads.gpkg")
    found = [geopandas.read_file(tmp_path / name) for name in ("local.gpkg", "roads.gpkg")]
    assert len(found[0]) and found[0].equals(found[1])
    for name in ("/etc/passwd", "../in/a.tif", "http://example.com/a.tif"):
        index = tmp_path / "bad.gti.gpkg"
        geopandas.GeoDataFrame({"location": [name]}, geometry=[shapely.box(0, 0, 1, 1)]).to_file(
            index, engine="pyogrio"
        )
        store.objects["bucket/out/bad.gti.gpkg"] = index.read_bytes()
        with pytest.raises(InputError, match="does not lie beside it"):
            vectorize(f"{OUT}/bad.gti.gpkg", tmp_path / "other.gpkg")
    with pytest.raises(InputError, match="is not there"):
        vectorize(f"{OUT}/none.gti.gpkg", tmp_path / "other.gpkg")


def test_an_object_that_changed_is_refined_anew(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    named = in_store(store, tiles)
    run([named], OUT)
    write_part(tiles / "p12.tif", 1 - VALUES, WINDOWS["p12"])
    store.objects["bucket/in/p12.tif"] = (tiles / "p12.tif").read_bytes()
    with pytest.raises(UsageError, match="was made of other inputs"):
        run([named], OUT)
    assert 0 < run([named], OUT, many=Many(update=True)).kept < 6
    run([tiles], tmp_path / "local")
    for name in NAMES:
        local = read(tmp_path / "local" / Path(name).name)
        assert np.array_equal(read(fetched(store.objects[name], tmp_path)), local)
    store.always.append(("GET /bucket/in/p11.tif", "busy"))
    with pytest.raises(InputError, match=r"s3://bucket/in/p11.tif"):
        run([named], OUT)


ROADS = "bucket/out/roads.gpkg"


def test_polygons_of_all_go_to_the_store(store: ObjectStore, tiles: Path, tmp_path: Path) -> None:
    local = run([tiles], tmp_path / "local", many=Many(vector=tmp_path / "local.gpkg"))
    many = Many(vector=f"s3://{ROADS}")
    result = refine(tiles, many=many)
    assert result.vector == f"s3://{ROADS}" and result.features == local.features
    (tmp_path / "fetched.gpkg").write_bytes(store.objects[ROADS])
    found = [geopandas.read_file(tmp_path / name) for name in ("local.gpkg", "fetched.gpkg")]
    assert found[0].equals(found[1])
    store.asked.clear()
    assert refine(tiles, many=many).features == local.features
    assert not store.puts(ROADS)
    # A style goes beside a FlatGeobuf, and not to the store.
    flat = refine(tiles, many=Many(vector="s3://bucket/out/roads.fgb"))
    assert flat.features == local.features and "bucket/out/roads.fgb" in store.objects
    assert here(tmp_path) == [".geothresh.jsonl"]


@pytest.mark.parametrize("fault", ["busy", "cut", "cut after", "gone"])
def test_polygons_that_could_not_be_sent_are_drawn_and_sent_again(
    store: ObjectStore, tiles: Path, tmp_path: Path, fault: Fault
) -> None:
    many = Many(vector=f"s3://{ROADS}")
    refine(tiles, many=many)
    old = store.objects[ROADS]
    write_part(tiles / "p12.tif", 1 - VALUES, WINDOWS["p12"])
    store.always.append((f"PUT /{ROADS}", fault))
    for attempt in range(2):
        if fault == "cut after" and attempt:  # it is there, whole
            break
        with pytest.raises(OutputError, match=f"s3://{ROADS}"):
            refine(tiles, many=replace(many, update=True))
        assert (store.objects[ROADS] == old) == (fault != "cut after")
    store.always.clear()
    result = refine(tiles, many=many)
    assert result.kept == 6 and store.objects[ROADS] != old
    store.objects[ROADS] = b"somebody's"
    with pytest.raises(OutputError, match=f"s3://{ROADS}: exists already"):
        refine(tiles, many=many)
    assert store.objects[ROADS] == b"somebody's"


def test_polygons_that_cannot_be_there_are_told_before_any_work(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    model = Recognisable()
    for name, text in (("x.shp", "several files"), ("x.xyz", "format")):
        with pytest.raises(UsageError, match=text):
            refine(tiles, model=model, many=Many(vector=f"s3://bucket/{name}"))
    store.objects["bucket/x.gpkg"] = b"somebody's"
    with pytest.raises(OutputError, match="s3://bucket/x.gpkg: exists already"):
        refine(tiles, model=model, many=Many(vector="s3://bucket/x.gpkg"))
    assert not model.tiles and set(store.objects) == {"bucket/x.gpkg"}


@pytest.mark.slow
def test_workers_send_what_they_make(store: ObjectStore, tiles: Path, tmp_path: Path) -> None:
    run([tiles], tmp_path / "local", model=FakeSource(kind="uneven"))
    refine(tiles, model=FakeSource(kind="uneven"), workers=2)
    assert sorted(masks(store)) == NAMES
    for key, content in masks(store).items():
        assert content == (tmp_path / "local" / Path(key).name).read_bytes()
    assert here(tmp_path) == [".geothresh.jsonl"]
